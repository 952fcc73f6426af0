//! The program `rcd-init`: reads its arguments and runs the holder.
//!
//! Exit codes: 0 after an orderly stop, 1 if the holder could not start or not go on, 2 for bad
//! arguments.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use rcd_init::hold;

const USAGE: &str = "usage: rcd-init hold --socket PATH [--log PATH]\n       rcd-init --version";

/// What the arguments ask for.
enum Command {
    Hold(hold::Options),
    Version,
}

fn main() -> ExitCode {
    let text = match parse(std::env::args_os().skip(1)) {
        Some(Command::Hold(options)) => match hold::run(&options) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => format!("rcd-init: {}", chain(&error)),
        },
        Some(Command::Version) => {
            let text = concat!("rcd-init ", env!("CARGO_PKG_VERSION"));
            let written = writeln!(std::io::stdout(), "{text}");
            return ExitCode::from(u8::from(written.is_err()));
        }
        None => {
            // Nobody to tell if it cannot be written.
            let _ = writeln!(std::io::stderr(), "{USAGE}");
            return ExitCode::from(2);
        }
    };
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Command> {
    match arguments.next()?.to_str()? {
        "--version" if arguments.next().is_none() => return Some(Command::Version),
        "hold" => {}
        _ => return None,
    }
    let (mut socket, mut log) = (None, None);
    while let Some(option) = arguments.next() {
        let value = PathBuf::from(arguments.next()?);
        match option.to_str()? {
            "--socket" => socket = Some(value),
            "--log" => log = Some(value),
            _ => return None,
        }
    }
    Some(Command::Hold(hold::Options {
        socket: socket?,
        log,
    }))
}

/// An error with its causes, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
