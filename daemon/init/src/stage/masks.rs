//! What of `/proc` and `/sys` a container may not see or change.
//!
//! All masks share two mounts, cloned for each: an empty read-only tmpfs for directories, the host's
//! `/dev/null` (checked on its descriptor; the container's own could have been swapped,
//! CVE-2025-31133) for all else. Only the first attach of each makes one: a detached mount cannot be
//! cloned before Linux 6.15, an attached one can.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::{SFlag, fstat};
use rcd_sys::mount::{
    Attributes, FsContext, NODEV, NOEXEC, NOSUID, READONLY, attach, clone_tree, set_attributes,
};

use super::beneath::{Root, file_type};
use super::devices::clone_host_device;
use super::failure::{At, Result};
use crate::protocol::Step;

/// Makes `paths` read-only, with all that is mounted below them.
pub(super) fn make_readonly(root: &Root, paths: &[String]) -> Result<()> {
    let attributes = Attributes {
        set: READONLY,
        private: false,
    };
    for path in paths {
        let Some(target) = root.find(path).at(Step::Mask, path)? else {
            continue;
        };
        clone_tree(target.as_fd(), "", true)
            .and_then(|tree| {
                set_attributes(tree.as_fd(), attributes, true)?;
                attach(tree.as_fd(), target.as_fd())
            })
            .at(Step::Mask, path)?;
    }
    Ok(())
}

/// Hides `paths`.
pub(super) fn hide(root: &Root, paths: &[String]) -> Result<()> {
    let mut directories = Cover {
        make: empty_directory,
        attached: None,
    };
    let mut others = Cover {
        make: || clone_host_device("/dev/null"),
        attached: None,
    };
    for path in paths {
        let Some(target) = root.find(path).at(Step::Mask, path)? else {
            continue;
        };
        match file_type(&fstat(&target).at(Step::Mask, path)?) {
            SFlag::S_IFDIR => directories.attach(&target, path)?,
            _ => others.attach(&target, path)?,
        }
    }
    Ok(())
}

/// A mount that covers many places.
struct Cover<F> {
    make: F,
    attached: Option<OwnedFd>,
}

impl<F: Fn() -> Result<OwnedFd>> Cover<F> {
    fn attach(&mut self, target: &OwnedFd, path: &str) -> Result<()> {
        if let Some(first) = &self.attached {
            let copy = clone_tree(first.as_fd(), "", false).at(Step::Mask, path)?;
            return attach(copy.as_fd(), target.as_fd()).at(Step::Mask, path);
        }
        let first = (self.make)()?;
        attach(first.as_fd(), target.as_fd()).at(Step::Mask, path)?;
        self.attached = Some(first);
        Ok(())
    }
}

fn empty_directory() -> Result<OwnedFd> {
    let make = || {
        let context = FsContext::open(c"tmpfs")?;
        // The root alone: one inode, no page.
        context.set(c"nr_inodes", c"1")?;
        context.set(c"nr_blocks", c"1")?;
        context.create()?;
        context.mount(READONLY | NOSUID | NODEV | NOEXEC)
    };
    make().at(Step::Mask, "an empty tmpfs")
}
