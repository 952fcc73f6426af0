//! What rcd keeps on disk, and the only code that knows where.
//!
//! ```text
//! $XDG_DATA_HOME/rcd/            0700, locked while a daemon runs
//!   index/                       rows of containers and images (sled)
//!   blobs/sha256/<hex>           manifests and configurations
//!   layers/<diff-id hex>/        unpacked layers; <diff-id hex>.json is kept beside each
//!   images/<hex>.json            an image's record: the truth of which the index has a copy
//!   containers/<id>/             config.json, upper, work, log, files
//!   trash/                       removed and not yet deleted
//! ```
//!
//! What has been acknowledged holds, by [`Durability`]. Files are staged, synced, renamed, and their
//! directory synced. Whatever moment a process is killed at, the next open succeeds and puts index
//! and files in agreement ([`recover`]). A damaged index is set aside and built again from files.
//!
//! Everything here blocks: async callers use a thread for it. It does not fetch anything, mount
//! anything or decide what is in use.

mod blob;
mod container;
mod digest;
mod disk;
mod envelope;
mod error;
mod image;
mod implicit;
mod index;
mod layer;
mod layers;
mod record;
mod recover;
mod root;
mod trash;
mod tree;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use blob::BLOB_BYTES_MAX;
pub use container::ContainerDirs;
use disk::Sync as Synced;
pub use error::{Error, Result};
pub use index::Durability;
use index::{Index, Table};
pub use layer::{Compression, LayerSource, Ownership, UnpackedLayer};
pub use layers::Collected;
use rcd_sys::failpoint;
pub use record::*;
pub use recover::OpenReport;
use root::Root;

/// The store. Clones share it; the data directory is unlocked when the last one is dropped.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    // Dropped before the lock: sled writes when it is dropped.
    index: Box<dyn Index>,
    root: Root,
    ownership: Ownership,
    fresh: layers::Fresh,
    emptying: Mutex<()>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.0.root.path())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store in the directory `root`, and puts right what an earlier process
    /// left. Nothing is deleted yet: call [`Store::empty_trash`] afterwards, in the background.
    ///
    /// # Errors
    /// If the directory cannot be used (another's, read-only, in use, unsuitable file system), or
    /// holds records of a newer rcd, which are left alone.
    pub fn open(root: &Path) -> Result<(Self, OpenReport)> {
        Self::open_with(root, Ownership::Preserve)
    }

    /// As [`Store::open`], choosing what becomes of owners in layers.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(root: &Path, ownership: Ownership) -> Result<(Self, OpenReport)> {
        let root = Root::open(root)?;
        let mut report = OpenReport::default();
        let index = recover::open_index(&root, &mut report)?;
        recover::reconcile(&root, &index, &mut report)?;
        layers::remove_strays(&root)?;
        let inner = Inner {
            index: Box::new(index),
            root,
            ownership,
            fresh: layers::Fresh::default(),
            emptying: Mutex::new(()),
        };
        Ok((Self(Arc::new(inner)), report))
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.0.root.path()
    }

    /// All containers, by id in order.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>> {
        self.records(Table::Containers)
    }

    /// All images, by id in order.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        self.records(Table::Images)
    }

    fn records<T: serde::de::DeserializeOwned>(&self, table: Table) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for (key, row) in self.0.index.rows(table)? {
            records.push(envelope::decode(&row, &format!("row {key} of the index"))?);
        }
        Ok(records)
    }

    /// Adds or replaces a container. The first time, `config.json` is written too.
    ///
    /// # Errors
    /// If it cannot be written; it may have been written in part then.
    pub fn put_container(&self, record: &ContainerRecord, durability: Durability) -> Result<()> {
        container::check_id(&record.id)?;
        let root = &self.0.root;
        if durability == Durability::Relaxed {
            // Survives a SIGKILL where the row does not.
            container::write_config(root, record, Synced::No)?;
            failpoint::reach("container.config");
        } else {
            // A row without a directory would be taken for half a removal.
            container::ensure_dir(root, &record.id)?;
        }
        let row = envelope::encode(record, &format!("container {}", record.id))?;
        self.0
            .index
            .put(Table::Containers, &record.id, &row, durability)?;
        failpoint::reach("container.row");
        match durability {
            Durability::Relaxed => Ok(()),
            Durability::Written => container::write_config(root, record, Synced::No),
            Durability::Synced => container::write_config(root, record, Synced::Yes),
        }
    }

    /// Removes a container; none of that id is as good. Its directory goes to the trash first: from
    /// then on it is gone, whatever happens.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_container(&self, id: &str, durability: Durability) -> Result<()> {
        container::check_id(id)?;
        let root = &self.0.root;
        let thrown = trash::throw(root, container::FOLDER, id)?;
        failpoint::reach("container.thrown");
        if thrown && durability == Durability::Synced {
            disk::sync_dir(&root.folder(container::FOLDER))?;
        }
        unless_full(self.0.index.remove(Table::Containers, id, durability))
    }

    /// Adds or replaces an image, on disk at return. Its layers must be there.
    ///
    /// # Errors
    /// If a layer is missing or the record cannot be written.
    pub fn put_image(&self, record: &ImageRecord) -> Result<()> {
        let inner = &self.0;
        for diff_id in &record.diff_ids {
            layers::require(&inner.root, diff_id)?;
        }
        implicit::adopt(&inner.root, &record.diff_ids)?;
        failpoint::reach("image.adopted");
        let row = image::write(&inner.root, record)?;
        failpoint::reach("image.written");
        let put = inner
            .index
            .put(Table::Images, &record.id, &row, Durability::Synced);
        unless_full(put)?;
        inner.fresh.settle(&record.diff_ids);
        Ok(())
    }

    /// Removes an image's record, on disk at return; none of that id is as good. Its layers and blobs
    /// stay until [`Store::collect_layers`] and [`Store::collect_blobs`].
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_image(&self, id: &str) -> Result<()> {
        image::remove(&self.0.root, id)?;
        failpoint::reach("image.unlinked");
        unless_full(self.0.index.remove(Table::Images, id, Durability::Synced))
    }

    /// The paths of a container, whether they exist or not.
    #[must_use]
    pub fn container_dirs(&self, id: &str) -> ContainerDirs {
        ContainerDirs::new(self.0.root.folder(container::FOLDER).join(id))
    }

    /// Makes the directories of a new container, all at once. Without a record they are thrown away
    /// at the next open. The container's root gets mode and owner from that of its topmost layer,
    /// `top`; without one it is root's, 0755.
    ///
    /// # Errors
    /// If there are such directories already, or they cannot be made.
    pub fn create_container_dirs(&self, id: &str, top: Option<&str>) -> Result<ContainerDirs> {
        let top = top.map(|diff_id| self.layer_path(diff_id));
        container::create_dirs(&self.0.root, id, top.as_deref())
    }

    /// Where the layer of that diff-id is unpacked.
    #[must_use]
    pub fn layer_path(&self, diff_id: &str) -> PathBuf {
        layers::path(&self.0.root, diff_id)
    }

    /// Whether that layer is there, which means whole and on disk.
    #[must_use]
    pub fn has_layer(&self, diff_id: &str) -> bool {
        layers::has(&self.0.root, diff_id)
    }

    /// Bytes of a layer's regular files; none if it is not there.
    ///
    /// # Errors
    /// If what is known of it cannot be read.
    pub fn layer_size(&self, diff_id: &str) -> Result<Option<u64>> {
        if !self.has_layer(diff_id) {
            return Ok(None);
        }
        Ok(layers::about(&self.0.root, diff_id)?.map(|about| about.size_bytes))
    }

    /// Reads a layer to its end and unpacks it: verified, whole and on disk at return. Where another
    /// thread unpacks the same one, the last to finish discards its copy.
    ///
    /// # Errors
    /// If it cannot be read, is not what was announced, or holds what is refused. Nothing is left.
    pub fn unpack_layer(&self, source: impl Read, layer: &LayerSource) -> Result<UnpackedLayer> {
        layers::unpack(&self.0.root, &self.0.fresh, self.0.ownership, source, layer)
    }

    /// Keeps a blob, on disk at return.
    ///
    /// # Errors
    /// If the digest is not that of the bytes, there are more than [`BLOB_BYTES_MAX`], or they
    /// cannot be written.
    pub fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        blob::put(&self.0.root, digest, bytes)
    }

    /// A blob; none if it is not here.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        blob::get(&self.0.root, digest)
    }

    /// Moves to the trash every layer but those in `in_use` (diff-ids of images and containers) and
    /// those unpacked since the open that no image has named yet.
    ///
    /// # Errors
    /// If the layers cannot be listed or one cannot be moved.
    pub fn collect_layers(&self, in_use: &[String]) -> Result<Collected> {
        layers::collect(&self.0.root, &self.0.fresh, in_use)
    }

    /// Moves to the trash every blob but those in `in_use`. Not while a pull is under way.
    ///
    /// # Errors
    /// If the blobs cannot be listed or one cannot be moved.
    pub fn collect_blobs(&self, in_use: &[String]) -> Result<Collected> {
        let removed = blob::collect(&self.0.root, in_use)?;
        Ok(Collected {
            removed,
            size_bytes: 0,
        })
    }

    /// Deletes what was removed. May take long.
    ///
    /// # Errors
    /// If something cannot be deleted; the rest is left for another time.
    pub fn empty_trash(&self) -> Result<()> {
        trash::empty(&self.0.root, &self.0.emptying)
    }
}

/// Lets a change of a row pass that failed because the disk is full, where the files have decided
/// already and the next open makes the row follow them: a removal must be possible then.
fn unless_full(changed: Result<()>) -> Result<()> {
    match changed {
        Err(error) if error.is_full() => {
            tracing::warn!(%error, "the disk is full: the index is put right at the next start");
            Ok(())
        }
        result => result,
    }
}
