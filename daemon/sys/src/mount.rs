//! The mount API of Linux 5.2 and later: mounts are made detached, given their restrictions, and
//! only then attached, always by descriptor, so that no path is resolved twice.
//!
//! Sources: open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2), which
//! is the newest of them (5.12).

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;

/// The longest message that the kernel keeps in a file system context (`fs/fs_context.c` formats
/// each with kasprintf; real ones are below 200 bytes).
const MESSAGE_BYTES_MAX: usize = 1024;

/// The most messages that a file system context keeps (`struct fc_log`).
const MESSAGES_MAX: usize = 8;

/// Restrictions and propagation of a mount, for [`set_attributes`] and [`FsContext::mount`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// Make the mount private: nothing propagates in or out.
    pub private: bool,
}

/// `MOUNT_ATTR_RDONLY`
pub const READONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `MOUNT_ATTR_NOSUID`
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// `MOUNT_ATTR_NODEV`
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// `MOUNT_ATTR_NOEXEC`
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// A detached copy of the mount at `path` beneath `dir` (with all its submounts if `recursive`).
/// Symbolic links are followed. It vanishes when the descriptor is closed before
/// [`attach`].
///
/// # Errors
/// EINVAL where a submount is left out that came from a more privileged mount namespace.
pub fn clone_tree<P: ?Sized + NixPath>(
    dir: BorrowedFd<'_>,
    path: &P,
    recursive: bool,
) -> nix::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and lives over the call; the kernel writes nothing.
        let fd =
            unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
        new_fd(fd)
    })?
}

/// Attaches a detached mount upon `target`, which is a directory if the mount's root is one and no
/// directory otherwise.
///
/// # Errors
/// ENOTDIR if only one of the two is a directory; EINVAL if `target` is in another mount namespace.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty NUL-terminated strings with static life; nothing is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// Adds restrictions to the mount that `mount` refers to, and to all below it if `recursive`.
///
/// # Errors
/// EBUSY if it is made read-only while a file is open for writing.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    recursive: bool,
) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: 0,
        propagation: if attributes.private {
            libc::MS_PRIVATE
        } else {
            0
        },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a live struct mount_attr and its true size is passed; the kernel reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// A file system that is being configured.
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// A context for a new instance of `fstype`.
    ///
    /// # Errors
    /// ENODEV if the kernel does not know the type; EPERM without CAP_SYS_ADMIN over the mount
    /// namespace, whatever the type.
    pub fn open(fstype: &CStr) -> nix::Result<Self> {
        // SAFETY: `fstype` is NUL-terminated and lives over the call.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) };
        new_fd(fd).map(Self)
    }

    /// Sets an option with a value of at most 255 bytes.
    ///
    /// # Errors
    /// EINVAL for an unknown option or a bad value.
    pub fn set(&self, key: &CStr, value: &CStr) -> nix::Result<()> {
        self.configure(libc::FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Sets an option without a value.
    ///
    /// # Errors
    /// EINVAL for an unknown option.
    pub fn set_flag(&self, key: &CStr) -> nix::Result<()> {
        self.configure(libc::FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes the file system from what was set.
    ///
    /// # Errors
    /// What the file system says; [`Self::messages`] may say it in words.
    pub fn create(&self) -> nix::Result<()> {
        self.configure(libc::FSCONFIG_CMD_CREATE, None, None)
    }

    /// A detached mount of the file system made by [`Self::create`].
    ///
    /// # Errors
    /// EPERM for procfs or sysfs where the caller's own mount of it is partly covered.
    pub fn mount(&self, restrictions: u64) -> nix::Result<OwnedFd> {
        // SAFETY: no pointers are passed.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                restrictions as libc::c_uint,
            )
        };
        new_fd(fd)
    }

    /// What the kernel has to say about the last failures, a message an element, such as
    /// `overlay: upper fs does not support xattr`.
    #[must_use]
    pub fn messages(self) -> Vec<String> {
        let mut file = std::fs::File::from(self.0);
        let mut messages = Vec::new();
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        while messages.len() < MESSAGES_MAX {
            let Ok(length @ 1..) = file.read(&mut buffer) else {
                break;
            };
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            // Each begins with its severity: "e ", "w " or "i ".
            messages.push(text.trim().get(2..).unwrap_or_default().to_owned());
        }
        messages
    }

    fn configure(
        &self,
        command: libc::c_uint,
        key: Option<&CStr>,
        value: Option<&CStr>,
    ) -> nix::Result<()> {
        // SAFETY: both strings are NUL-terminated and live over the call, or null where the command
        // takes none; the kernel copies them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_fd().as_raw_fd(),
                command,
                key.map_or(std::ptr::null(), CStr::as_ptr),
                value.map_or(std::ptr::null(), CStr::as_ptr),
                0,
            )
        };
        Errno::result(result).map(drop)
    }
}

/// Takes the descriptor that a system call returned.
fn new_fd(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(result)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_file_system_is_refused() {
        let refused = FsContext::open(c"nosuchfs").unwrap_err();
        // Whoever may not mount at all is told only that.
        assert!(matches!(refused, Errno::ENODEV | Errno::EPERM), "{refused}");
    }

    #[test]
    fn attaching_what_is_no_mount_is_refused() {
        let root = std::fs::File::open("/").unwrap();
        assert!(attach(root.as_fd(), root.as_fd()).is_err());
    }
}
