//! The daemon dies between any two effects of every operation; nothing acknowledged is lost, and
//! nothing that was not is left half done.
//!
//! [`steps::OPERATIONS`] says which steps an operation passes. For each step the daemon is armed to
//! kill itself there, the operation is asked for, the daemon started again, and what is there then
//! is checked: by the operation ([`checks`]) and as a whole ([`place::Place::settle`]). A step that
//! stands in the source and not in the table, or is never reached, fails the test.

mod checks;
mod place;
mod random;
mod steps;

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Child,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcd_tests::{Daemon, Environment, Error, Result, command::until, harness::Verdict};

use crate::support::{assert_code, assert_refused, finish, inspect, spawn, status};
use place::Place;
use steps::{Group, OPERATIONS, Operation};

/// How a command ended that the daemon died under.
struct Outcome {
    step: &'static str,
    code: i32,
    stdout: String,
    stderr: String,
}

pub(crate) fn every_step_in_the_source_is_walked(_environment: &Environment) -> Verdict {
    let daemon = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon");
    let mut found = BTreeSet::new();
    for file in sources(&daemon) {
        let text = fs::read_to_string(&file).map_err(Error::io("read a source file"))?;
        let calls = text.split("failpoint::reach(\"").skip(1);
        found.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    let steps = OPERATIONS.iter().flat_map(|operation| operation.steps);
    let walked: BTreeSet<String> = steps.map(|step| (*step).to_owned()).collect();
    assert_eq!(found, walked, "left: in the source, right: in the table");
    Ok(())
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

pub(crate) fn containers_survive_every_step(environment: &Environment) -> Verdict {
    walk(environment, Group::Containers)
}

pub(crate) fn removals_survive_every_step(environment: &Environment) -> Verdict {
    walk(environment, Group::Removals)
}

pub(crate) fn images_survive_every_step(environment: &Environment) -> Verdict {
    walk(environment, Group::Images)
}

fn walk(environment: &Environment, group: Group) -> Verdict {
    let mut place = Place::new(environment, group == Group::Images)?;
    for operation in OPERATIONS.iter().filter(|one| one.group == group) {
        for step in operation.steps {
            let context = |error: Error| {
                Error::Missing(format!(
                    "{}, killed at {step}: {}",
                    operation.name,
                    error.chain()
                ))
            };
            walk_step(&mut place, operation, step).map_err(context)?;
        }
    }
    Ok(())
}

/// One death of the daemon.
fn walk_step(place: &mut Place, operation: &Operation, step: &'static str) -> Verdict {
    for command in operation.prepare {
        place.rcd.rc_ok(&place.words(command))?;
    }
    place.settle()?;
    let waiting = operation.waited_for.then(|| waiting(place)).transpose()?;
    let before = place.layers();
    place.arm(step)?;
    let words = place.words(operation.command);
    let client = spawn(&place.rcd, &words)?;
    place.rcd.wait_end()?;
    place.rcd.spawn()?;
    let (code, stdout, stderr) = finish(client)?;
    let outcome = Outcome {
        step,
        code,
        stdout,
        stderr,
    };
    place.settle()?;
    (operation.check)(place, &outcome)?;
    if let Some((wait, logs)) = waiting {
        checks::waiting_clients(finish(wait)?, finish(logs)?);
    }
    checks::kept(&before, &place.layers(), operation);
    let again = place
        .rcd
        .rc_ok(&["run", "--rm", "busybox", "echo", "fine"])?;
    assert_eq!(again, "fine");
    place.clear()?;
    repeat(place, operation)
}

/// `rc wait` and `rc logs -f`, both connected: the latter has shown the first line.
fn waiting(place: &Place) -> Result<(Child, Child)> {
    let wait = spawn(&place.rcd, &["wait", "cc"])?;
    let mut logs = spawn(&place.rcd, &["logs", "-f", "cc"])?;
    let mut line = [0; 6];
    let stdout = logs
        .stdout
        .as_mut()
        .map(|stdout| stdout.read_exact(&mut line));
    assert!(stdout.is_some_and(|read| read.is_ok()) && line == *b"begun\n");
    let fds = format!("/proc/{}/fd", wait.id());
    until(20, "rc wait to connect", || {
        let links = fs::read_dir(&fds).ok()?.flatten();
        let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        let is_socket = |target: PathBuf| target.to_string_lossy().starts_with("socket:");
        targets.any(is_socket).then_some(())
    })?;
    Ok((wait, logs))
}

/// The same once more, with nobody dying.
fn repeat(place: &mut Place, operation: &Operation) -> Verdict {
    for command in operation.prepare {
        place.rcd.rc_ok(&place.words(command))?;
    }
    let output = place.rcd.rc(&place.words(operation.command));
    assert_code(&output, operation.code);
    place.clear()?;
    place.settle()
}

pub(crate) fn a_killed_holder_takes_its_containers_along(environment: &Environment) -> Verdict {
    let mut place = Place::new(environment, false)?;
    let rcd = &place.rcd;
    rcd.rc_ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?;
    rcd.rc_ok(&[
        "run", "-d", "--rm", "--name", "rr", "busybox", "sleep", "1000",
    ])?;
    rcd.rc_ok(&["create", "--name", "made", "busybox", "true"])?;
    let client = spawn(rcd, &["run", "--name", "aa", "busybox", "sleep", "1000"])?;
    until(20, "the client's container", || {
        (status(rcd, "aa").ok()? == "running").then_some(())
    })?;
    let first = inspect(rcd, "cc")?["State"]["Pid"].as_i64().unwrap_or(0);
    let holder = place.holder()?;
    kill(Pid::from_raw(holder), Signal::SIGKILL).map_err(Error::io("kill the holder"))?;
    let ended = place.rcd.wait_end()?;
    assert!(
        !ended.success(),
        "a supervisor must start it again: {ended}"
    );
    let refused = place.rcd.rc(&["ps"]);
    assert_refused(&refused, 1, &["cannot connect to rcd", "rcd serve"]);
    assert!(place.rcd.log().contains("holder"), "{}", place.rcd.log());

    place.rcd.spawn()?;
    let rcd = &place.rcd;
    for name in ["cc", "aa"] {
        let state = inspect(rcd, name)?["State"].clone();
        assert_eq!(state["Status"], "exited", "{state}");
        assert!(
            state["Error"]
                .as_str()
                .is_some_and(|text| text.contains("holder")),
            "{state}"
        );
    }
    let (code, _, stderr) = finish(client)?;
    assert_eq!(code, 125, "{stderr}");
    assert!(stderr.contains("holder"), "{stderr}");
    assert_eq!(status(rcd, "made")?, "created");
    assert_eq!(
        rcd.rc(&["inspect", "rr"]).code,
        1,
        "a --rm container is gone with its process"
    );
    let gone = || (!Path::new(&format!("/proc/{first}")).exists()).then_some(());
    until(10, "the end of the containers' processes", gone)?;
    place.rebase()?;
    place.settle()?;
    place.rcd.rc_ok(&["start", "cc"])?;
    assert_eq!(place.rcd.rc_ok(&["exec", "cc", "echo", "on"])?, "on");
    place.clear()
}

pub(crate) fn random_moments_and_many_clients(environment: &Environment) -> Verdict {
    random::run(environment, random::SHORT_S)
}

pub(crate) fn random_moments_for_long(environment: &Environment) -> Verdict {
    random::run(environment, random::LONG_S)
}

/// What `rc` says of one thing, if it knows it.
fn known(place: &Place, name: &str) -> Result<bool> {
    let output = place.rcd.rc(&["inspect", name]);
    match output.code {
        0 => Ok(true),
        _ if output.stderr.to_lowercase().contains("no such") => Ok(false),
        _ => output.success().map(|_| false),
    }
}
