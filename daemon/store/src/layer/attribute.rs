//! Extended attributes that an image brings.
//!
//! What rcd and overlay read themselves must not come from an image: `user.overlay.*` is escaped as
//! the kernel escapes it (`user.overlay.overlay.*`, which a mount shows under the first name, Linux
//! 6.7), `user.containers.*` and `trusted.*` are left out. So is what the file system or the rights
//! of an ordinary user do not allow, as Docker does.

use std::ffi::{CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use rcd_sys::xattr::{set_xattr, set_xattr_at};

const OVERLAY_PREFIX: &[u8] = b"user.overlay.";

/// What gets the attribute.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in an open directory.
    Named(BorrowedFd<'a>, &'a [u8]),
}

/// Sets an attribute; false if it was left out.
pub(crate) fn set(target: &Target<'_>, name: &[u8], value: &[u8]) -> nix::Result<bool> {
    let Some(name) = stored_name(name) else {
        return Ok(false);
    };
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let result = match target {
        Target::Open(fd) => set_xattr(*fd, &name, value),
        Target::Named(dir, file) => set_xattr_at(*dir, OsStr::from_bytes(file), &name, value),
    };
    match result {
        Ok(()) => Ok(true),
        Err(Errno::ENOTSUP | Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Marks a directory as hiding what lower layers have there.
pub(crate) fn set_opaque(dir: BorrowedFd<'_>) -> nix::Result<()> {
    set_xattr(dir, c"user.overlay.opaque", b"y")
}

fn stored_name(name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b"trusted.") || name.starts_with(b"user.containers.") {
        return None;
    }
    match name.strip_prefix(OVERLAY_PREFIX) {
        Some(rest) => Some([OVERLAY_PREFIX, b"overlay.", rest].concat()),
        None => Some(name.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_overlay_reads_are_escaped_or_left_out() {
        for (name, expected) in [
            ("user.a", Some("user.a")),
            ("security.capability", Some("security.capability")),
            ("user.overlay.opaque", Some("user.overlay.overlay.opaque")),
            (
                "user.overlay.overlay.x",
                Some("user.overlay.overlay.overlay.x"),
            ),
            ("trusted.overlay.opaque", None),
            ("user.containers.override_stat", None),
        ] {
            let stored = stored_name(name.as_bytes());
            assert_eq!(stored.as_deref(), expected.map(str::as_bytes), "{name}");
        }
    }
}
