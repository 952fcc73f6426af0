//! `cargo xtask`: development tasks of rcd.
//!
//! rcd never runs as root, and neither do its tests: started by root, a task builds, prepares an
//! ordinary user, enters a mount namespace with a cgroup tree that this user owns, and runs itself
//! there again as `xtask inside …`. Started by an ordinary user, it does the same below a scope of
//! his systemd. What a task starts, it ends.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a task is for"
)]

mod bench;
mod build;
mod checks;
mod demo;
mod host;
mod inside;
mod install;
mod packages;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of rcd.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build, install, pull a Debian image from a registry on loopback, run it, clean up
    Demo,
    /// Format, lints, tidy, unit tests, end-to-end tests
    Test(test::Options),
    /// Copy the programs and the systemd units to their places
    Install(install::Options),
    /// Remove what `install` put there
    Uninstall(install::Options),
    /// Measure against installed peers
    Bench(bench::Options),
    /// Check style: arrows between crates, lengths, documentation
    Tidy,
    /// What .ci/run runs
    Ci,
    /// The part of a task that runs as the ordinary user
    #[command(hide = true)]
    Inside(inside::Options),
}

/// Result of a task: the exit code, or an error to print.
type Outcome = rcd_tests::Result<u8>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo => demo::run(),
        Task::Test(options) => test::run(&options),
        Task::Install(options) => install::install(&options),
        Task::Uninstall(options) => install::uninstall(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Tidy => checks::tidy(),
        Task::Ci => test::run(&test::Options::default()),
        Task::Inside(options) => inside::run(&options),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
