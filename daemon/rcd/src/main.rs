//! The binary `rcd`. See the library for what it is made of.

use std::io::Write;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{User, geteuid};
use rcd::args::{self, Command};
use rcd::config::Config;
use rcd::error::{Error, chain};
use rcd::paths::Paths;
use rcd::supervisor::{self, Plan};
use rcd::{activation, holder, logging};

/// Exit code after a wrong command line (`sysexits.h`, EX_USAGE).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let result = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Serve { config }) => serve(config),
        Ok(Command::Version) => print(&format!("rcd {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Help) => print(args::HELP),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Before the log has started, and for whoever reads a terminal.
            let _ = writeln!(std::io::stderr(), "rcd: {}", chain(&error));
            match error {
                Error::Usage { .. } => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn print(text: &str) -> Result<(), Error> {
    // A reader that went away has read what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn serve(config: Option<std::path::PathBuf>) -> Result<(), Error> {
    if is_root() {
        return Err(Error::Root);
    }
    // Whatever the caller's: modes of files are given where they are made, and data is private by
    // the mode of its top directory.
    umask(Mode::from_bits_truncate(0o022));
    let mut paths = Paths::find()?;
    let config = Config::read(config.as_deref().unwrap_or(&paths.config), config.is_some())?;
    logging::start(&config.log.level)?;
    if let Some(root) = &config.storage.root {
        paths.data.clone_from(root);
    }
    paths.make()?;
    raise_descriptor_limit();
    let sockets = activation::sockets(&paths.varlink_socket())?;
    let user = User::from_uid(geteuid())
        .ok()
        .flatten()
        .map(|user| user.name);
    let managed = activation::is_managed();
    let (joined, started) = match holder::join(&paths, managed) {
        Ok((joined, started)) => (Ok(joined), started),
        // With a service manager's socket, clients wait for an answer: they get the reason.
        Err(error) if managed => (Err(chain(&error)), None),
        Err(error) => {
            sockets.remove();
            return Err(error);
        }
    };
    let served = supervisor::run(Plan {
        paths,
        config,
        sockets,
        joined,
        managed,
        user,
    });
    if let (Err(Error::Store { .. } | Error::Engine(_) | Error::Listen { .. }), Some(holder)) =
        (&served, started)
    {
        holder.stop();
    }
    served
}

/// Whether this is root of the machine: in a user namespace of somebody else, uid 0 is harmless.
fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all: Vec<_> = map.split_whitespace().collect();
    geteuid().is_root() && matches!(all.as_slice(), ["0", "0", "4294967295"])
}

/// Each container costs the daemon a few descriptors; the soft limit of 1024 is for select(2).
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
