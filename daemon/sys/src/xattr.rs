//! Extended attributes of open files, and of names in an open directory.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

/// Longest value that Linux keeps (XATTR_SIZE_MAX, `include/uapi/linux/limits.h`), in bytes.
pub const VALUE_BYTES_MAX: usize = 65536;

/// Sets an attribute of an open file (fsetxattr(2)); the descriptor must not be O_PATH.
///
/// # Errors
/// ENOTSUP where the file system or the file type has no such attributes, EPERM for `trusted.*`
/// without privileges.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: `name` is terminated by NUL; `value` is readable for the length passed; both outlive
    // the call, which keeps no pointer.
    let result = unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast::<libc::c_void>(),
            value.len(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Sets an attribute of `file` in `dir`, not following a symbolic link (lsetxattr(2) by way of
/// `/proc/self/fd`, as setxattrat(2) came with Linux 6.13). `file` must be a plain name.
///
/// # Errors
/// As [`set_xattr`]; EINVAL if `file` holds a slash or a NUL; ENOENT without /proc.
pub fn set_xattr_at(
    dir: BorrowedFd<'_>,
    file: &OsStr,
    name: &CStr,
    value: &[u8],
) -> nix::Result<()> {
    if file.as_bytes().contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(file.as_bytes());
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `path` and `name` are terminated by NUL; `value` is readable for the length passed;
    // all outlive the call, which keeps no pointer.
    let result = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast::<libc::c_void>(),
            value.len(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// An attribute of an open file (fgetxattr(2)); none if the file lacks it.
///
/// # Errors
/// As fgetxattr(2).
pub fn get_xattr(fd: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = vec![0; VALUE_BYTES_MAX];
    // SAFETY: `name` is terminated by NUL; `value` is writable for the length passed.
    let result = unsafe {
        libc::fgetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast::<libc::c_void>(),
            value.len(),
        )
    };
    match Errno::result(result) {
        Ok(len) => {
            value.truncate(usize::try_from(len).unwrap_or(0));
            Ok(Some(value))
        }
        Err(Errno::ENODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Names of the attributes of an open file (flistxattr(2)).
///
/// # Errors
/// As flistxattr(2).
pub fn list_xattr(fd: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut names = vec![0_u8; VALUE_BYTES_MAX];
    // SAFETY: `names` is writable for the length passed.
    let result = unsafe {
        libc::flistxattr(
            fd.as_raw_fd(),
            names.as_mut_ptr().cast::<libc::c_char>(),
            names.len(),
        )
    };
    let len = usize::try_from(Errno::result(result)?).unwrap_or(0);
    names.truncate(len);
    Ok(names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn attributes_are_set_read_and_listed() {
        let file = std::fs::File::open(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(get_xattr(file.as_fd(), c"user.rcd.none"), Ok(None));
        assert!(list_xattr(file.as_fd()).is_ok());
        let refused = set_xattr_at(file.as_fd(), OsStr::new("../x"), c"user.rcd.none", b"");
        assert_eq!(refused, Err(Errno::EINVAL));
    }
}
