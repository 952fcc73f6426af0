//! Pseudo-terminals of a given devpts instance (pts(4), ioctl_tty(2)). The slave is opened through
//! its master, never by name (TIOCGPTPEER, Linux 4.13).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Unlocks the slave of `master`, a descriptor of a `ptmx`, and opens it, not as controlling
/// terminal.
///
/// # Errors
/// ENOTTY if `master` is no pseudo-terminal's master.
pub fn open_slave(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which is live.
    Errno::result(unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
    })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open(2) flags by value.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `terminal` the controlling terminal of the calling session leader, which has none.
///
/// # Errors
/// EPERM if it is another session's, or the caller is no session leader or has one.
pub fn set_controlling(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes its argument by value; 0 does not steal.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets the size of a terminal in characters. Its foreground processes get SIGWINCH on a change.
///
/// # Errors
/// ENOTTY if it is no terminal.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one struct winsize, which is live.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_slave_is_opened_through_its_master() {
        let Ok(master) = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/ptmx")
        else {
            eprintln!("skipped: no /dev/ptmx");
            return;
        };
        let slave = open_slave(master.as_fd()).unwrap();
        set_size(master.as_fd(), 40, 120).unwrap();
        assert!(std::io::IsTerminal::is_terminal(&slave));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(open_slave(file.as_fd()).unwrap_err(), Errno::ENOTTY);
    }
}
