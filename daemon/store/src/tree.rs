//! Removing directory trees that containers or images shaped: of any depth, with modes that forbid
//! entry, never through a symbolic link.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::disk;
use crate::error::{Result, io_error};

/// Directories entered one inside the other, an open descriptor each. A tree that is deeper is
/// taken apart: its lower part is moved up first.
const DEPTH_MAX: u32 = 64;

/// Passes over a directory until it is empty. One is the rule; a file system may pass names over
/// while others are removed.
const PASSES_MAX: u32 = 64;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Removes `dir/name`, whatever it is; nothing there is as good.
pub(crate) fn remove(dir: &Path, name: &str) -> Result<()> {
    let fd = File::open(dir).map_err(io_error("open", dir))?;
    remove_at(fd.as_fd(), name.as_bytes()).map_err(io_error("remove", dir.join(name)))
}

/// As [`remove`], in an open directory.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(Errno::ENOENT) => return Ok(()),
        result => return result,
    }
    let mut queue = VecDeque::from([name.to_vec()]);
    while let Some(name) = queue.pop_front() {
        let mut removal = Removal {
            base: dir,
            queue: &mut queue,
        };
        removal.directory(dir, &name, 0)?;
    }
    Ok(())
}

/// Gives a directory's owner entry to it, which its mode may lack. The caller has seen that it is
/// a directory, and nobody else changes the tree.
pub(crate) fn open_up(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    fchmodat(dir, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}

struct Removal<'a> {
    /// Where parts that are too deep are moved to.
    base: BorrowedFd<'a>,
    /// Names in `base` that are still to be removed.
    queue: &'a mut VecDeque<Vec<u8>>,
}

impl Removal<'_> {
    fn directory(&mut self, parent: BorrowedFd<'_>, name: &[u8], depth: u32) -> nix::Result<()> {
        for _ in 0..PASSES_MAX {
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
                Err(Errno::ENOENT) => return Ok(()),
                result => return result,
            }
            let mut dir = match Dir::openat(parent, name, DIRECTORY, Mode::empty()) {
                Err(Errno::EACCES) => {
                    open_up(parent, name)?;
                    Dir::openat(parent, name, DIRECTORY, Mode::empty())?
                }
                result => result?,
            };
            self.contents(&mut dir, depth)?;
        }
        Err(Errno::ENOTEMPTY)
    }

    fn contents(&mut self, dir: &mut Dir, depth: u32) -> nix::Result<()> {
        let fd = dir
            .as_fd()
            .try_clone_to_owned()
            .map_err(|_| Errno::EMFILE)?;
        if Mode::from_bits_truncate(fstat(&fd)?.st_mode) & Mode::S_IRWXU != Mode::S_IRWXU {
            fchmod(&fd, Mode::S_IRWXU)?;
        }
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                Some(Type::Directory) => true,
                Some(_) => false,
                None => is_directory(fd.as_fd(), name)?,
            };
            if !is_dir {
                unlinkat(&fd, name, UnlinkatFlags::NoRemoveDir)?;
            } else if depth < DEPTH_MAX {
                self.directory(fd.as_fd(), name, depth + 1)?;
            } else {
                self.move_up(fd.as_fd(), name)?;
            }
        }
        Ok(())
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
        let to = disk::staging_name().into_bytes();
        let flags = RenameFlags::RENAME_NOREPLACE;
        let moved = renameat2(dir, name, self.base, to.as_slice(), flags);
        if moved == Err(Errno::EACCES) {
            open_up(dir, name)?;
            renameat2(dir, name, self.base, to.as_slice(), flags)?;
        } else {
            moved?;
        }
        self.queue.push_back(to);
        Ok(())
    }
}

fn is_directory(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<bool> {
    match nix::fcntl::openat(dir, OsStr::from_bytes(name), DIRECTORY, Mode::empty()) {
        Ok(_) | Err(Errno::EACCES) => Ok(true),
        Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn forbidding_modes_links_and_files_are_removed_and_targets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        symlink(&victim, tree.join("a/link")).unwrap();
        for closed in ["a/b", "a"] {
            fs::set_permissions(tree.join(closed), fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove(dir.path(), "tree").unwrap();
        remove(dir.path(), "tree").unwrap();
        assert!(!tree.exists());
        assert!(victim.join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = File::open(dir.path()).unwrap();
        let mut fd = top.as_fd().try_clone_to_owned().unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&fd, "deep", Mode::S_IRWXU).unwrap();
            fd = nix::fcntl::openat(&fd, "deep", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(dir.path(), "deep").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
