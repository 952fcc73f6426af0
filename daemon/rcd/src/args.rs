//! The command line of the daemon.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::Error;

/// What `rcd --help` prints.
pub const HELP: &str = "\
rcd: the daemon of a rootless container engine; use it through rc.

Usage: rcd [serve] [--config FILE]

  --config FILE   configuration; $XDG_CONFIG_HOME/rcd/rcd.toml if absent
  --version       print the version
  --help          print this text

The environment variable RCD_LOG sets log levels, such as debug, or warn,rcd_engine=trace.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Serve {
        /// Configuration other than the default.
        config: Option<PathBuf>,
    },
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// Reads the arguments, the program's name left out.
///
/// # Errors
///
/// [`Error::Usage`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let usage = |problem: String| Err(Error::Usage { problem });
    let mut arguments = arguments.into_iter();
    let mut config = None;
    let mut first = true;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("serve") if first => {}
            Some("--version" | "-V") => return Ok(Command::Version),
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--config") => match arguments.next() {
                Some(file) => config = Some(PathBuf::from(file)),
                None => return usage("--config needs a file".to_owned()),
            },
            Some(text) if text.starts_with("--config=") => {
                config = text.strip_prefix("--config=").map(PathBuf::from);
            }
            _ => return usage(format!("unknown argument {}", argument.display())),
        }
        first = false;
    }
    Ok(Command::Serve { config })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read() {
        let file = Some(PathBuf::from("a.toml"));
        assert_eq!(run(""), Ok(Command::Serve { config: None }));
        assert_eq!(
            run("serve --config a.toml"),
            Ok(Command::Serve {
                config: file.clone()
            })
        );
        assert_eq!(run("--config=a.toml"), Ok(Command::Serve { config: file }));
        assert_eq!(run("--version"), Ok(Command::Version));
        assert_eq!(run("serve --help"), Ok(Command::Help));
        for bad in ["server", "--config", "--config a serve", "-x"] {
            assert!(run(bad).is_err(), "{bad}");
        }
    }
}
