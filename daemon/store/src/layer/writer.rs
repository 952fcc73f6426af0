//! Applies tar entries to the directory of a layer.
//!
//! Every path is resolved by descriptor with the layer's root as `/` (openat2(2), RESOLVE_IN_ROOT),
//! so no entry can name a file outside, whatever links came before it. The last component is never
//! followed. The directory of the last entry stays open, as entries of one directory come together.
//!
//! Modes and times of directories are set at the end, when nothing is made in them any more.
//! Whiteouts become what the kernel's overlay with `userxattr` reads: a character device 0/0, and
//! `user.overlay.opaque=y`. A whiteout speaks of lower layers only: a directory of that name in this
//! layer becomes opaque instead, and in opaque directories there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, ftruncate, linkat, mkfifoat, symlinkat,
    unlinkat,
};
use rcd_sys::openat2::open_beneath;

use super::archive::{Archive, Entry, Kind};
use super::attribute::{self, Target};
use super::name::{Meaning, Name};
use super::owner::{IdMap, Ownership};
use crate::error::{Error, Result};
use crate::tree;

/// Bytes copied at once from the archive to a file.
const BUFFER_BYTES: usize = 128 << 10;

/// Memory for what must be remembered until the end: names of directories and whiteouts. Enough for
/// half a million of them.
const REMEMBERED_BYTES_MAX: usize = 64 << 20;

/// What a remembered name takes beside its bytes.
const REMEMBERED_ENTRY_BYTES: usize = 96;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// What was made, and what was left out.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Bytes of its regular files.
    pub(crate) size_bytes: u64,
    /// Devices, which an ordinary user cannot make.
    pub(crate) devices_skipped: u64,
    /// Extended attributes that this file system or an ordinary user cannot set.
    pub(crate) attributes_skipped: u64,
    /// Directories that had to be made for their contents and that no entry described.
    pub(crate) implicit_dirs: Vec<Name>,
}

/// What is set on a directory at the end.
#[derive(Debug, Clone, Copy)]
struct Pending {
    mode: u32,
    /// None for a directory that no entry described.
    mtime: Option<(i64, u32)>,
}

/// A layer in the making.
pub(crate) struct Writer {
    root: OwnedFd,
    /// Maps of users and groups, unless owners are ignored.
    owners: Option<(IdMap, IdMap)>,
    /// Who owns what this process makes.
    me: (u32, u32),
    parent: Option<(Name, Rc<OwnedFd>)>,
    dirs: BTreeMap<Name, Pending>,
    whiteouts: BTreeSet<Name>,
    opaque: BTreeSet<Name>,
    remembered_bytes: usize,
    buffer: Vec<u8>,
    summary: Summary,
}

impl Writer {
    /// Writes beneath `root`, an empty directory.
    pub(crate) fn new(root: OwnedFd, ownership: Ownership) -> Self {
        let maps = || {
            (
                IdMap::of_this_process("uid_map"),
                IdMap::of_this_process("gid_map"),
            )
        };
        Self {
            root,
            owners: (ownership == Ownership::Preserve).then(maps),
            me: (
                nix::unistd::geteuid().as_raw(),
                nix::unistd::getegid().as_raw(),
            ),
            parent: None,
            dirs: BTreeMap::from([(
                Name::root(),
                Pending {
                    mode: 0o755,
                    mtime: None,
                },
            )]),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            remembered_bytes: 0,
            buffer: vec![0; BUFFER_BYTES],
            summary: Summary::default(),
        }
    }

    /// Applies one entry, reading its data from the archive.
    pub(crate) fn apply<R: Read>(&mut self, entry: &Entry, data: &mut Archive<R>) -> Result<()> {
        let refuse = |why| refused(entry, why);
        let name = Name::clean(&entry.path).map_err(refuse)?;
        match name.meaning().map_err(refuse)? {
            Meaning::Plain(name) => self.plain(name, entry, data),
            Meaning::Whiteout(name) => self.whiteout(name, entry),
            Meaning::Opaque(dir) => {
                self.directory_of(&dir, entry)?;
                self.make_opaque(dir, entry)
            }
            Meaning::Ignored => Ok(()),
        }
    }

    /// Sets what had to wait. The layer is complete then, though not on disk.
    pub(crate) fn finish(mut self) -> Result<Summary> {
        for name in std::mem::take(&mut self.whiteouts) {
            if self.is_hidden(&name) {
                self.remove_whiteout(&name)?;
            }
        }
        // Contents before their directory, whose mode may then forbid entry.
        while let Some((name, pending)) = self.dirs.pop_last() {
            self.finish_directory(&name, pending)
                .map_err(failed_name("finish", &name))?;
            if pending.mtime.is_none() && !name.is_root() {
                self.summary.implicit_dirs.push(name);
            }
        }
        Ok(self.summary)
    }

    fn plain<R: Read>(&mut self, name: Name, entry: &Entry, data: &mut Archive<R>) -> Result<()> {
        let Some((dir, file)) = name.split() else {
            return match entry.kind {
                Kind::Directory => self.describe(name, entry),
                _ => Err(refused(
                    entry,
                    "it would replace the layer's root".to_owned(),
                )),
            };
        };
        if entry.kind == Kind::Device {
            self.summary.devices_skipped += 1;
            return Ok(());
        }
        let parent = self.directory_of(&dir, entry)?;
        match entry.kind {
            Kind::Directory => {
                self.make_directory(&name, &parent, file, entry)?;
                self.describe(name, entry)
            }
            Kind::File => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let make = || openat(&*parent, file, flags, Mode::S_IRUSR | Mode::S_IWUSR);
                let fd = self.make(&name, &parent, entry, make)?;
                self.fill(File::from(fd), entry, data)
            }
            Kind::Symlink => {
                let make = || symlinkat(entry.link.as_slice(), &*parent, file);
                self.make(&name, &parent, entry, make)?;
                self.describe_at(&parent, file, entry)
            }
            Kind::Fifo => {
                self.make(&name, &parent, entry, || {
                    mkfifoat(&*parent, file, Mode::S_IRUSR)
                })?;
                self.describe_at(&parent, file, entry)
            }
            Kind::HardLink => self.hard_link(&name, &parent, entry),
            Kind::Device => Ok(()),
        }
    }

    /// Calls `make`; where something of that name stands in the way, removes it and tries again.
    fn make<T>(
        &mut self,
        name: &Name,
        parent: &OwnedFd,
        entry: &Entry,
        make: impl Fn() -> nix::Result<T>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EEXIST) => {
                self.clear_place(name, parent)
                    .map_err(failed("replace", entry))?;
                make().map_err(failed("create", entry))
            }
            result => result.map_err(failed("create", entry)),
        }
    }

    fn clear_place(&mut self, name: &Name, parent: &OwnedFd) -> nix::Result<()> {
        let Some((_, file)) = name.split() else {
            return Err(Errno::EBUSY);
        };
        self.parent = None;
        let beneath = name.join(b"");
        let within =
            |other: &Name| other == name || other.as_bytes().starts_with(beneath.as_bytes());
        self.dirs.retain(|other, _| !within(other));
        self.whiteouts.retain(|other| !within(other));
        self.opaque.retain(|other| !within(other));
        tree::remove_at(parent.as_fd(), file)
    }

    /// Makes a directory unless there is one. One that takes the place of a whiteout is opaque.
    fn make_directory(
        &mut self,
        name: &Name,
        parent: &OwnedFd,
        file: &[u8],
        entry: &Entry,
    ) -> Result<()> {
        match mkdirat(parent, file, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {}
            result => return result.map_err(failed("create", entry)),
        }
        let there = stat_at(parent, file).map_err(failed("look at", entry))?;
        if is_directory(&there) {
            return Ok(());
        }
        self.clear_place(name, parent)
            .map_err(failed("replace", entry))?;
        mkdirat(parent, file, Mode::S_IRWXU).map_err(failed("create", entry))?;
        if is_whiteout(&there) {
            self.make_opaque(name.clone(), entry)
        } else {
            Ok(())
        }
    }

    /// Opens the directory `dir`, making it and its parents where they are missing.
    fn directory_of(&mut self, dir: &Name, entry: &Entry) -> Result<Rc<OwnedFd>> {
        if let Some((_, fd)) = self.parent.as_ref().filter(|(open, _)| open == dir) {
            return Ok(Rc::clone(fd));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let fd = match open_beneath(self.root.as_fd(), dot_if_root(dir), flags) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.implicit_directory(dir, entry)?,
            result => result.map_err(failed("find the directory of", entry))?,
        };
        let fd = Rc::new(fd);
        self.parent = Some((dir.clone(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn implicit_directory(&mut self, dir: &Name, entry: &Entry) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut name = Name::root();
        let mut fd = self
            .root
            .try_clone()
            .map_err(failed("find the directory of", entry))?;
        for file in dir.as_bytes().split(|byte| *byte == b'/') {
            name = name.join(file);
            let mut opened = open_beneath(self.root.as_fd(), name.as_bytes(), flags);
            let missing = matches!(opened, Err(Errno::ENOENT | Errno::ENOTDIR))
                && match stat_at(&fd, file) {
                    // A whiteout in the place of a directory is no directory.
                    Ok(there) => is_whiteout(&there),
                    Err(errno) => errno == Errno::ENOENT,
                };
            if missing {
                self.make_directory(&name, &fd, file, entry)?;
                self.remember(&name, entry)?;
                self.dirs.insert(
                    name.clone(),
                    Pending {
                        mode: 0o755,
                        mtime: None,
                    },
                );
                opened = open_beneath(self.root.as_fd(), name.as_bytes(), flags);
            }
            fd = opened.map_err(failed("make the directory of", entry))?;
        }
        Ok(fd)
    }

    fn hard_link(&mut self, name: &Name, parent: &OwnedFd, entry: &Entry) -> Result<()> {
        let target = Name::clean(&entry.link)
            .map_err(|why| refused(entry, format!("as for its target, {why}")))?;
        let shown = String::from_utf8_lossy(&entry.link);
        let Some((dir, target_file)) = target.split() else {
            return Err(refused(
                entry,
                format!("its target {shown:?} is a directory"),
            ));
        };
        if target == *name {
            return Err(refused(entry, "it links to itself".to_owned()));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let found = open_beneath(self.root.as_fd(), dot_if_root(&dir), flags)
            .and_then(|dir| stat_at(&dir, target_file).map(|stat| (dir, stat)));
        let (dir, stat) = match found {
            Ok(found) if !is_whiteout(&found.1) => found,
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {
                return Err(refused(
                    entry,
                    format!("its target {shown:?} is not in the layer"),
                ));
            }
            Err(errno) => return Err(failed("find the target of", entry)(errno)),
        };
        if is_directory(&stat) {
            return Err(refused(
                entry,
                format!("its target {shown:?} is a directory"),
            ));
        }
        let (_, file) = name.split().unwrap_or((Name::root(), b""));
        let make = || linkat(&dir, target_file, parent, file, LinkatFlags::empty());
        self.make(name, parent, entry, make)
    }

    fn fill<R: Read>(&mut self, file: File, entry: &Entry, data: &mut Archive<R>) -> Result<()> {
        let whole = [(0, entry.size)];
        let segments = entry
            .sparse
            .as_ref()
            .map_or(&whole[..], |map| map.segments.as_slice());
        if entry.sparse.is_some() {
            let size = i64::try_from(entry.size).unwrap_or(i64::MAX);
            ftruncate(&file, size).map_err(failed("write", entry))?;
        }
        for (start, len) in segments {
            let (mut offset, mut left) = (*start, *len);
            while left > 0 {
                let want = usize::try_from(left)
                    .unwrap_or(BUFFER_BYTES)
                    .min(BUFFER_BYTES);
                let got = data.read(self.buffer.get_mut(..want).unwrap_or_default())?;
                let part = self.buffer.get(..got).unwrap_or_default();
                file.write_all_at(part, offset)
                    .map_err(failed("write", entry))?;
                offset += got as u64;
                left -= (got as u64).min(left);
                if got == 0 {
                    return Err(refused(
                        entry,
                        "its data is shorter than its size".to_owned(),
                    ));
                }
            }
        }
        self.summary.size_bytes = self.summary.size_bytes.saturating_add(entry.size);
        if let Some((uid, gid)) = self.owner(entry)? {
            fchown(&file, Some(uid), Some(gid)).map_err(failed("set the owner of", entry))?;
        }
        // After the owner, as chown(2) takes setuid and capabilities away.
        fchmod(&file, mode(entry.mode)).map_err(failed("set the mode of", entry))?;
        self.attributes(Target::Open(file.as_fd()), entry)?;
        let time = time(entry.mtime);
        futimens(&file, &time, &time).map_err(failed("set the time of", entry))
    }

    /// Owner, attributes, mode and time of what cannot be opened.
    fn describe_at(&mut self, parent: &OwnedFd, file: &[u8], entry: &Entry) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry)? {
            fchownat(
                parent,
                file,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .map_err(failed("set the owner of", entry))?;
        }
        if entry.kind != Kind::Symlink {
            fchmodat(parent, file, mode(entry.mode), FchmodatFlags::FollowSymlink)
                .map_err(failed("set the mode of", entry))?;
        }
        self.attributes(Target::Named(parent.as_fd(), file), entry)?;
        let time = time(entry.mtime);
        utimensat(parent, file, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(failed("set the time of", entry))
    }

    /// Owner and attributes of a directory; mode and time wait.
    fn describe(&mut self, name: Name, entry: &Entry) -> Result<()> {
        let owner = self.owner(entry)?;
        if owner.is_some() || !entry.xattrs.is_empty() {
            let fd = open_beneath(self.root.as_fd(), dot_if_root(&name), DIRECTORY)
                .map_err(failed("open", entry))?;
            if let Some((uid, gid)) = owner {
                fchown(&fd, Some(uid), Some(gid)).map_err(failed("set the owner of", entry))?;
            }
            self.attributes(Target::Open(fd.as_fd()), entry)?;
        }
        self.remember(&name, entry)?;
        self.dirs.insert(
            name,
            Pending {
                mode: entry.mode,
                mtime: Some(entry.mtime),
            },
        );
        Ok(())
    }

    fn finish_directory(&self, name: &Name, pending: Pending) -> nix::Result<()> {
        let fd = open_beneath(self.root.as_fd(), dot_if_root(name), DIRECTORY)?;
        fchmod(&fd, mode(pending.mode))?;
        match pending.mtime.map(time) {
            Some(time) => futimens(&fd, &time, &time),
            None => Ok(()),
        }
    }

    fn attributes(&mut self, target: Target<'_>, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.xattrs {
            let set = attribute::set(&target, name, value);
            if !set.map_err(failed("set an extended attribute of", entry))? {
                self.summary.attributes_skipped += 1;
            }
        }
        Ok(())
    }

    /// Owner to set; none where it is right already or owners are ignored.
    fn owner(&self, entry: &Entry) -> Result<Option<(Uid, Gid)>> {
        let Some((users, groups)) = &self.owners else {
            return Ok(None);
        };
        let outside = |what, id, map: &IdMap| {
            let ids = map.ranges();
            refused(
                entry,
                format!("its {what} {id} is not among the ids of this user ({ids})"),
            )
        };
        let uid = users
            .id(entry.uid)
            .ok_or_else(|| outside("owner", entry.uid, users))?;
        let gid = groups
            .id(entry.gid)
            .ok_or_else(|| outside("group", entry.gid, groups))?;
        Ok(((uid, gid) != self.me).then(|| (Uid::from_raw(uid), Gid::from_raw(gid))))
    }

    fn whiteout(&mut self, name: Name, entry: &Entry) -> Result<()> {
        let Some((dir, file)) = name.split() else {
            return Ok(());
        };
        let parent = self.directory_of(&dir, entry)?;
        match stat_at(&parent, file) {
            Ok(there) if is_directory(&there) => return self.make_opaque(name, entry),
            Ok(_) => return Ok(()),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed("look at", entry)(errno)),
        }
        mknodat(&*parent, file, SFlag::S_IFCHR, Mode::empty(), 0)
            .map_err(failed("create", entry))?;
        self.remember(&name, entry)?;
        self.whiteouts.insert(name);
        Ok(())
    }

    fn remove_whiteout(&self, name: &Name) -> Result<()> {
        let Some((dir, file)) = name.split() else {
            return Ok(());
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        open_beneath(self.root.as_fd(), dot_if_root(&dir), flags)
            .and_then(|dir| match stat_at(&dir, file)? {
                stat if is_whiteout(&stat) => unlinkat(&dir, file, UnlinkatFlags::NoRemoveDir),
                _ => Ok(()),
            })
            .map_err(failed_name("remove", name))
    }

    fn make_opaque(&mut self, dir: Name, entry: &Entry) -> Result<()> {
        let fd = open_beneath(self.root.as_fd(), dot_if_root(&dir), DIRECTORY)
            .map_err(failed("open", entry))?;
        attribute::set_opaque(fd.as_fd())
            .map_err(failed("make the directory opaque for", entry))?;
        self.remember(&dir, entry)?;
        self.opaque.insert(dir);
        Ok(())
    }

    /// Whether a directory above is opaque.
    fn is_hidden(&self, name: &Name) -> bool {
        let mut above = name.split().map(|(dir, _)| dir);
        while let Some(dir) = above {
            if self.opaque.contains(&dir) {
                return true;
            }
            above = dir.split().map(|(dir, _)| dir);
        }
        false
    }

    fn remember(&mut self, name: &Name, entry: &Entry) -> Result<()> {
        self.remembered_bytes += name.as_bytes().len() + REMEMBERED_ENTRY_BYTES;
        if self.remembered_bytes > REMEMBERED_BYTES_MAX {
            return Err(refused(
                entry,
                "the layer has too many directories".to_owned(),
            ));
        }
        Ok(())
    }
}

fn dot_if_root(name: &Name) -> &[u8] {
    if name.is_root() {
        b"."
    } else {
        name.as_bytes()
    }
}

fn stat_at(dir: &OwnedFd, file: &[u8]) -> nix::Result<FileStat> {
    fstatat(dir, file, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn is_whiteout(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

fn time((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

fn refused(entry: &Entry, why: String) -> Error {
    Error::Entry {
        entry: entry.name(),
        why,
    }
}

fn failed<E: Into<io::Error>>(action: &'static str, entry: &Entry) -> impl FnOnce(E) -> Error {
    move |source| Error::Apply {
        action,
        entry: entry.name(),
        source: source.into(),
    }
}

fn failed_name(action: &'static str, name: &Name) -> impl FnOnce(Errno) -> Error {
    move |errno| {
        let entry = String::from_utf8_lossy(name.as_bytes()).into_owned();
        Error::Apply {
            action,
            entry,
            source: errno.into(),
        }
    }
}
