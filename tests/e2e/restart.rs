//! The daemon is restarted, or killed at any moment: nothing acknowledged is lost.

use std::{thread, time::Duration};

use rcd_tests::{Daemon, Environment, Service, Terminal, command::until, harness::Verdict};

use crate::support::{
    assert_counted, busybox, counter, finish, inspect, run_detached, spawn, status,
};

fn survive(environment: &Environment, again: fn(&mut Service) -> rcd_tests::Result<()>) -> Verdict {
    let mut rcd = busybox(environment)?;
    rcd.rc_ok(&["run", "-d", "--name", "main", "busybox", "sleep", "1000"])?;
    let before = inspect(&rcd, "main")?;
    again(&mut rcd)?;
    let after = inspect(&rcd, "main")?;
    assert_eq!(before["State"]["Pid"], after["State"]["Pid"]);
    assert_eq!(before["State"]["StartedAt"], after["State"]["StartedAt"]);
    assert_eq!(rcd.rc_ok(&["exec", "main", "echo", "works"])?, "works");
    rcd.rc_ok(&["kill", "main"])?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "137");
    Ok(())
}

pub(crate) fn containers_survive_a_restart(environment: &Environment) -> Verdict {
    survive(environment, Daemon::restart)
}

pub(crate) fn containers_survive_a_kill(environment: &Environment) -> Verdict {
    survive(environment, Daemon::kill_daemon)
}

pub(crate) fn exit_codes_survive(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    run_detached(&rcd, "sleep 0.3; exit 33")?;
    rcd.stop(nix::sys::signal::Signal::SIGKILL)?;
    // The container ends while nobody but the holder is there.
    thread::sleep(Duration::from_millis(600));
    rcd.spawn()?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "33");
    assert_eq!(inspect(&rcd, "main")?["State"]["ExitCode"], 33);
    Ok(())
}

pub(crate) fn an_attached_client_resumes(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    let script = counter(300) + "; exit 12";
    let client = spawn(
        &rcd,
        &["run", "--name", "main", "busybox", "sh", "-c", &script],
    )?;
    for _ in 0..2 {
        let before = rcd.rc(&["logs", "main"]).stdout.lines().count();
        until(20, "more lines", || {
            (rcd.rc(&["logs", "main"]).stdout.lines().count() > before + 30).then_some(())
        })?;
        rcd.kill_daemon()?;
    }
    let (code, stdout, stderr) = finish(client)?;
    assert_eq!(code, 12, "{stderr}");
    assert_counted(&stdout, 300);
    Ok(())
}

pub(crate) fn a_terminal_survives(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    let run = rcd
        .sandbox()
        .rc_command(&["run", "-it", "--name", "main", "busybox", "sh"]);
    let mut terminal = Terminal::start(&run)?;
    terminal.expect("# ")?;
    rcd.kill_daemon()?;
    terminal.send("echo st''ill\n")?;
    terminal.expect("still")?;
    terminal.send("exit 5\n")?;
    assert_eq!(terminal.wait()?, 5);
    Ok(())
}

pub(crate) fn auto_remove_survives(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    rcd.rc_ok(&[
        "run", "-d", "--rm", "--name", "main", "busybox", "sleep", "1000",
    ])?;
    rcd.kill_daemon()?;
    rcd.rc_ok(&["kill", "main"])?;
    until(20, "the removal", || {
        rcd.rc(&["ps", "-aq"]).stdout.is_empty().then_some(())
    })
}

pub(crate) fn stopped_containers_are_still_there(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    rcd.rc_ok(&["create", "--name", "made", "busybox", "true"])?;
    rcd.rc(&["run", "--name", "ended", "busybox", "sh", "-c", "exit 4"]);
    rcd.kill_daemon()?;
    assert_eq!(
        (status(&rcd, "made")?, status(&rcd, "ended")?),
        ("created".into(), "exited".into())
    );
    assert_eq!(rcd.rc_ok(&["wait", "ended"])?, "4");
    rcd.rc_ok(&["start", "made"])?;
    assert_eq!(rcd.rc_ok(&["images", "-q"])?.lines().count(), 1);
    Ok(())
}

/// Creates, starts, stops and removes while the daemon is killed again and again, at moments that
/// step through the course of such a command.
fn kill_rounds(environment: &Environment, rounds: u64) -> Verdict {
    let mut rcd = busybox(environment)?;
    for round in 0..rounds {
        let name = format!("r{round}");
        let verbs: [&[&str]; 4] = [
            &["create", "--name", &name, "busybox", "sleep", "1000"],
            &["run", "-d", "--name", &name, "busybox", "sleep", "1000"],
            &["stop", "-t", "0", &name],
            &["rm", "-f", &name],
        ];
        let verb = verbs[usize::try_from(round).unwrap_or(0) % verbs.len()];
        if matches!(verb[0], "stop" | "rm") {
            rcd.rc_ok(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])?;
        }
        let client = spawn(&rcd, verb)?;
        thread::sleep(Duration::from_micros(round * 700 % 14_000));
        rcd.kill_daemon()?;
        let (code, ..) = finish(client)?;
        let listed = rcd.rc_ok(&["ps", "-a", "--format", "{{.Names}}"])?;
        let there = listed.lines().any(|line| line == name);
        match verb[0] {
            "create" | "run" if code == 0 => assert!(there, "{verb:?} was acknowledged"),
            "rm" if code == 0 => assert!(!there, "{verb:?} was acknowledged"),
            "stop" => assert!(there, "{verb:?} does not remove"),
            _ => {}
        }
        if there {
            rcd.rc_ok(&["rm", "-f", &name])?;
        }
        assert_eq!(
            rcd.rc_ok(&["run", "--rm", "busybox", "echo", "fine"])?,
            "fine"
        );
    }
    assert_eq!(rcd.rc_ok(&["ps", "-aq"])?, "");
    Ok(())
}

pub(crate) fn killed_at_random_moments(environment: &Environment) -> Verdict {
    kill_rounds(environment, 40)
}

pub(crate) fn killed_at_random_moments_for_long(environment: &Environment) -> Verdict {
    kill_rounds(environment, 1_000)
}
