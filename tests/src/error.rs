//! The error of the test environment.

use std::io;

/// A failed step of the environment, with the object it failed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or file operation failed.
    #[error("cannot {what}")]
    Io {
        /// The operation and its object.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended otherwise than it should.
    #[error("`{command}` ended with {code}:\n{output}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// Exit code, or 128 + signal.
        code: i32,
        /// What it printed on both streams.
        output: String,
    },
    /// Something was waited for in vain.
    #[error("waited {seconds} s in vain for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The machine lacks something.
    #[error("{0}")]
    Missing(String),
}

/// Result of the test environment.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An I/O error with what was tried, for `map_err`.
    pub fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }

    /// The error and its causes in one line, for the edges.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
