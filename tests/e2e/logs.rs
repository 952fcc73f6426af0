//! `rc logs`, also while the daemon is restarted or killed.

use rcd_tests::{Daemon, Environment, command::until, harness::Verdict};

use crate::support::{assert_code, assert_counted, busybox, counter, finish, run_detached, spawn};

/// Lines that a counter prints while the daemon goes and comes: some seconds' worth.
const LINES: u32 = 400;

pub(crate) fn both_streams_and_tail(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    let script = "seq 1 20; echo bad >&2";
    run_detached(&rcd, script)?;
    rcd.rc_ok(&["wait", "main"])?;
    let output = rcd.rc(&["logs", "main"]);
    assert_code(&output, 0);
    assert_counted(&output.stdout, 20);
    assert_eq!(output.stderr, "bad\n");
    rcd.rc_ok(&["run", "-d", "--name", "other", "busybox", "seq", "1", "20"])?;
    rcd.rc_ok(&["wait", "other"])?;
    assert_eq!(rcd.rc_ok(&["logs", "--tail", "2", "other"])?, "19\n20");
    assert_eq!(rcd.rc_ok(&["logs", "--tail", "0", "other"])?, "");
    Ok(())
}

pub(crate) fn follow_ends_with_the_container(environment: &Environment) -> Verdict {
    let rcd = busybox(environment)?;
    run_detached(&rcd, &counter(50))?;
    let (code, stdout, _) = finish(spawn(&rcd, &["logs", "-f", "main"])?)?;
    assert_eq!(code, 0);
    assert_counted(&stdout, 50);
    Ok(())
}

fn follow_while(environment: &Environment, kill: bool) -> Verdict {
    let mut rcd = busybox(environment)?;
    run_detached(&rcd, &counter(LINES))?;
    let follower = spawn(&rcd, &["logs", "-f", "main"])?;
    for _ in 0..3 {
        let before = rcd.rc(&["logs", "main"]).stdout.lines().count();
        until(20, "more lines", || {
            (rcd.rc(&["logs", "main"]).stdout.lines().count() > before + 20).then_some(())
        })?;
        if kill {
            rcd.kill_daemon()?
        } else {
            rcd.restart()?
        }
    }
    let (code, stdout, stderr) = finish(follower)?;
    assert_eq!(code, 0, "{stderr}");
    assert_counted(&stdout, LINES);
    assert_counted(&rcd.rc(&["logs", "main"]).stdout, LINES);
    Ok(())
}

pub(crate) fn follow_loses_no_line_at_restart(environment: &Environment) -> Verdict {
    follow_while(environment, false)
}

pub(crate) fn follow_loses_no_line_at_kill(environment: &Environment) -> Verdict {
    follow_while(environment, true)
}

pub(crate) fn writers_do_not_notice_restarts(environment: &Environment) -> Verdict {
    let mut rcd = busybox(environment)?;
    // More than the pipes hold, so that the writer has to wait for the next daemon.
    let script = "seq 1 200000 && echo fine >&2";
    run_detached(&rcd, script)?;
    rcd.kill_daemon()?;
    assert_eq!(rcd.rc_ok(&["wait", "main"])?, "0");
    let output = rcd.rc(&["logs", "main"]);
    assert_eq!(output.stderr, "fine\n");
    assert_counted(&output.stdout, 200_000);
    Ok(())
}
