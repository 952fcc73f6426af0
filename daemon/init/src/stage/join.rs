//! Joining a running container for an exec. The pid namespace is the holder's doing: it can only be
//! chosen before the clone.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::stat;

use super::failure::{At, Result};
use crate::protocol::Step;

/// Namespaces that a container may share with the holder, and their names in `/proc/PID/ns`.
const SHAREABLE: [(CloneFlags, &str); 4] = [
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
];

/// Joins the namespaces of the process behind `init`, its mounts and root directory too.
///
/// One call joins all, or none. It is refused if one of them is the host's own (`--network host`):
/// the caller has no power over that namespace, but is in it already. So on EPERM those that are
/// the same are left out; no other ever is.
pub(super) fn join(init: &OwnedFd) -> Result<()> {
    let all = SHAREABLE
        .iter()
        .fold(CloneFlags::CLONE_NEWNS, |flags, (flag, _)| flags | *flag);
    let why = |errno| match errno {
        Errno::ESRCH => "the container's first process has ended".into(),
        _ => String::new(),
    };
    match setns(init, all) {
        Err(Errno::EPERM) => {
            let flags = all - shared(init)?;
            setns(init, flags).at_because(Step::Join, "the container's namespaces", why)
        }
        result => result.at_because(Step::Join, "the container's namespaces", why),
    }
}

/// The namespaces that this process and `init` both are in.
fn shared(init: &OwnedFd) -> Result<CloneFlags> {
    let pid = pid_of(init)?;
    let mut flags = CloneFlags::empty();
    for (flag, name) in SHAREABLE {
        let theirs = format!("/proc/{pid}/ns/{name}");
        let ours = format!("/proc/self/ns/{name}");
        let (theirs, ours) = (
            stat(theirs.as_str()).at(Step::Join, theirs)?,
            stat(ours.as_str()).at(Step::Join, ours)?,
        );
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// The pid behind a pidfd, in the pid namespace of `/proc`. The following setns proves that the
/// process still lived, so that the number was no other's.
fn pid_of(pidfd: &OwnedFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).at(Step::Join, &path)?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    match pid {
        Some(pid) if pid > 0 => Ok(pid),
        _ => Err(Errno::ESRCH).at(Step::Join, "the container's first process"),
    }
}
