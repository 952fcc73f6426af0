//! File descriptors that are known by number only, as a service manager passes them.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Duplicates the descriptor with this number, close-on-exec (`fcntl(2)`, F_DUPFD_CLOEXEC). The
/// original stays open.
///
/// # Errors
/// `EBADF` if no descriptor has this number, `EMFILE` if there are too many.
pub fn duplicate(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes no pointer, and any number is a valid argument: the kernel checks it.
    let copy = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made `copy`, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_descriptor_is_an_error() {
        assert_eq!(duplicate(-1).unwrap_err(), Errno::EBADF);
        assert!(duplicate(0).is_ok() || duplicate(0).is_err_and(|errno| errno == Errno::EBADF));
    }
}
