//! Removal in two steps: a rename, which is quick and decides, and the deletion, which may take long
//! and is done in the background.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};

use rcd_sys::failpoint;

use crate::disk;
use crate::error::{Result, io_error};
use crate::root::Root;
use crate::tree;

/// Names tried for one thing thrown away. An earlier process may have left some.
const NAMES_MAX: u32 = 10_000;

/// Moves `folder/name` of the data directory to the trash. False if there is no such thing.
pub(crate) fn throw(root: &Root, folder: &str, name: &str) -> Result<bool> {
    let (from, to) = (root.folder(folder), root.folder("trash"));
    let open = |path: &PathBuf| fs::File::open(path).map_err(io_error("open", path));
    let (from_dir, to_dir) = (open(&from)?, open(&to)?);
    let mut opened_up = false;
    for _ in 0..NAMES_MAX {
        let free = disk::staging_name();
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&from_dir, name, &to_dir, free.as_str(), flags) {
            Ok(()) => return Ok(true),
            Err(Errno::ENOENT) => return Ok(false),
            Err(Errno::EEXIST) => {}
            // A directory that is moved is written to, as its `..` changes.
            Err(Errno::EACCES) if !opened_up => {
                opened_up = true;
                tree::open_up(from_dir.as_fd(), name.as_bytes())
                    .map_err(io_error("open up", from.join(name)))?;
            }
            Err(errno) => return Err(io_error("remove", from.join(name))(errno)),
        }
    }
    Err(io_error("remove", from.join(name))(Errno::EEXIST))
}

/// Deletes what is in the trash. If another thread does so already, leaves it to that one.
pub(crate) fn empty(root: &Root, emptying: &Mutex<()>) -> Result<()> {
    // Nothing waits for this lock: who does not get it has nothing to do.
    let Ok(_emptying) = emptying.try_lock() else {
        return Ok(());
    };
    let trash = root.folder("trash");
    loop {
        let names = disk::names(&trash)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            failpoint::reach("trash.found");
            tree::remove(&trash, &name)?;
        }
    }
}
