//! The client's one error type, and how it is shown.
//!
//! Variants name the operation that failed and its object. `Display` is a lower-case fact and never
//! contains its source; [`report`] prints the chain at the edge as `rc: fact: cause`, and `hint:`
//! lines below it. Text that came from a container, an image or the daemon is made harmless first.
//!
//! What it does not do: decide what a command's exit code is when the command succeeded.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use crate::text;

/// Exit code for errors of `rc` and of the daemon in commands that otherwise exit as the process
/// in the container did, as in Docker.
pub const EXIT_ENGINE: u8 = 125;

/// What a shell reports for a process that a signal ended is this plus the signal's number.
pub const EXIT_SIGNAL_BASE: i32 = 128;

/// Everything that can go wrong in the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The daemon answered a call with an error of the API.
    #[error("{0}")]
    Api(Box<rcd_proto::Error>),
    /// No connection to the daemon's socket.
    #[error("cannot connect to rcd at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer.
    #[error("rcd closed the connection before it answered {method}")]
    Lost {
        /// Method that was called.
        method: &'static str,
    },
    /// The connection failed in the middle of a call.
    #[error("cannot talk to rcd during {method}")]
    Talk {
        /// Method that was called.
        method: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon sent what is no message of the API.
    #[error("rcd sent an answer to {method} that cannot be understood")]
    Garbled {
        /// Method that was called.
        method: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon is gone and has not come back in time.
    #[error(
        "the connection to rcd was lost and could not be made again within {seconds} s; {what}"
    )]
    NotBack {
        /// How long the client tried.
        seconds: u64,
        /// What that means for the thing that was going on.
        what: String,
    },
    /// A stream could not be taken up again after the daemon restarted.
    #[error("the connection to rcd was lost and {what}")]
    NotResumed {
        /// What could not be done, as a clause.
        what: String,
    },
    /// A value on the command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A flag or value of Docker's that this version does not have.
    #[error("{what} is not supported yet by this version of rc")]
    NotSupported {
        /// The flag or value.
        what: String,
    },
    /// A file named on the command line failed.
    #[error("cannot {operation} {path}")]
    File {
        /// `open`, `read`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file descriptor of the client's own failed.
    #[error("cannot {operation}")]
    Io {
        /// `write to stdout`, `read stdin`, …
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever read our output has gone. Not shown.
    #[error("the reader of the output has gone")]
    OutputClosed,
    /// A signal ended the command. Not shown.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
    /// Several objects were named, some failed, and each error was shown already.
    #[error("some of the operations failed")]
    Shown,
}

impl Error {
    /// The error of the API, if it is one.
    pub fn api(&self) -> Option<&rcd_proto::Error> {
        match self {
            Error::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the connection broke, so that the same may succeed on a new one.
    pub fn is_lost(&self) -> bool {
        match self {
            Error::Lost { .. } => true,
            Error::Talk { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }

    /// Exit code of a command that failed so. `general` is the command's own code for errors.
    pub fn exit_code(&self, general: u8) -> u8 {
        match self {
            Error::Api(error) => match **error {
                rcd_proto::Error::StartFailed { exit_code, .. }
                | rcd_proto::Error::ExecFailed { exit_code, .. } => {
                    u8::try_from(exit_code).unwrap_or(EXIT_ENGINE)
                }
                _ => general,
            },
            Error::Interrupted { signal } => {
                u8::try_from(EXIT_SIGNAL_BASE + signal).unwrap_or(EXIT_ENGINE)
            }
            Error::OutputClosed => {
                u8::try_from(EXIT_SIGNAL_BASE + nix::sys::signal::Signal::SIGPIPE as i32)
                    .unwrap_or(EXIT_ENGINE)
            }
            _ => general,
        }
    }

    /// What the user can do about it, a line each.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Error::Connect { path, source } => connect_hints(path, source),
            Error::NotBack { .. } => {
                vec!["see why: systemctl --user status rcd; journalctl --user -u rcd".into()]
            }
            Error::Api(error) => api_hints(error),
            _ => Vec::new(),
        }
    }
}

impl From<rcd_proto::Error> for Error {
    fn from(error: rcd_proto::Error) -> Self {
        Error::Api(Box::new(error))
    }
}

fn connect_hints(path: &std::path::Path, source: &io::Error) -> Vec<String> {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => vec![
            "is the service started? systemctl --user start rcd".into(),
            "without systemd, run: rcd serve".into(),
        ],
        io::ErrorKind::PermissionDenied => vec![format!(
            "each user has an rcd of their own; {} belongs to another user or cannot be reached",
            path.display()
        )],
        _ => Vec::new(),
    }
}

fn api_hints(error: &rcd_proto::Error) -> Vec<String> {
    match error {
        rcd_proto::Error::AmbiguousContainer { candidates, .. } => candidates
            .iter()
            .map(|id| format!("it could be {id}"))
            .collect(),
        rcd_proto::Error::AmbiguousImage { candidates, .. } => candidates
            .iter()
            .map(|reference| format!("it could be {reference}"))
            .collect(),
        rcd_proto::Error::MethodNotFound { .. } | rcd_proto::Error::InterfaceNotFound { .. } => {
            vec!["rcd is older than rc; restart it: systemctl --user restart rcd".into()]
        }
        _ => Vec::new(),
    }
}

/// The lines to print for an error: the message with its causes, then hints.
pub fn report(error: &Error) -> String {
    let mut message = text::printable_lines(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&text::printable_lines(&cause.to_string()));
        source = cause.source();
    }
    let mut lines = format!("rc: {message}\n");
    for hint in error.hints() {
        lines.push_str("hint: ");
        lines.push_str(&text::printable(&hint));
        lines.push('\n');
    }
    lines
}

/// Whether an error is to be shown at all.
pub fn is_silent(error: &Error) -> bool {
    matches!(
        error,
        Error::OutputClosed | Error::Interrupted { .. } | Error::Shown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_printed_once_with_hints_and_without_control_characters() {
        let error = Error::Connect {
            path: "/run/\u{1b}[2Jx".into(),
            source: io::Error::from(io::ErrorKind::NotFound),
        };
        let text = report(&error);
        assert!(
            text.starts_with("rc: cannot connect to rcd at /run/"),
            "{text}"
        );
        assert!(
            text.contains("hint: is the service started? systemctl --user start rcd\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn exit_codes_follow_docker() {
        let start = |exit_code| {
            Error::from(rcd_proto::Error::StartFailed {
                message: String::new(),
                id: String::new(),
                exit_code,
            })
        };
        assert_eq!(start(127).exit_code(EXIT_ENGINE), 127);
        assert_eq!(start(126).exit_code(1), 126);
        assert_eq!(Error::Interrupted { signal: 2 }.exit_code(1), 130);
        assert_eq!(Error::OutputClosed.exit_code(1), 141);
        assert_eq!(Error::Usage("x".into()).exit_code(EXIT_ENGINE), 125);
    }
}
