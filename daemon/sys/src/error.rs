//! What a wrapper returns: the kernel's answer, nothing else.
//!
//! A wrapper does not know which container or file a call was for, so it adds no words; the caller
//! does, in the error type of its own crate.

/// The kernel's answer as a number with a name.
pub use nix::errno::Errno;

/// Result of a wrapper.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the return value of `libc::syscall` and most libc functions (-1 and `errno`) into a result.
pub(crate) fn check(value: impl Into<i64>) -> Result<i64> {
    match value.into() {
        -1 => Err(Errno::last()),
        value => Ok(value),
    }
}
