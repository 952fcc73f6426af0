//! The process itself: threads, descriptors, signals, children.

use std::os::fd::RawFd;

use crate::error::{Errno, Result, check};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: i32,
    /// Exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal, or 0.
    pub signal: i32,
}

/// Whether the process has exactly one thread: `/proc/self/task` has two links and one a thread.
///
/// # Errors
///
/// `ENOENT` where `/proc` is not mounted.
pub fn is_single_threaded() -> Result<bool> {
    nix::sys::stat::stat("/proc/self/task").map(|stat| stat.st_nlink == 3)
}

/// Ends the process at once: no destructors, no exit handlers, no flushing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no requirements and never returns.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor above 2 that is not in `keep`. Only for a fresh child, whose copies of
/// its parent's values never run a destructor; hence not public.
pub(crate) fn close_all_except(keep: &[RawFd]) -> Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|&fd| fd > 2) {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
///
/// `EINVAL` before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> Result<()> {
    // SAFETY: takes integers. Without CLOEXEC it is only reached through `close_all_except`, in a
    // fresh child where no owner of the closed descriptors will ever use or close them again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Ignores a signal, by number.
///
/// # Errors
///
/// `EINVAL` for a signal that cannot be ignored.
pub fn ignore_signal(signal: i32) -> Result<()> {
    disposition(signal, libc::SIG_IGN)
}

/// Gives a signal its default action, by number.
///
/// # Errors
///
/// `EINVAL` for a bad signal.
pub fn default_signal(signal: i32) -> Result<()> {
    disposition(signal, libc::SIG_DFL)
}

fn disposition(signal: i32, action: libc::sighandler_t) -> Result<()> {
    // SAFETY: SIG_IGN and SIG_DFL run no code of ours, so there is no handler to be unsafe.
    if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}

/// Looks for a child that has ended and leaves it to be reaped. Never waits.
///
/// # Errors
///
/// `ECHILD` if there are no children at all.
pub fn peek_ended() -> Result<Option<i32>> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    Ok(waitid(libc::P_ALL, 0, flags)?.map(|ended| ended.pid))
}

/// Reaps a child that has ended; none if it still runs. Never waits.
///
/// # Errors
///
/// `ECHILD` if `pid` is no child of this process, or has been reaped.
pub fn reap(pid: i32) -> Result<Option<Ended>> {
    waitid(
        libc::P_PID,
        pid as libc::id_t,
        libc::WEXITED | libc::WNOHANG,
    )
}

/// Waits for a child to end and reaps it.
///
/// # Errors
///
/// `ECHILD` if `pid` is no child of this process.
pub fn wait(pid: i32) -> Result<Ended> {
    loop {
        match waitid(libc::P_PID, pid as libc::id_t, libc::WEXITED) {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// `waitid(2)` by hand: nix's fails, after reaping, on a child ended by a real-time signal.
fn waitid(kind: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Result<Option<Ended>> {
    // SAFETY: siginfo_t is plain data; all zeroes is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for a write of one siginfo_t and lives across the call.
    check(unsafe { libc::waitid(kind, id, &raw mut info, flags) })?;
    // SAFETY: after a successful waitid the kernel has filled the SIGCHLD fields, or left zeroes
    // where no child had ended; either way they are initialised.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (pid, libc::CLD_EXITED) => Some(Ended {
            pid,
            code: status,
            signal: 0,
        }),
        (pid, _) => Some(Ended {
            pid,
            code: 128 + status,
            signal: status,
        }),
    })
}

/// Whether a process, of this one's children and not yet reaped, has never called `execve`: the
/// kernel's `PF_FORKNOEXEC` in field 9 of `/proc/PID/stat` (`proc_pid_stat(5)`), which a zombie
/// still shows and `begin_new_exec` (`fs/exec.c`) clears before it closes descriptors.
///
/// # Errors
///
/// What reading the file says; `EINVAL` if it makes no sense.
pub fn never_executed(pid: i32) -> Result<bool> {
    /// `include/linux/sched.h`.
    const PF_FORKNOEXEC: u64 = 0x40;
    let stat = std::fs::read(format!("/proc/{pid}/stat"))
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    process_flags(&stat)
        .map(|flags| flags & PF_FORKNOEXEC != 0)
        .ok_or(Errno::EINVAL)
}

/// Field 9 of a stat line. The name in field 2 may hold anything, so fields count from its end.
fn process_flags(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(6)?.parse().ok()
}

/// Adds `by` to the niceness of the calling thread alone (on Linux, `setpriority(2)` with process 0
/// means the thread). An ordinary user cannot take it back.
///
/// # Errors
///
/// None that the man page names for a positive number.
pub fn lower_own_priority(by: i32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, by) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_behind_any_process_name() {
        let line = b"12 (a) b) S 1 12 12 0 -1 4194368 92 0";
        assert_eq!(process_flags(line), Some(4_194_368));
        assert_eq!(process_flags(b"12 (a"), None);
        assert_eq!(process_flags(b"12 (a) S 1"), None);
    }

    #[test]
    fn a_program_has_executed() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let answer = never_executed(child.id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(answer, Ok(false));
    }

    #[test]
    fn a_test_runner_has_threads() {
        let thread = std::thread::spawn(|| is_single_threaded().unwrap());
        assert!(!thread.join().unwrap());
    }
}
