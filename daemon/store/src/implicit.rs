//! Directories that a layer needs and does not describe.
//!
//! A layer may hold `tmp/file` without `tmp`. Docker unpacks it through a mount, where `tmp` is that
//! of the layers below, with its owner and mode. Here layers are unpacked alone, so such a directory
//! is made as 0755 of root, remembered, and given owner, mode, time and attributes of the nearest
//! lower layer when an image that stacks them is recorded. A layer that two images stack on
//! different others takes after the one recorded last.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};
use rcd_sys::openat2::open_beneath_without_links;
use rcd_sys::xattr::{get_xattr, list_xattr, set_xattr};

use crate::error::{Result, io_error};
use crate::layers;
use crate::root::Root;

/// Gives the undescribed directories of an image's layers, lowest first, what lower layers say.
pub(crate) fn adopt(root: &Root, diff_ids: &[String]) -> Result<()> {
    for (at, diff_id) in diff_ids.iter().enumerate() {
        let Some(about) = layers::about(root, diff_id)? else {
            continue;
        };
        let upper = layers::path(root, diff_id);
        for dir in &about.implicit_dirs {
            for lower in diff_ids.iter().take(at).rev() {
                let lower = layers::path(root, lower);
                if let Some(found) = open(&lower, dir)? {
                    adopt_one(&upper, dir, &found)
                        .map_err(io_error("describe", upper.join(dir)))?;
                    break;
                }
            }
        }
    }
    Ok(())
}

fn open(layer: &Path, dir: &str) -> Result<Option<File>> {
    let root = File::open(layer).map_err(io_error("open", layer))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match open_beneath_without_links(root.as_fd(), dir, flags) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(io_error("open", layer.join(dir))(errno)),
    }
}

fn adopt_one(upper: &Path, dir: &str, lower: &File) -> std::io::Result<()> {
    let root = fs::File::open(upper)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let fd = open_beneath_without_links(root.as_fd(), dir, flags)?;
    let found = lower.metadata()?;
    fchown(
        &fd,
        Some(Uid::from_raw(found.uid())),
        Some(Gid::from_raw(found.gid())),
    )?;
    fchmod(&fd, Mode::from_bits_truncate(found.mode()))?;
    for name in list_xattr(lower.as_fd())? {
        // Whether the lower one is opaque says nothing of the upper one.
        if name.to_bytes().starts_with(b"user.overlay.")
            && !name.to_bytes().starts_with(b"user.overlay.overlay.")
        {
            continue;
        }
        if let Some(value) = get_xattr(lower.as_fd(), &name)? {
            match set_xattr(fd.as_fd(), &name, &value) {
                Ok(()) | Err(Errno::ENOTSUP | Errno::EPERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    let time = TimeSpec::new(found.mtime(), found.mtime_nsec());
    futimens(&fd, &time, &time)?;
    Ok(())
}
