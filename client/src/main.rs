//! `rc`, the command line of rcd.
//!
//! A thin client: it parses ([`cli`]), calls the daemon over one blocking socket ([`connection`]),
//! pumps bytes between the user's terminal and a container ([`attach`]), and draws ([`format`]). It
//! has no state, and takes no decision about containers. It survives restarts of the daemon: what
//! can be taken up again is.

pub mod attach;
pub mod cli;
pub mod commands;
pub mod connection;
pub mod error;
pub mod format;
pub mod methods;
pub mod options;
pub mod resume;
pub mod signals;
pub mod terminal;
pub mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = Vec::new();
    for word in std::env::args_os() {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                text::warn(&format!(
                    "rc: the argument {} is not UTF-8\n",
                    text::printable(&word.to_string_lossy())
                ));
                return ExitCode::from(error::EXIT_ENGINE);
            }
        }
    }
    let (error, code) = cli::run(words);
    if let Some(error) = error.filter(|error| !error::is_silent(error)) {
        text::warn(&error::report(&error));
    }
    ExitCode::from(code)
}
