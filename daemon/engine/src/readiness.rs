//! Watching descriptors in the runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a nonblocking descriptor with the runtime.
///
/// # Errors
/// The runtime's poller refuses it: it is of a kind that is always ready, or too many are watched.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may give their descriptor away; an OwnedFd \
              keeps it"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
