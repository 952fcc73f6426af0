//! The data directory itself: made, checked and locked before anything in it is read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknodat};
use rcd_sys::xattr::set_xattr;

use crate::disk;
use crate::error::{Error, Result, io_error};

/// How long a lock is waited for, in milliseconds. A daemon that was killed keeps it while one of
/// its threads is within a slow system call.
const LOCK_WAIT_MS_MAX: u64 = 5000;

/// Pause between two looks at the lock, in milliseconds.
const LOCK_POLL_MS: u64 = 5;

/// Folders of the data directory.
const FOLDERS: [&str; 6] = [
    "blobs",
    "blobs/sha256",
    "layers",
    "containers",
    "images",
    "trash",
];

/// The data directory, locked. The lock ends with this value or this process.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    _lock: File,
}

impl Root {
    /// Makes, checks and locks the data directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        make_private_dir(path)?;
        let lock = lock(path)?;
        for folder in FOLDERS {
            make_dir(&path.join(folder))
                .map_err(|source| refine(path, "create", folder, source))?;
        }
        let root = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        root.throw_staging()?;
        root.probe()?;
        Ok(root)
    }

    /// The data directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// One of its folders.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Moves what an earlier process left unfinished to the trash: deleting it may take long, and a
    /// daemon that was killed is waited for.
    fn throw_staging(&self) -> Result<()> {
        for folder in ["blobs/sha256", "layers", "images", "containers"] {
            for name in disk::names(&self.folder(folder))? {
                if name.starts_with(disk::STAGING_PREFIX) {
                    crate::trash::throw(self, folder, &name)?;
                }
            }
        }
        Ok(())
    }

    /// Tries whether layers can be kept here: extended attributes and whiteouts.
    fn probe(&self) -> Result<()> {
        let name = disk::staging_name();
        let layers = self.folder("layers");
        let probe = layers.join(&name);
        fs::create_dir(&probe).map_err(io_error("create", &probe))?;
        let result = self.probe_in(&probe);
        crate::tree::remove(&layers, &name)?;
        result
    }

    fn probe_in(&self, probe: &Path) -> Result<()> {
        let dir = File::open(probe).map_err(io_error("open", probe))?;
        let lacks = |lacks| {
            move |errno: Errno| {
                let path = self.path.clone();
                Error::Unsuitable {
                    path,
                    lacks,
                    source: errno.into(),
                }
            }
        };
        set_xattr(dir.as_fd(), c"user.overlay.opaque", b"y")
            .map_err(lacks("no extended attributes"))?;
        mknodat(&dir, "whiteout", SFlag::S_IFCHR, Mode::empty(), 0).map_err(lacks("no whiteouts"))
    }
}

/// Makes a folder that only this user can enter; there already is as good.
fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn make_private_dir(path: &Path) -> Result<()> {
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(parent).map_err(|source| refine(path, "create", "", source))?;
    }
    make_dir(path).map_err(|source| refine(path, "create", "", source))?;
    let found = fs::metadata(path).map_err(io_error("look at", path))?;
    let user = nix::unistd::geteuid().as_raw();
    if !found.is_dir() {
        return Err(Error::NotADirectory {
            path: path.to_owned(),
        });
    }
    if found.uid() != user {
        return Err(Error::ForeignOwner {
            path: path.to_owned(),
            owner: found.uid(),
            user,
        });
    }
    // Layers hold setuid files that belong to the user: nobody else may reach them.
    if found.mode() & 0o777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|source| refine(path, "set the mode of", "", source))?;
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|source| refine(path, "open", "lock", source))?;
    lock_file(&file, path)?;
    Ok(file)
}

/// Locks an open file until it is closed. `path` is what is said to be in use if that takes longer
/// than [`LOCK_WAIT_MS_MAX`].
pub(crate) fn lock_file(file: &File, path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(LOCK_WAIT_MS_MAX);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(LOCK_POLL_MS));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock", path)(source)),
        }
    }
}

/// Tells the one failure that has a cure of its own.
fn refine(root: &Path, action: &'static str, name: &str, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return Error::ReadOnly {
            path: root.to_owned(),
        };
    }
    let path = if name.is_empty() {
        root.to_owned()
    } else {
        root.join(name)
    };
    io_error(action, path)(source)
}
