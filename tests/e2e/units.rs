//! What the systemd units promise, under a real user manager.

use std::time::Instant;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcd_tests::{
    Daemon, Environment, Session,
    command::until,
    harness::{Verdict, note, skip},
};

use crate::support::{add_busybox, status};

fn session(environment: &Environment) -> rcd_tests::Result<Session> {
    if environment.cgroup.is_none() {
        skip("no delegated cgroup, so no user manager");
    }
    let session = Session::start(environment)?;
    session.systemctl(&["start", "rcd.socket"])?;
    Ok(session)
}

fn with_sleeper(environment: &Environment) -> rcd_tests::Result<Session> {
    let session = session(environment)?;
    add_busybox(environment, &session)?;
    session.rc_ok(&["run", "-d", "--name", "main", "busybox", "sleep", "1000"])?;
    Ok(session)
}

pub(crate) fn the_first_command_starts_rcd(environment: &Environment) -> Verdict {
    let session = session(environment)?;
    assert_eq!(session.property("rcd.service", "ActiveState")?, "inactive");
    session.rc_ok(&["ps"])?;
    assert_eq!(session.property("rcd.service", "ActiveState")?, "active");
    assert_eq!(
        session.property("rcd-holder.service", "ActiveState")?,
        "active"
    );
    Ok(())
}

pub(crate) fn stopping_rcd_leaves_containers(environment: &Environment) -> Verdict {
    let session = with_sleeper(environment)?;
    session.systemctl(&["stop", "rcd.service"])?;
    assert_eq!(
        session.property("rcd-holder.service", "ActiveState")?,
        "active"
    );
    // The socket starts the daemon again.
    assert_eq!(status(&session, "main")?, "running");
    session.systemctl(&["restart", "rcd.service"])?;
    assert_eq!(session.rc_ok(&["exec", "main", "echo", "on"])?, "on");
    Ok(())
}

pub(crate) fn stopping_the_holder_stops_containers(environment: &Environment) -> Verdict {
    let session = session(environment)?;
    add_busybox(environment, &session)?;
    let script = "trap 'exit 3' TERM; echo up; while :; do usleep 10000; done";
    session.rc_ok(&["run", "-d", "--name", "main", "busybox", "sh", "-c", script])?;
    until(20, "the trap", || {
        (!session.rc(&["logs", "main"]).stdout.is_empty()).then_some(())
    })?;
    session.systemctl(&["stop", "rcd-holder.service"])?;
    assert_ne!(session.property("rcd.service", "ActiveState")?, "active");
    assert_eq!(status(&session, "main")?, "exited");
    session.rc_ok(&["start", "main"])?;
    assert_eq!(status(&session, "main")?, "running");
    Ok(())
}

pub(crate) fn a_killed_daemon_is_back_at_once(environment: &Environment) -> Verdict {
    let mut session = with_sleeper(environment)?;
    for _ in 0..3 {
        let begun = Instant::now();
        let old = session.daemon_pid()?;
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        session.rc_ok(&["ps"])?;
        note(&format!(
            "killed to answered: {} ms",
            begun.elapsed().as_millis()
        ));
        assert_ne!(session.daemon_pid()?, old);
    }
    session.kill_daemon()?;
    assert_eq!(status(&session, "main")?, "running");
    Ok(())
}

pub(crate) fn a_killed_holder_is_replaced(environment: &Environment) -> Verdict {
    let session = with_sleeper(environment)?;
    let holder = session.main_pid("rcd-holder.service")?;
    kill(Pid::from_raw(holder), Signal::SIGKILL).unwrap();
    until(60, "a new holder", || {
        let ended = session.rc(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]);
        (ended.code == 0 && ended.stdout.contains("main Exited")).then_some(())
    })?;
    session.rc_ok(&["start", "main"])?;
    assert_eq!(session.rc_ok(&["exec", "main", "echo", "on"])?, "on");
    Ok(())
}

pub(crate) fn the_watchdog_is_fed(environment: &Environment) -> Verdict {
    let session = session(environment)?;
    session.rc_ok(&["ps"])?;
    assert_eq!(session.property("rcd.service", "WatchdogUSec")?, "30s");
    let stamp = || session.property("rcd.service", "WatchdogTimestampMonotonic");
    let first = stamp()?;
    until(40, "a sign of life", || {
        (stamp().ok()? != first).then_some(())
    })
}
