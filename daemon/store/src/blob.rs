//! `blobs/sha256/<hex>`: manifests and configurations, by digest. Layers are not kept as blobs.

use std::path::PathBuf;

use rcd_sys::failpoint;

use crate::disk::{self, Sync};
use crate::error::{Error, Result};
use crate::root::Root;
use crate::{digest, trash};

/// Largest blob, in bytes. Registries take manifests of 4 MiB; configurations stay far below.
pub const BLOB_BYTES_MAX: u64 = 16 << 20;

const FOLDER: &str = "blobs/sha256";

/// Where a blob is.
pub(crate) fn path(root: &Root, digest: &str) -> Result<PathBuf> {
    Ok(root.folder(FOLDER).join(digest::hex(digest)?))
}

/// Keeps `bytes`, verified against `digest`, on disk at return.
pub(crate) fn put(root: &Root, digest: &str, bytes: &[u8]) -> Result<()> {
    let hex = digest::hex(digest)?;
    let size = bytes.len() as u64;
    if size > BLOB_BYTES_MAX {
        return Err(Error::BlobTooLarge {
            digest: digest.to_owned(),
            size,
            max: BLOB_BYTES_MAX,
        });
    }
    verify(digest, bytes)?;
    disk::write_file(&root.folder(FOLDER), hex, bytes, Sync::Yes)
}

/// A blob, verified again; none if it is not here.
pub(crate) fn get(root: &Root, digest: &str) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = disk::read_file(&path(root, digest)?)? else {
        return Ok(None);
    };
    verify(digest, &bytes)?;
    Ok(Some(bytes))
}

/// Throws away every blob but those `in_use`; returns the digests.
pub(crate) fn collect(root: &Root, in_use: &[String]) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in disk::names(&root.folder(FOLDER))? {
        let digest = format!("sha256:{name}");
        if digest::is_hex(&name) && !in_use.contains(&digest) && trash::throw(root, FOLDER, &name)?
        {
            failpoint::reach("blob.thrown");
            removed.push(digest);
        }
    }
    Ok(removed)
}

fn verify(digest: &str, bytes: &[u8]) -> Result<()> {
    let found = digest::of(bytes);
    if found == digest {
        Ok(())
    } else {
        Err(Error::DigestMismatch {
            what: "blob",
            expected: digest.to_owned(),
            found,
        })
    }
}
