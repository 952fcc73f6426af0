//! Mounts inside the container: binds of the host's files and new kernel file systems.
//!
//! Each is made detached, restricted, and attached to a descriptor of its target, which was resolved
//! beneath the container's root.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use rcd_sys::mount::{
    Attributes, FsContext, NODEV, NOEXEC, NOSUID, READONLY, attach, clone_tree, set_attributes,
};

use super::beneath::{Missing, Root, file_type};
use super::failure::{At, Result, refuse};
use crate::plan::{Mount, MountFlags, MountKind};
use crate::protocol::Step;

/// Makes one mount.
pub(super) fn apply(root: &Root, mount: &Mount) -> Result<()> {
    let detached = match &mount.kind {
        MountKind::Bind { source, recursive } => bind(source, *recursive, mount.flags)?,
        MountKind::Filesystem { fstype, options } => {
            new_filesystem(&mount.target, fstype, options, mount.flags)?
        }
    };
    let target = open_target(root, mount, &detached)?;
    attach(detached.as_fd(), target.as_fd()).at_because(Step::Mount, &mount.target, |errno| {
        match errno {
            Errno::ENOTDIR | Errno::EINVAL => {
                "one of source and target is a directory, the other is not".into()
            }
            _ => String::new(),
        }
    })
}

/// The kernel's bits for `flags`.
fn attributes(flags: MountFlags) -> u64 {
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    bit(flags.readonly, READONLY)
        | bit(flags.nosuid, NOSUID)
        | bit(flags.nodev, NODEV)
        | bit(flags.noexec, NOEXEC)
}

/// The restrictions of a recursive bind reach its submounts too: `ro` with a writable submount would
/// surprise.
fn bind(source: &str, recursive: bool, flags: MountFlags) -> Result<OwnedFd> {
    let tree = clone_tree(AT_FDCWD, source, recursive).at_because(
        Step::Mount,
        source,
        |errno| match errno {
            Errno::ENOENT => "the bind's source does not exist on the host".into(),
            Errno::EACCES => "the user may not reach the bind's source on the host".into(),
            Errno::EINVAL if !recursive => "the source has file systems mounted below it, which \
                a user namespace may not leave out: bind it recursively"
                .into(),
            _ => String::new(),
        },
    )?;
    let attributes = Attributes {
        set: attributes(flags),
        private: true,
    };
    set_attributes(tree.as_fd(), attributes, recursive).at(Step::Mount, source)?;
    Ok(tree)
}

fn new_filesystem(
    target: &str,
    fstype: &str,
    options: &[(String, String)],
    flags: MountFlags,
) -> Result<OwnedFd> {
    let text = |text: &str| {
        CString::new(text).map_err(|_| refuse(Step::Plan, target, "a mount option contains NUL"))
    };
    let context = FsContext::open(&text(fstype)?)
        .at_because(Step::Mount, target, |errno| explain(fstype, errno))?;
    // What mount tables show as the device.
    context
        .set(c"source", &text(fstype)?)
        .at(Step::Mount, target)?;
    for (key, value) in options {
        let (name, value) = (text(key)?, text(value)?);
        let set = if value.is_empty() {
            context.set_flag(&name)
        } else {
            context.set(&name, &value)
        };
        set.at_because(Step::Mount, target, |errno| {
            format!("{fstype} option {key}: {}", explain(fstype, errno))
        })?;
    }
    match context
        .create()
        .and_then(|()| context.mount(attributes(flags)))
    {
        Ok(mount) => Ok(mount),
        Err(errno) => {
            let messages = context.messages().join("; ");
            let why = explain(fstype, errno);
            Err(errno).at_because(Step::Mount, target, |_| {
                format!("{fstype}: {why} {messages}")
            })
        }
    }
}

/// What an errno means for a file system that a user namespace mounts.
fn explain(fstype: &str, errno: Errno) -> String {
    let text = match (fstype, errno) {
        (_, Errno::ENODEV) => "this kernel has no such file system",
        ("proc", Errno::EPERM) => {
            "the kernel refuses a new procfs where the host's own /proc is partly covered by other \
             mounts, as inside most containers: run on the host, or give the outer container an \
             uncovered /proc"
        }
        ("sysfs", Errno::EPERM) => {
            "the kernel refuses a new sysfs where the host's own /sys is partly covered by other \
             mounts, or where the network namespace is not the container's own"
        }
        ("cgroup2", Errno::EPERM) => "a cgroup namespace of the container's own is needed",
        ("mqueue", Errno::EPERM) => "an ipc namespace of the container's own is needed",
        ("devpts" | "tmpfs", Errno::EINVAL) => {
            "an option is unknown or names an id that the user namespace does not map"
        }
        _ => "",
    };
    text.into()
}

/// Resolves the target and checks that no link in the image has led it into procfs or sysfs, where
/// a mount could hide from masks what they are to cover.
fn open_target(root: &Root, mount: &Mount, detached: &OwnedFd) -> Result<OwnedFd> {
    let path = mount.target.as_str();
    if path.split('/').all(|name| matches!(name, "" | "." | "..")) {
        return Err(refuse(
            Step::Mount,
            path,
            "the container's root itself is no target",
        ));
    }
    let status = fstat(detached).at(Step::Mount, path)?;
    let missing = match file_type(&status) {
        SFlag::S_IFDIR => Missing::Directory,
        _ => Missing::File,
    };
    let target = root.ensure(path, missing).at(Step::Mount, path)?;
    let place = fstatfs(&target).at(Step::Mount, path)?.filesystem_type();
    let strayed = |magic: FsType, home: &str| place == magic && !is_within(path, home);
    if strayed(PROC_SUPER_MAGIC, "/proc") || strayed(SYSFS_MAGIC, "/sys") {
        return Err(refuse(
            Step::Mount,
            path,
            "the image's symbolic links lead this target into /proc or /sys",
        ));
    }
    Ok(target)
}

/// Whether `path` is `home` or below it by its text.
fn is_within(path: &str, home: &str) -> bool {
    path.strip_prefix(home)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_within_by_whole_names() {
        let cases = [
            ("/proc", true),
            ("/proc/sys", true),
            ("/process", false),
            ("/dev", false),
        ];
        for (path, within) in cases {
            assert_eq!(is_within(path, "/proc"), within, "{path}");
        }
    }

    #[test]
    fn flags_become_the_kernels_bits() {
        let flags = MountFlags {
            readonly: true,
            noexec: true,
            ..MountFlags::default()
        };
        assert_eq!(attributes(flags), READONLY | NOEXEC);
    }
}
