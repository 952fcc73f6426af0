//! `layers/<diff-id hex>/` and, beside each, `<diff-id hex>.json` with what is known of it.
//!
//! A layer is there if its directory is: it gets its name after everything in it is on disk.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::syncfs;
use rcd_sys::failpoint;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Sync};
use crate::error::{Error, Result, io_error};
use crate::layer::{self, LayerSource, Ownership, UnpackedLayer};
use crate::root::Root;
use crate::{digest, envelope, trash, tree};

const FOLDER: &str = "layers";

/// What is kept beside a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Bytes of its regular files.
    pub(crate) size_bytes: u64,
    /// Directories that no entry of the layer described, sorted from the deepest.
    pub(crate) implicit_dirs: Vec<String>,
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Diff-ids, or digests of blobs.
    pub removed: Vec<String>,
    /// Bytes of regular files in the layers removed.
    pub size_bytes: u64,
}

/// Layers that were unpacked and that no image names yet: a pull is under way, and a collection
/// must leave them. Those of a pull that failed stay for the next one until the store is reopened.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Mutex<HashSet<String>>);

impl Fresh {
    fn add(&self, diff_id: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(diff_id.to_owned());
    }

    fn contains(&self, diff_id: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(diff_id)
    }

    /// An image names these layers now.
    pub(crate) fn settle(&self, diff_ids: &[String]) {
        let mut fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.retain(|diff_id| !diff_ids.contains(diff_id));
    }
}

/// Where a layer is or would be. A digest of another form gives a path at which nothing ever is.
pub(crate) fn path(root: &Root, diff_id: &str) -> PathBuf {
    root.folder(FOLDER)
        .join(digest::hex(diff_id).unwrap_or("invalid-diff-id"))
}

/// What is kept beside a layer; none if nothing is.
pub(crate) fn about(root: &Root, diff_id: &str) -> Result<Option<About>> {
    let path = root
        .folder(FOLDER)
        .join(format!("{}.json", digest::hex(diff_id)?));
    let what = path.display().to_string();
    disk::read_file(&path)?
        .map(|bytes| envelope::decode(&bytes, &what))
        .transpose()
}

/// Unpacks a layer, verified and on disk at return.
pub(crate) fn unpack(
    root: &Root,
    fresh: &Fresh,
    ownership: Ownership,
    source: impl Read,
    layer: &LayerSource,
) -> Result<UnpackedLayer> {
    for expected in layer.digest.iter().chain(&layer.diff_id) {
        digest::hex(expected)?;
    }
    let name = disk::staging_name();
    let folder = root.folder(FOLDER);
    let staging = folder.join(&name);
    DirBuilder::new()
        .mode(0o700)
        .create(&staging)
        .map_err(io_error("create", &staging))?;
    failpoint::reach("layer.staged");
    let result = File::open(&staging)
        .map_err(io_error("open", &staging))
        .and_then(|dir| layer::unpack(source, layer, &dir, ownership).map(|done| (dir, done)))
        .and_then(|(dir, (unpacked, implicit_dirs))| {
            let about = About {
                size_bytes: unpacked.size_bytes,
                implicit_dirs,
            };
            publish(root, fresh, &name, &dir, &unpacked, &about).map(|()| unpacked)
        });
    // After success nothing is there any more, unless another thread was first.
    let removed = tree::remove(&folder, &name);
    let unpacked = result?;
    removed.map(|()| unpacked)
}

/// Gives a layer its name, unless another thread was first: then the caller discards it.
fn publish(
    root: &Root,
    fresh: &Fresh,
    name: &str,
    staging: &File,
    unpacked: &UnpackedLayer,
    about: &About,
) -> Result<()> {
    let folder = root.folder(FOLDER);
    let hex = digest::hex(&unpacked.diff_id)?;
    fresh.add(&unpacked.diff_id);
    if has(root, &unpacked.diff_id) {
        return Ok(());
    }
    let record = envelope::encode(about, "what is known of a layer")?;
    disk::write_file(&folder, &format!("{hex}.json"), &record, Sync::No)?;
    failpoint::reach("layer.described");
    syncfs(staging).map_err(io_error("sync", folder.join(name)))?;
    let dir = File::open(&folder).map_err(io_error("open", &folder))?;
    match renameat2(&dir, name, &dir, hex, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(io_error("create", folder.join(hex))(errno)),
    }
    failpoint::reach("layer.published");
    dir.sync_all().map_err(io_error("sync", &folder))
}

/// Whether a layer is there.
pub(crate) fn has(root: &Root, diff_id: &str) -> bool {
    fs::symlink_metadata(path(root, diff_id)).is_ok_and(|found| found.is_dir())
}

/// Throws away every layer but those `in_use` and those of pulls under way.
pub(crate) fn collect(root: &Root, fresh: &Fresh, in_use: &[String]) -> Result<Collected> {
    let mut collected = Collected::default();
    for name in disk::names(&root.folder(FOLDER))? {
        let diff_id = format!("sha256:{name}");
        if !digest::is_hex(&name) || in_use.contains(&diff_id) || fresh.contains(&diff_id) {
            continue;
        }
        // What is beside it serves statistics only.
        let size_bytes = about(root, &diff_id)
            .ok()
            .flatten()
            .map_or(0, |about| about.size_bytes);
        if trash::throw(root, FOLDER, &name)? {
            failpoint::reach("layer.thrown");
            disk::remove_file(&root.folder(FOLDER).join(format!("{name}.json")))?;
            collected.size_bytes += size_bytes;
            collected.removed.push(diff_id);
        }
    }
    Ok(collected)
}

/// Removes what is kept beside layers that are not there.
pub(crate) fn remove_strays(root: &Root) -> Result<()> {
    for name in disk::names(&root.folder(FOLDER))? {
        let Some(hex) = name.strip_suffix(".json") else {
            continue;
        };
        if !has(root, &format!("sha256:{hex}")) {
            disk::remove_file(&root.folder(FOLDER).join(&name))?;
        }
    }
    Ok(())
}

/// An error for a layer that an image names and that is not there.
pub(crate) fn require(root: &Root, diff_id: &str) -> Result<()> {
    if has(root, diff_id) {
        return Ok(());
    }
    Err(Error::Io {
        action: "find",
        path: path(root, diff_id),
        source: Errno::ENOENT.into(),
    })
}
