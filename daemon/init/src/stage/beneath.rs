//! The container's root as a descriptor, and paths beneath it.
//!
//! A path that exists takes one openat2(2). One that does not is walked name by name, each opened
//! without following links, with the links' text expanded here: so a target behind a dangling link
//! (Debian's `/etc/resolv.conf` pointing into an empty `/run`) is made where the link points, within
//! the root, as Docker does.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use rcd_sys::openat2::{create_file, open_beneath, open_beneath_without_links};

/// The most symbolic links on a way, as in the kernel (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// What a missing target becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644.
    File,
}

/// A directory that takes the place of `/`.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Takes a descriptor of a directory.
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens what is there.
    pub(super) fn open(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        open_beneath(self.as_fd(), path, flags)
    }

    /// Opens what is there and refuses every link on the way.
    pub(super) fn open_without_links(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        open_beneath_without_links(self.as_fd(), path, flags)
    }

    /// Opens `path` as O_PATH; none if it does not exist.
    pub(super) fn find(&self, path: &str) -> nix::Result<Option<OwnedFd>> {
        match self.open(path, OFlag::O_PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens `path` as O_PATH, made with its parents if it is missing.
    pub(super) fn ensure(&self, path: &str, missing: Missing) -> nix::Result<OwnedFd> {
        match self.open(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => self.walk(path, missing),
            result => result,
        }
    }

    fn walk(&self, path: &str, missing: Missing) -> nix::Result<OwnedFd> {
        let mut names: VecDeque<OsString> = VecDeque::new();
        prepend(&mut names, OsStr::new(path));
        let mut below: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                below.pop();
                continue;
            }
            let parent = below.last().map_or(self.as_fd(), AsFd::as_fd);
            let missing = if names.is_empty() {
                missing
            } else {
                Missing::Directory
            };
            let entry = open_or_make(parent, &name, missing)?;
            if !is_link(&fstat(&entry)?) {
                below.push(entry);
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::ELOOP);
            }
            let text = readlinkat(&entry, "")?;
            if text.as_bytes().starts_with(b"/") {
                below.clear();
            }
            prepend(&mut names, &text);
        }
        below
            .pop()
            .map_or_else(|| self.open("/", OFlag::O_PATH), Ok)
    }
}

/// Puts the names of `path` before those that are left.
fn prepend(names: &mut VecDeque<OsString>, path: &OsStr) {
    let parts = path.as_bytes().split(|&byte| byte == b'/');
    for part in parts.rev().filter(|part| !part.is_empty() && *part != b".") {
        names.push_front(OsStr::from_bytes(part).to_owned());
    }
}

fn open_or_make(parent: BorrowedFd<'_>, name: &OsStr, missing: Missing) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        result => return result,
    }
    if missing == Missing::File {
        return create_file(parent, name, Mode::from_bits_truncate(0o644));
    }
    mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
    openat(parent, name, flags, Mode::empty())
}

/// Whether a status is a symbolic link's.
fn is_link(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFLNK
}

/// The type bits of a status.
pub(super) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A directory with links in it, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> (Self, Root) {
            // The kernel names a place without the links that may lead to it.
            let temporary = std::env::temp_dir().canonicalize().unwrap();
            let dir = temporary.join(format!("rcd-beneath-{}-{name}", std::process::id()));
            fs::create_dir_all(dir.join("etc")).unwrap();
            fs::create_dir_all(dir.join("deep/er")).unwrap();
            symlink("../run/resolve/stub", dir.join("etc/resolv.conf")).unwrap();
            symlink("../../../../../../../outside", dir.join("deep/er/out")).unwrap();
            symlink("/absolute/dir", dir.join("abs")).unwrap();
            symlink("loop", dir.join("loop")).unwrap();
            let root = Root::new(fs::File::open(&dir).unwrap().into());
            (Self(dir), root)
        }

        fn place(&self, fd: &OwnedFd) -> String {
            let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
            link.strip_prefix(&self.0)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_targets_are_made_inside_the_root() {
        let (tree, root) = Tree::new("made");
        let cases = [
            ("/a/b/c", Missing::Directory, "a/b/c"),
            ("/a/file", Missing::File, "a/file"),
            ("/etc/resolv.conf", Missing::File, "run/resolve/stub"),
            ("/deep/er/out/x", Missing::File, "outside/x"),
            ("/abs/x", Missing::File, "absolute/dir/x"),
            ("/../../../top", Missing::File, "top"),
            ("/deep/../../new/./x", Missing::Directory, "new/x"),
            ("/deep/er", Missing::Directory, "deep/er"),
        ];
        for (path, missing, place) in cases {
            let fd = root.ensure(path, missing).unwrap();
            assert_eq!(tree.place(&fd), place, "{path}");
            let want = if missing == Missing::File {
                SFlag::S_IFREG
            } else {
                SFlag::S_IFDIR
            };
            assert_eq!(file_type(&fstat(&fd).unwrap()), want, "{path}");
        }
    }

    #[test]
    fn loops_end() {
        let (_tree, root) = Tree::new("loops");
        assert_eq!(
            root.ensure("/loop", Missing::File).unwrap_err(),
            Errno::ELOOP
        );
        assert_eq!(
            root.walk("/loop/x", Missing::File).unwrap_err(),
            Errno::ELOOP
        );
    }

    #[test]
    fn what_is_missing_is_not_found() {
        let (_tree, root) = Tree::new("found");
        assert!(root.find("/nothing/here").unwrap().is_none());
        assert!(root.find("/etc").unwrap().is_some());
    }
}
