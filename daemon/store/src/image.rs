//! `images/<id hex>.json`: one file an image, its record. The files decide; rows follow them.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::disk::{self, Sync};
use crate::error::{Result, io_error};
use crate::record::ImageRecord;
use crate::root::Root;
use crate::{digest, envelope};

const FOLDER: &str = "images";

/// Writes an image's file, on disk at return.
pub(crate) fn write(root: &Root, record: &ImageRecord) -> Result<Vec<u8>> {
    let name = format!("{}.json", digest::hex(&record.id)?);
    let bytes = envelope::encode(record, &format!("image {}", record.id))?;
    disk::write_file(&root.folder(FOLDER), &name, &bytes, Sync::Yes)?;
    Ok(bytes)
}

/// Removes an image's file, on disk at return.
pub(crate) fn remove(root: &Root, id: &str) -> Result<()> {
    disk::remove_file(&path(root, id)?)?;
    disk::sync_dir(&root.folder(FOLDER))
}

/// Reads an image's file; none if there is none.
pub(crate) fn read(root: &Root, id: &str) -> Result<Option<ImageRecord>> {
    let path = path(root, id)?;
    let what = path.display().to_string();
    disk::read_file(&path)?
        .map(|bytes| envelope::decode(&bytes, &what))
        .transpose()
}

/// When an image's file was written.
pub(crate) fn modified(root: &Root, id: &str) -> Result<SystemTime> {
    let path = path(root, id)?;
    fs::metadata(&path)
        .and_then(|found| found.modified())
        .map_err(io_error("look at", path))
}

/// Ids of the images that have a file.
pub(crate) fn ids(root: &Root) -> Result<Vec<String>> {
    let names = disk::names(&root.folder(FOLDER))?;
    let id = |name: String| {
        let hex = name.strip_suffix(".json")?;
        digest::is_hex(hex).then(|| format!("sha256:{hex}"))
    };
    Ok(names.into_iter().filter_map(id).collect())
}

fn path(root: &Root, id: &str) -> Result<PathBuf> {
    Ok(root
        .folder(FOLDER)
        .join(format!("{}.json", digest::hex(id)?)))
}
