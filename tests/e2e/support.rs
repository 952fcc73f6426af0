//! What many tests do first.

use std::process::{Child, Stdio};

use rcd_tests::{Daemon, Environment, Error, Output, Result, Service, image};
use serde_json::Value;

/// A daemon with the image `busybox`.
pub(crate) fn busybox(environment: &Environment) -> Result<Service> {
    let service = Service::start(environment)?;
    add_busybox(environment, &service)?;
    Ok(service)
}

/// Gives a daemon the image `busybox`.
pub(crate) fn add_busybox(environment: &Environment, daemon: &impl Daemon) -> Result<()> {
    let tar = image::busybox_tar(&environment.cache)?;
    daemon
        .rc_ok(&["import", &tar.to_string_lossy(), "busybox:latest"])
        .map(drop)
}

/// Fails, with everything that was printed, unless the exit code is this one.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    assert_eq!(
        output.code, code,
        "{}\n{}{}",
        output.command, output.stdout, output.stderr
    );
}

/// Fails unless the command failed with this code and a message that has these words, on one line
/// that is no panic's.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    assert_code(output, code);
    let text = output.stderr.to_lowercase();
    for word in words {
        assert!(
            text.contains(&word.to_lowercase()),
            "{}: no {word:?} in: {text}",
            output.command
        );
    }
    assert!(!text.contains("panicked"), "{}: {text}", output.command);
}

/// `rc inspect` of one thing, parsed.
pub(crate) fn inspect(daemon: &impl Daemon, name: &str) -> Result<Value> {
    let text = daemon.rc_ok(&["inspect", name])?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| Error::Missing(format!("inspect printed no JSON: {error}: {text}")))?;
    Ok(value[0].clone())
}

/// State of a container as Docker names it.
pub(crate) fn status(daemon: &impl Daemon, name: &str) -> Result<String> {
    let value = inspect(daemon, name)?;
    Ok(value["State"]["Status"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// Starts `rc` and leaves it running, its output collected.
pub(crate) fn spawn(daemon: &impl Daemon, arguments: &[&str]) -> Result<Child> {
    let mut command = daemon.sandbox().rc_command(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().map_err(Error::io("start rc"))
}

/// Waits for such an `rc`; yields its exit code, stdout and stderr.
pub(crate) fn finish(child: Child) -> Result<(i32, String, String)> {
    let output = child.wait_with_output().map_err(Error::io("wait for rc"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = rcd_tests::command::exit_code(output.status);
    Ok((code, text(&output.stdout), text(&output.stderr)))
}

/// Starts a container `main` that runs a shell script, detached.
pub(crate) fn run_detached(rcd: &impl Daemon, script: &str) -> Result<()> {
    let arguments = ["run", "-d", "--name", "main", "busybox", "sh", "-c"];
    rcd.rc_ok(&[&arguments[..], &[script]].concat()).map(drop)
}

/// A shell loop that prints 1, 2, 3 … `count`, some hundred a second.
pub(crate) fn counter(count: u32) -> String {
    format!("i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo $i; usleep 5000; done")
}

/// Fails unless the text is exactly the lines 1 to `count`.
#[track_caller]
pub(crate) fn assert_counted(text: &str, count: u32) {
    let expected: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    let found: Vec<&str> = text.lines().collect();
    let wrong = expected.iter().zip(&found).position(|(a, b)| a != b);
    assert_eq!(wrong, None, "line {wrong:?} is wrong: {found:?}");
    assert_eq!(found.len(), expected.len(), "lines are missing or too many");
}
