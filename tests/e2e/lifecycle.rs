//! stop, kill, start, wait, rm, ps, inspect, names.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcd_tests::{Daemon, Environment, command::until, harness::Verdict};

use crate::support::{
    assert_code, assert_refused, busybox, finish, inspect, run_detached, spawn, status,
};

pub(crate) fn stop_asks_then_kills(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let polite = "trap 'exit 3' TERM; echo up; while :; do usleep 10000; done";
    let deaf = "trap '' TERM; echo up; while :; do usleep 10000; done";
    for (name, script, code) in [("polite", polite, "3"), ("deaf", deaf, "137")] {
        rcd.rc_ok(&["run", "-d", "--name", name, "busybox", "sh", "-c", script])?;
        until(20, "the trap", || {
            (!rcd.rc(&["logs", name]).stdout.is_empty()).then_some(())
        })?;
        assert_eq!(rcd.rc_ok(&["stop", "-t", "1", name])?, name);
        assert_eq!(rcd.rc_ok(&["wait", name])?, code);
    }
    rcd.rc_ok(&["stop", "polite"])?;
    Ok(())
}

pub(crate) fn the_stop_signal_is_the_containers(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "trap 'exit 4' USR1; echo up; while :; do usleep 10000; done";
    let run = [
        "run",
        "-d",
        "--name",
        "main",
        "--stop-signal",
        "USR1",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    rcd.rc_ok(&run)?;
    until(20, "the trap", || {
        (!rcd.rc(&["logs", "main"]).stdout.is_empty()).then_some(())
    })?;
    rcd.rc_ok(&["stop", "main"])?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "4");
    Ok(())
}

pub(crate) fn kill_sends_any_signal(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "trap 'echo got' HUP; echo up; while :; do usleep 10000; done";
    run_detached(&rcd, script)?;
    until(20, "the trap", || {
        (!rcd.rc(&["logs", "main"]).stdout.is_empty()).then_some(())
    })?;
    rcd.rc_ok(&["kill", "-s", "HUP", "main"])?;
    until(20, "the signal", || {
        rcd.rc(&["logs", "main"])
            .stdout
            .contains("got")
            .then_some(())
    })?;
    assert_eq!(status(&rcd, "main")?, "running");
    rcd.rc_ok(&["kill", "--signal", "9", "main"])?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "137");
    assert_refused(&rcd.rc(&["kill", "main"]), 1, &["not running"]);
    assert_refused(
        &rcd.rc(&["kill", "-s", "NONSENSE", "main"]),
        1,
        &["NONSENSE"],
    );
    Ok(())
}

pub(crate) fn start_again_keeps_its_files(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&[
        "create",
        "--name",
        "main",
        "busybox",
        "sh",
        "-c",
        "echo x >>/f; cat /f",
    ])?;
    assert_eq!(status(&rcd, "main")?, "created");
    for _ in 0..2 {
        rcd.rc_ok(&["start", "main"])?;
        assert_eq!(rcd.rc_ok(&["wait", "main"])?, "0");
    }
    assert_eq!(rcd.rc_ok(&["start", "-a", "main"])?, "x\nx\nx");
    Ok(())
}

pub(crate) fn start_attached_passes_the_exit_code(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&[
        "create",
        "-i",
        "--name",
        "main",
        "busybox",
        "sh",
        "-c",
        "cat; exit 6",
    ])?;
    let output = rcd
        .sandbox()
        .rc_with_input(&["start", "-ai", "main"], b"typed\n");
    assert_code(&output, 6);
    assert_eq!(output.stdout, "typed\n");
    Ok(())
}

pub(crate) fn wait_answers_at_the_end(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    run_detached(&rcd, "sleep 0.3; exit 8")?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "8");
    assert_eq!(
        rcd.rc_ok(&["wait", "main"])?,
        "8",
        "an ended container answers at once"
    );
    Ok(())
}

pub(crate) fn remove_needs_force_while_running(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&["run", "-d", "--name", "main", "busybox", "sleep", "1000"])?;
    assert_refused(&rcd.rc(&["rm", "main"]), 1, &["running"]);
    assert_eq!(status(&rcd, "main")?, "running");
    assert_eq!(rcd.rc_ok(&["rm", "-f", "main"])?, "main");
    assert_refused(&rcd.rc(&["rm", "main"]), 1, &["no such container"]);
    Ok(())
}

pub(crate) fn names_and_prefixes(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let id = rcd.rc_ok(&["create", "--name", "known", "busybox", "true"])?;
    assert_eq!(id.len(), 64);
    for name in ["known", &id, &id[..12], &id[..4]] {
        assert_eq!(inspect(&rcd, name)?["Id"], id.as_str(), "{name}");
    }
    let other = rcd.rc_ok(&["create", "busybox", "true"])?;
    let name = inspect(&rcd, &other)?["Name"].as_str().unwrap().to_owned();
    assert!(name.contains(['_', '-']), "{name} is no readable pair");
    let refused = rcd.rc(&["create", "--name", "no/slashes", "busybox", "true"]);
    assert_refused(&refused, 125, &["no/slashes"]);
    Ok(())
}

pub(crate) fn ps_shows_what_there_is(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"])?;
    assert_code(
        &rcd.rc(&["run", "--name", "down", "busybox", "sh", "-c", "exit 3"]),
        3,
    );
    let running = rcd.rc_ok(&["ps"])?;
    assert!(running.starts_with("CONTAINER ID"), "{running}");
    assert!(
        running.contains("up") && !running.contains("down"),
        "{running}"
    );
    let all = rcd.rc_ok(&["ps", "-a"])?;
    assert!(all.contains("Exited (3)"), "{all}");
    let names = rcd.rc_ok(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"])?;
    assert_eq!(names, "down busybox\nup busybox");
    assert_eq!(rcd.rc_ok(&["ps", "-q"])?.len(), 12);
    let json = rcd.rc_ok(&["ps", "--format", "json"])?;
    assert!(serde_json::from_str::<serde_json::Value>(json.lines().next().unwrap()).is_ok());
    Ok(())
}

pub(crate) fn inspect_has_dockers_shape(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let mut run = vec![
        "run", "-d", "--name", "main", "-e", "A=1", "-w", "/var", "-h", "box",
    ];
    run.extend([
        "--label",
        "k=v",
        "-v",
        "/etc:/host:ro",
        "busybox",
        "sleep",
        "1000",
    ]);
    rcd.rc_ok(&run)?;
    let value = inspect(&rcd, "main")?;
    assert_eq!(value["Name"], "/main");
    assert_eq!(value["State"]["Running"], true);
    assert_eq!(value["Config"]["Hostname"], "box");
    assert_eq!(value["Config"]["WorkingDir"], "/var");
    assert_eq!(value["Config"]["Labels"]["k"], "v");
    assert!(
        value["Config"]["Env"]
            .as_array()
            .unwrap()
            .contains(&"A=1".into())
    );
    assert_eq!(value["Mounts"][0]["Destination"], "/host");
    assert_eq!(value["Mounts"][0]["RW"], false);
    assert_eq!(value["HostConfig"]["NetworkMode"], "none");
    let pid = value["State"]["Pid"].as_i64().unwrap();
    assert!(
        std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "{pid} is no pid of the host"
    );
    rcd.rc_ok(&["kill", "main"])?;
    rcd.rc_ok(&["wait", "main"])?;
    let value = inspect(&rcd, "main")?;
    assert_eq!(
        (&value["State"]["Status"], &value["State"]["ExitCode"]),
        (&"exited".into(), &137.into())
    );
    assert_eq!(
        inspect(&rcd, "busybox")?["Architecture"],
        rcd_tests::image::architecture()
    );
    Ok(())
}

pub(crate) fn labels_are_kept(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    rcd.rc_ok(&[
        "create", "--name", "main", "--label", "a.b=c d", "busybox", "true",
    ])?;
    rcd.restart()?;
    assert_eq!(inspect(&rcd, "main")?["Config"]["Labels"]["a.b"], "c d");
    Ok(())
}

pub(crate) fn attach_sees_what_follows(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    rcd.rc_ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "main",
        "busybox",
        "sh",
        "-c",
        "read x; echo $x; exit 2",
    ])?;
    let output = rcd.sandbox().rc_with_input(&["attach", "main"], b"word\n");
    assert_code(&output, 2);
    assert_eq!(output.stdout, "word\n");
    Ok(())
}

pub(crate) fn a_client_interrupted(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "trap 'exit 5' INT; echo up; while :; do usleep 10000; done";
    let client = spawn(
        &rcd,
        &[
            "run", "--rm", "--name", "main", "busybox", "sh", "-c", script,
        ],
    )?;
    until(20, "the trap", || {
        (!rcd.rc(&["logs", "main"]).stdout.is_empty()).then_some(())
    })?;
    let pid = Pid::from_raw(i32::try_from(client.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let (code, ..) = finish(client)?;
    assert_eq!(code, 5, "the client passes signals on");
    until(20, "the removal", || {
        rcd.rc(&["ps", "-aq"]).stdout.is_empty().then_some(())
    })
}

pub(crate) fn many_are_listed_newest_first(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let names = ["one", "two", "three", "four"];
    for name in names {
        rcd.rc_ok(&["create", "--name", name, "busybox", "true"])?;
    }
    let listed = rcd.rc_ok(&["ps", "-a", "--format", "{{.Names}}"])?;
    assert_eq!(listed, "four\nthree\ntwo\none");
    Ok(())
}
