//! Joining and leaving namespaces: `setns(2)`, `unshare(2)`.

use std::os::fd::BorrowedFd;

use nix::sched::CloneFlags;

use crate::error::Result;

/// Moves the calling thread (and, for a user or mount namespace, the whole process, which must
/// have one thread) into namespaces of the process behind a pidfd, or into the one namespace that
/// a descriptor of `/proc/PID/ns/*` names. `namespaces` are `CLONE_NEW*` flags. With a pidfd, all
/// of them change or none (Linux 5.8).
///
/// `CLONE_NEWPID` changes only where later children are made.
///
/// # Errors
///
/// `EINVAL` for a second thread or the wrong kind of descriptor, `EPERM` without capabilities over
/// the target's user namespace, `ESRCH` if the process has ended.
pub fn setns(target: BorrowedFd<'_>, namespaces: u64) -> Result<()> {
    nix::sched::setns(target, flags(namespaces))
}

/// Gives the process new namespaces of the kinds in `namespaces` (`CLONE_NEW*` flags).
///
/// # Errors
///
/// `EPERM` if forbidden to this user, `ENOSPC` at a limit (`user.max_*_namespaces`), `EINVAL` for
/// `CLONE_NEWUSER` in a process with more than one thread.
pub fn unshare(namespaces: u64) -> Result<()> {
    nix::sched::unshare(flags(namespaces))
}

/// All flags of the kernel are below 2^31, as `clone(2)` takes them as an int.
fn flags(namespaces: u64) -> CloneFlags {
    CloneFlags::from_bits_retain(namespaces as i32)
}
