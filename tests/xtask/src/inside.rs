//! The part of a task that runs as the ordinary user, in the prepared place.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use nix::unistd::Uid;
use rcd_tests::{Environment, Error, Result, environment::CGROUP_VARIABLE};

use crate::{Outcome, bench, demo, host, test};

/// Which task.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Inner,
}

#[derive(Subcommand)]
enum Inner {
    /// See `demo`
    Demo,
    /// See `test`
    Test(test::InnerOptions),
    /// See `bench`
    Bench(bench::InnerOptions),
}

/// Runs the inner part of a task.
pub(crate) fn run(options: &Options) -> Outcome {
    if Uid::effective().is_root() {
        return Err(Error::Missing("nothing of rcd runs as root".into()));
    }
    host::interrupts()
        .thread_unblock()
        .map_err(Error::io("unblock signals"))?;
    let environment = environment()?;
    match &options.task {
        Inner::Demo => demo::inside(&environment),
        Inner::Test(options) => test::inside(&environment, options),
        Inner::Bench(options) => bench::inside(&environment, options),
    }
}

fn environment() -> Result<Environment> {
    let missing = || Error::Missing("start this through another task of xtask".into());
    let mut environment = Environment::from_env().ok_or_else(missing)?;
    if env::var_os(CGROUP_VARIABLE).is_none() {
        environment.cgroup = scope_cgroup();
    }
    Ok(environment)
}

/// The cgroup of the scope that systemd made for us. A cgroup with controllers for its children
/// may hold no processes, so we move into a leaf of it.
fn scope_cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let cgroup = Path::new("/sys/fs/cgroup").join(own);
    let leaf = cgroup.join("leaf");
    fs::create_dir(&leaf).ok()?;
    fs::write(leaf.join("cgroup.procs"), std::process::id().to_string()).ok()?;
    Some(cgroup)
}
