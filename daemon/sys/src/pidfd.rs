//! Process descriptors: `pidfd_open(2)`, `pidfd_send_signal(2)` and their ioctls.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Errno, Result, check};

/// `PIDFD_GET_MNT_NAMESPACE` of `linux/pidfd.h`, `_IO(0xFF, 3)`. Linux 6.11.
const PIDFD_GET_MNT_NAMESPACE: libc::c_ulong = 0xFF03;

/// Opens a descriptor for a process, close-on-exec.
///
/// # Errors
///
/// `ESRCH` if there is none of that pid.
pub fn open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal by number (real-time ones too).
///
/// # Errors
///
/// `ESRCH` if the process has ended, `EINVAL` for a bad signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the siginfo pointer may be null, then the kernel fills one in as kill(2) does.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Opens a process's mount namespace: by ioctl, or through `/proc` before Linux 6.11.
///
/// `pid` must be the pidfd's own process and not yet be waited for by its parent, the caller;
/// otherwise the fallback may meet another process of the same pid.
///
/// # Errors
///
/// `ESRCH` or `ENOENT` if the process is gone, `EPERM` or `EACCES` without ptrace rights on it.
pub fn mount_namespace(pidfd: BorrowedFd<'_>, pid: i32) -> Result<OwnedFd> {
    // SAFETY: this ioctl takes no argument and returns a new descriptor.
    match check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0) }) {
        // SAFETY: a new descriptor that nothing else owns.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
        Err(Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP) => {
            let file = File::open(format!("/proc/{pid}/ns/mnt"));
            file.map(OwnedFd::from)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_mount_namespace_is_the_same_by_either_way() {
        let pid = std::process::id() as i32;
        let own = std::fs::metadata("/proc/self/ns/mnt").unwrap().ino();
        // What is no pidfd answers the ioctl as a pidfd does before Linux 6.11.
        let older = File::open("/dev/null").unwrap();
        for fd in [open(pid).unwrap(), older.into()] {
            let namespace = File::from(mount_namespace(fd.as_fd(), pid).unwrap());
            assert_eq!(namespace.metadata().unwrap().ino(), own);
        }
    }

    #[test]
    fn a_process_that_was_reaped_is_not_there() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = open(child.id() as i32).unwrap();
        child.wait().unwrap();
        assert_eq!(send_signal(pidfd.as_fd(), 0), Err(Errno::ESRCH));
        assert!(mount_namespace(pidfd.as_fd(), child.id() as i32).is_err());
    }
}
