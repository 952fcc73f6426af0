//! Making processes: `clone3(2)` with the semantics of `fork(2)`.
//!
//! [`clone3`] is the only way in which anything of rcd makes a process that goes on running Rust
//! code. It refuses to do so in a process with more than one thread: the child would inherit locks
//! (the allocator's, for one) that no thread of it could ever release. With that refused, the child
//! is an ordinary copy of the process and may do whatever the parent might have done.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use crate::error::{Errno, Result, check};
use crate::process;

/// Exit code of a child whose code panicked: `EX_SOFTWARE` of `sysexits.h`.
const CHILD_PANIC_CODE: i32 = 70;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; libc's constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child is made with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// `CLONE_NEW*` flags: namespaces of the child's own.
    pub namespaces: u64,
    /// Cgroup directory in which the child starts (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make a sibling rather than a child (`CLONE_PARENT`): the caller's parent becomes its parent,
    /// and is told of its end as it would be of the caller's.
    pub sibling: bool,
    /// The only descriptors that the child keeps beside 0, 1 and 2. `None` keeps all.
    pub keep: Option<&'a [RawFd]>,
}

/// A child, seen by its parent.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the parent's pid namespace.
    pub pid: i32,
    /// A descriptor for it, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Makes a child that runs `child` and never comes back. The parent gets its pid and pidfd; SIGCHLD
/// tells of its end. See `clone(2)`.
///
/// With [`Options::keep`] all other descriptors are closed in the child before `child` runs, so the
/// closure must use only what it owns and has listed.
///
/// # Errors
///
/// `EDEADLK` if the process has more than one thread; else what `clone3` says, e.g. `EPERM`,
/// `EAGAIN` at a limit of processes, `ENOSPC` at one of namespaces, `ENOMEM` if the pid namespace
/// has lost its init.
pub fn clone3(
    options: Options<'_>,
    child: impl FnOnce() -> std::convert::Infallible,
) -> Result<Child> {
    if !process::is_single_threaded()? {
        return Err(Errno::EDEADLK);
    }
    let mut pidfd: RawFd = -1;
    let mut flags = options.namespaces | libc::CLONE_PIDFD as u64;
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if options.sibling {
        flags |= libc::CLONE_PARENT as u64;
    }
    let args = libc::clone_args {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT it is the caller's own, and must not be given.
        exit_signal: if options.sibling {
            0
        } else {
            libc::SIGCHLD as u64
        },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: options.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: `args` is a valid clone_args of the size given and lives across the call. Without
    // CLONE_VM the child gets a copy of the address space and, with `stack` 0, goes on with the
    // copy of this stack, as after fork(2). CLONE_PIDFD writes one int to `pidfd`, which lives as
    // long. No other thread exists (checked above), so no lock is held in the child by a thread
    // that it lacks.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        run_child(options.keep, child);
    }
    // SAFETY: the kernel has just stored a new descriptor there, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child {
        pid: pid as i32,
        pidfd,
    })
}

/// The child's side: never returns into the parent's code, not even by a panic.
fn run_child(keep: Option<&[RawFd]>, child: impl FnOnce() -> std::convert::Infallible) -> ! {
    let code = std::panic::catch_unwind(AssertUnwindSafe(|| {
        if let Some(keep) = keep
            && process::close_all_except(keep).is_err()
        {
            return CHILD_PANIC_CODE;
        }
        match child() {}
    }));
    process::exit_now(code.unwrap_or(CHILD_PANIC_CODE))
}
