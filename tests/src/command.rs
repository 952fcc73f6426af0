//! Runs programs with a bounded time and collects what they print.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use std::os::unix::process::ExitStatusExt;

use crate::error::{Error, Result};

/// A program that runs longer than this hangs: far above anything that tests run, so that a hang
/// is an error and not a lost afternoon.
pub const COMMAND_TIMEOUT_S: u64 = 120;

/// How often ended processes are looked for.
const POLL_MS: u64 = 2;

/// What a program printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// Trimmed stdout of a program that must have exited with 0.
    ///
    /// # Errors
    /// [`Error::Command`] with all its output, when it did not.
    pub fn success(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout.trim_end().to_owned());
        }
        Err(Error::Command {
            output: format!("{}{}", self.stdout, self.stderr),
            command: self.command,
            code: self.code,
        })
    }
}

/// Exit code of a status: the code, or 128 + signal.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The command line of a command, for messages.
#[must_use]
pub fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs a command without input.
///
/// # Errors
/// When it cannot be started or does not end in [`COMMAND_TIMEOUT_S`].
pub fn run(command: &mut Command) -> Result<Output> {
    run_with_input(command, b"")
}

/// Runs a command that must exit with 0 and yields its trimmed stdout.
///
/// # Errors
/// As [`run`], and when it exits otherwise.
pub fn check(command: &mut Command) -> Result<String> {
    run(command)?.success()
}

/// Runs a command with these bytes as its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    let text = describe(command);
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("run `{text}`")))?;
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_vec();
        // A program that does not read its input is not an error of the writer.
        thread::spawn(move || pipe.write_all(&input).ok());
    }
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait(&mut child, &text)?;
    let join = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        let bytes = reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Output {
        command: text,
        code: exit_code(status),
        stdout: join(stdout),
        stderr: join(stderr),
    })
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        bytes
    })
}

/// Waits for a child at most [`COMMAND_TIMEOUT_S`], then kills it.
///
/// # Errors
/// [`Error::Timeout`], when it had to be killed.
pub fn wait(child: &mut Child, what: &str) -> Result<ExitStatus> {
    let ended = until(COMMAND_TIMEOUT_S, &format!("the end of `{what}`"), || {
        child.try_wait().ok().flatten()
    });
    if ended.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
    ended
}

/// Polls until `probe` yields something, at most `seconds`.
///
/// # Errors
/// [`Error::Timeout`] naming `what`.
pub fn until<T>(seconds: u64, what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Error::Timeout {
                what: what.to_owned(),
                seconds,
            });
        }
        thread::sleep(Duration::from_millis(POLL_MS));
    }
}
