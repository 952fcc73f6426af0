//! What a process is and may do: ids, capabilities, limits, signal dispositions.
//!
//! All calls are the kernel's own and concern the calling thread only; the C library would send the
//! change of an id to all threads of the process (nptl(7)). Sources: capabilities(7),
//! credentials(7), capset(2), prctl(2).

use nix::errno::Errno;

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities in two words.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Capability numbers that any kernel of this format can have.
const CAPABILITIES_MAX: u32 = 64;

/// Signals of Linux (`_NSIG`) and the size of a set of them in the kernel.
const SIGNALS_MAX: i32 = 64;
const SIGSET_BYTES: usize = 8;

/// `kernel_cap_t` header of capset(2).
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// Half of the sets, as capset(2) takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the calling thread's effective, permitted and inheritable capabilities, bit n for
/// capability n.
///
/// # Errors
/// EPERM if something is to be permitted that is not now.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> nix::Result<()> {
    let header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and both data words are live and of version 3's layout; the kernel reads them
    // (it writes to the header only if the version is unknown to it, which this one is not).
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Removes every capability that is not in `keep` from the bounding set.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn limit_bounding_set(keep: u64) -> nix::Result<()> {
    for capability in (0..CAPABILITIES_MAX).filter(|c| keep >> c & 1 == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            // The first number that this kernel does not know; none follows.
            Err(Errno::EINVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Puts the capabilities of `set` into the ambient set, which execve(2) by an ordinary user keeps.
/// Each must be permitted and inheritable.
///
/// # Errors
/// EPERM if one is not.
pub fn raise_ambient(set: u64) -> nix::Result<()> {
    for capability in (0..CAPABILITIES_MAX).filter(|c| set >> c & 1 == 1) {
        prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            capability.into(),
        )?;
    }
    Ok(())
}

/// Keeps permitted capabilities over the next change of the user id; execve(2) ends it.
///
/// # Errors
/// EPERM if a securebit locks it.
pub fn keep_capabilities() -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

/// Sets `no_new_privs`: no execve(2) from here on gains privilege by a file.
///
/// # Errors
/// None that is known.
pub fn set_no_new_privs() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Denies other processes of the same user ptrace and `/proc/PID/fd` until the next execve(2).
/// From then on the thread's own files in `/proc` belong to the overflow user.
///
/// # Errors
/// None that is known.
pub fn set_undumpable() -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0)
}

/// Becomes `uid` and `gid` with `groups` as supplementary groups, in all of real, effective and
/// saved ids.
///
/// # Errors
/// EINVAL for an id that the user namespace does not map; EPERM where setgroups is denied in it.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> nix::Result<()> {
    // SAFETY: pointer and count describe the live slice; the kernel reads it.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(result)?;
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    Errno::result(result)?;
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    Errno::result(result).map(drop)
}

/// Soft and hard limit of `RLIMIT_*` number `resource`; `u64::MAX` is unlimited.
///
/// # Errors
/// EINVAL for an unknown resource.
pub fn resource_limit(resource: u32) -> nix::Result<(u64, u64)> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: `old` is a live, writable struct rlimit64; a null new limit changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut old) };
    Errno::result(result)?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Sets a limit of the calling process; see [`resource_limit`].
///
/// # Errors
/// EPERM if the hard limit is raised; EINVAL if the soft one is above it.
pub fn set_resource_limit(resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: `new` is a live struct rlimit64 which the kernel reads; a null old limit is allowed.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const new, old) };
    Errno::result(result).map(drop)
}

/// Gives every signal its default action. execve(2) itself does so only for caught ones, and Rust
/// programs start with SIGPIPE ignored. By system call, because the C library hides signals 32 and
/// 33, and an ignored one of them would be inherited by the program.
pub fn reset_signal_actions() {
    /// At least as large as any architecture's `struct sigaction` of the kernel. All zero it is
    /// SIG_DFL without flags and mask, wherever its fields lie.
    const DEFAULT: [u64; 8] = [0; 8];
    for signal in 1..=SIGNALS_MAX {
        let old: *mut u64 = std::ptr::null_mut();
        // SAFETY: the action is live, larger than what the kernel reads, and runs no handler; a null
        // old action is allowed. SIGKILL and SIGSTOP are refused and stay as they are.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                old,
                SIGSET_BYTES,
            )
        };
    }
}

fn prctl(option: i32, argument2: libc::c_ulong, argument3: libc::c_ulong) -> nix::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: none of the options used in this file takes a pointer.
    let result = unsafe { libc::prctl(option, argument2, argument3, zero, zero) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_can_be_read_and_set_to_itself() {
        let (soft, hard) = resource_limit(libc::RLIMIT_NOFILE).unwrap();
        set_resource_limit(libc::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!(resource_limit(libc::RLIMIT_NOFILE).unwrap(), (soft, hard));
    }

    #[test]
    fn an_unknown_resource_is_refused() {
        assert_eq!(resource_limit(9999).unwrap_err(), Errno::EINVAL);
    }
}
