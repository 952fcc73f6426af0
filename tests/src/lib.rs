//! Test environment of rcd: what the end-to-end tests, the demo and the benchmarks stand on.
//!
//! Everything here runs as an ordinary user. `xtask` prepares the machine (as root, where it must),
//! stages the built binaries in a folder that this user can read and describes the place in
//! environment variables, from which [`Environment::from_env`] takes it up again.
//!
//! - [`Session`]: a real `systemd --user` with directories of its own, rcd's units installed.
//! - [`Service`]: `rcd serve` without systemd, with directories of its own.
//! - [`Registry`] and [`image`]: a registry on loopback and real images to put in it.
//! - [`Terminal`]: a pseudo-terminal with a program on it.
//! - [`harness`]: runs registered tests in parallel and counts them.
//! - [`tidy`]: the checks of style that are tests.
//!
//! Whatever one of these starts, it ends when dropped: by pid, or by its own cgroup.

pub mod command;
pub mod environment;
pub mod error;
pub mod harness;
pub mod image;
pub mod registry;
pub mod service;
pub mod session;
pub mod terminal;
pub mod tidy;
pub mod units;

pub use command::Output;
pub use environment::{Environment, Sandbox};
pub use error::{Error, Result};
pub use registry::Registry;
pub use service::Service;
pub use session::Session;
pub use terminal::Terminal;

/// What tests need of a running rcd, whoever supervises it.
pub trait Daemon {
    /// The directories and variables it runs with.
    fn sandbox(&self) -> &Sandbox;

    /// Host pid of the daemon.
    ///
    /// # Errors
    /// When it does not run.
    fn daemon_pid(&self) -> Result<i32>;

    /// Restarts the daemon in an orderly way and waits until it answers.
    ///
    /// # Errors
    /// When it does not come back.
    fn restart(&mut self) -> Result<()>;

    /// Sends the daemon SIGKILL and waits until its successor answers.
    ///
    /// # Errors
    /// When no successor answers.
    fn kill_daemon(&mut self) -> Result<()>;

    /// Runs `rc` with these arguments.
    fn rc(&self, arguments: &[&str]) -> Output {
        self.sandbox().rc(arguments)
    }

    /// Runs `rc` and fails unless it exits with 0; yields its trimmed stdout.
    ///
    /// # Errors
    /// With what it printed, when it exits otherwise.
    fn rc_ok(&self, arguments: &[&str]) -> Result<String> {
        self.rc(arguments).success()
    }
}
