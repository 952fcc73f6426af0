//! The container's root: an overlay or a directory, mounted on the mount point that all containers
//! share (each has a mount namespace of its own), and at last put in the place of `/`.
//!
//! Overlayfs is mounted by mount(2): its options then are one page, in which every directory is a
//! short `/proc/self/fd/N`. So the number of layers does not depend on the length of paths, no
//! character needs an escape, and the container's mount table shows no path of the host.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, chdir, faccessat, fchdir, pivot_root};
use rcd_sys::mount::{Attributes, FsContext, READONLY, attach, clone_tree, set_attributes};

use super::beneath::Root;
use super::failure::{At, Result, refuse};
use crate::plan::Rootfs;
use crate::protocol::Step;

/// The options of an overlay must fit the page that mount(2) copies.
const OPTIONS_BYTES_MAX: usize = 4095;

/// Mounts the root on `mount_point` and opens it.
pub(super) fn mount_root(rootfs: &Rootfs, mount_point: &Path) -> Result<Root> {
    match rootfs {
        Rootfs::Overlay {
            lowers,
            upper,
            work,
            volatile,
        } => {
            mount_overlay(lowers, upper, work, *volatile, mount_point)?;
        }
        Rootfs::Directory { source } => bind_directory(source, mount_point)?,
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = open(mount_point, flags, Mode::empty());
    root.map(Root::new).at(Step::Rootfs, mount_point.display())
}

/// Makes the root read-only; what is mounted in it stays as it is.
pub(super) fn make_readonly(root: &Root) -> Result<()> {
    let attributes = Attributes {
        set: READONLY,
        private: false,
    };
    set_attributes(root.as_fd(), attributes, false).at(Step::Rootfs, "/")
}

/// Makes `root` the process's `/` and takes the host's away.
pub(super) fn pivot(root: &Root) -> Result<()> {
    fchdir(root).at(Step::PivotRoot, "/")?;
    // The old root comes to lie upon the new one (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").at(Step::PivotRoot, "/")?;
    umount2(".", MntFlags::MNT_DETACH).at(Step::PivotRoot, "the host's root")?;
    chdir("/").at(Step::PivotRoot, "/")
}

fn open_directory(path: &str) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).at(Step::Rootfs, path)
}

fn mount_overlay(
    lowers: &[String],
    upper: &str,
    work: &str,
    volatile: bool,
    mount_point: &Path,
) -> Result<()> {
    if lowers.is_empty() {
        return Err(refuse(Step::Plan, "overlay", "no lower directory is given"));
    }
    let layers = lowers
        .iter()
        .map(|path| open_directory(path))
        .collect::<Result<Vec<_>>>()?;
    let (upper_fd, work_fd) = (open_directory(upper)?, open_directory(work)?);
    let lowerdir = layers.iter().map(name_of).collect::<Vec<_>>().join(":");
    let mut options = format!(
        "userxattr,lowerdir={lowerdir},upperdir={},workdir={}",
        name_of(&upper_fd),
        name_of(&work_fd)
    );
    if volatile {
        options.push_str(",volatile");
    }
    if options.len() > OPTIONS_BYTES_MAX {
        let detail = format!(
            "{} layers do not fit the options of one mount",
            lowers.len()
        );
        return Err(refuse(Step::Rootfs, upper, detail));
    }
    let source = Some("overlay");
    mount(
        source,
        mount_point,
        source,
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .at_because(Step::Rootfs, upper, |_| match marked_volatile(&work_fd) {
        true => "it was once mounted volatile, without syncs, and may not be mounted again".into(),
        false => overlay_messages(&options),
    })
}

/// A directory as the kernel finds it again, whatever its path.
fn name_of(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

/// Whether a volatile mount has left its mark (`Documentation/filesystems/overlayfs.rst`, "Volatile
/// mount"), of which the kernel tells its own log alone.
fn marked_volatile(work: &OwnedFd) -> bool {
    let mark = "work/incompat/volatile";
    faccessat(work, mark, AccessFlags::F_OK, AtFlags::empty()).is_ok()
}

/// Why overlayfs refused `options`: mount(2) tells it to the kernel's log alone, the newer interface
/// to the caller, so after a failure the mount is tried again by that.
fn overlay_messages(options: &str) -> String {
    let mut text = String::from("overlayfs refuses these directories");
    let Ok(context) = FsContext::open(c"overlay") else {
        return "this kernel has no overlay file system".into();
    };
    for option in options.split(',') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let (Ok(key), Ok(value)) = (CString::new(key), CString::new(value)) else {
            continue;
        };
        // Failures leave their message in the context.
        let _ = if value.is_empty() {
            context.set_flag(&key)
        } else {
            context.set(&key, &value)
        };
    }
    let _ = context.create();
    for message in context.messages() {
        let _ = write!(text, "; {message}");
    }
    text
}

fn bind_directory(source: &str, mount_point: &Path) -> Result<()> {
    let tree = clone_tree(AT_FDCWD, source, true).at(Step::Rootfs, source)?;
    let private = Attributes {
        set: 0,
        private: true,
    };
    set_attributes(tree.as_fd(), private, true).at(Step::Rootfs, source)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let target = open(mount_point, flags, Mode::empty()).at(Step::Rootfs, mount_point.display())?;
    attach(tree.as_fd(), target.as_fd()).at(Step::Rootfs, source)
}
