//! Device nodes and links in `/dev`.
//!
//! A user namespace may not make device nodes, so the host's are bound. Each is checked on the very
//! descriptor that is then mounted; nothing can be swapped between.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::symlinkat;
use rcd_sys::mount::{attach, clone_tree};
use rcd_sys::openat2::create_file;

use super::beneath::{Missing, Root, file_type};
use super::failure::{At, Result, refuse};
use crate::protocol::Step;

/// Numbers of the devices that every container has (`Documentation/admin-guide/devices.txt`).
const KNOWN: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links in `/dev`: (text, name), as the OCI runtime specification wants them
/// (`runtime-linux.md`, "Dev symbolic links", "Default Devices").
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Binds the host's `devices`.
pub(super) fn bind_all(root: &Root, devices: &[String]) -> Result<()> {
    let dev = root.open("/dev", OFlag::O_PATH | OFlag::O_DIRECTORY).ok();
    devices.iter().try_for_each(|path| {
        let node = clone_host_device(path)?;
        let target = open_target(root, dev.as_ref(), path)?;
        attach(node.as_fd(), target.as_fd()).at(Step::Device, path)
    })
}

/// Makes the links in a new `/dev`; what the image's mounts already put there stays.
pub(super) fn link_all(root: &Root) -> Result<()> {
    let dev = root
        .open("/dev", OFlag::O_PATH | OFlag::O_DIRECTORY)
        .at(Step::Device, "/dev")?;
    LINKS
        .iter()
        .try_for_each(|(text, name)| match symlinkat(*text, &dev, *name) {
            Err(Errno::EEXIST) => Ok(()),
            result => result.at(Step::Device, format_args!("/dev/{name}")),
        })
}

/// A detached mount of the host's device `path`, checked to be that device.
pub(super) fn clone_host_device(path: &str) -> Result<OwnedFd> {
    let node = clone_tree(AT_FDCWD, path, false).at(Step::Device, path)?;
    let status = fstat(&node).at(Step::Device, path)?;
    if is_device(path, &status) {
        return Ok(node);
    }
    Err(refuse(
        Step::Device,
        path,
        "on the host this is not the device of that name",
    ))
}

/// Whether a status is that of the device which is known as `path`.
pub(super) fn is_device(path: &str, status: &FileStat) -> bool {
    let kind = file_type(status);
    let numbers = (major(status.st_rdev), minor(status.st_rdev));
    match KNOWN.iter().find(|(known, ..)| *known == path) {
        Some((_, major, minor)) => kind == SFlag::S_IFCHR && numbers == (*major, *minor),
        None => kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK,
    }
}

/// An empty file to mount on. In the usual new `/dev` it is made at the first try.
pub(super) fn open_target(root: &Root, dev: Option<&OwnedFd>, path: &str) -> Result<OwnedFd> {
    if let (Some(dev), Some(name)) = (dev, path.strip_prefix("/dev/"))
        && !name.contains('/')
        && let Ok(target) = create_file(dev.as_fd(), name, Mode::from_bits_truncate(0o644))
    {
        return Ok(target);
    }
    root.ensure(path, Missing::File).at(Step::Device, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_by_its_numbers() {
        let null = fstat(std::fs::File::open("/dev/null").unwrap()).unwrap();
        assert!(is_device("/dev/null", &null));
        assert!(!is_device("/dev/zero", &null));
        assert!(is_device("/dev/fuse", &null), "others are any device");
        let directory = fstat(std::fs::File::open("/").unwrap()).unwrap();
        assert!(!is_device("/dev/fuse", &directory));
    }
}
