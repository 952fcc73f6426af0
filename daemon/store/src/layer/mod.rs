//! Layers: from a byte stream to a directory that an overlay can take as a lower.
//!
//! ```text
//! source ─► sha256 ─► gzip/zstd/plain ─► sha256 ─► tar ─► writer ─► layers/.staging-n
//!           digest                       diff-id                    │ syncfs, rename
//!                                                                   ▼
//!                                                            layers/<diff-id>
//! ```
//!
//! All in one pass and in bounded memory, and nothing is visible under its name before both digests
//! are right and everything is on disk. Decompression and hashing run on the caller's thread and the
//! writer on another, a few buffers apart. Layers are unpacked independently of each other, never
//! through a mount; see [`crate::implicit`] for the one thing that this leaves to do.

mod archive;
mod attribute;
mod name;
mod owner;
mod pax;
mod sparse;
mod stream;
mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use archive::Archive;
pub use owner::Ownership;
use stream::{Decoder, Hashing};
use writer::{Summary, Writer};

use crate::error::{Error, Result};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Its first bytes tell.
    #[default]
    Detect,
    /// Not at all.
    None,
    /// gzip. As in Docker the first bytes decide all the same.
    Gzip,
    /// Zstandard. As in Docker the first bytes decide all the same.
    Zstd,
}

/// What is known of a layer before it is read. All of it is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerSource {
    /// `sha256:…` of the bytes as they come.
    pub digest: Option<String>,
    /// Count of the bytes as they come.
    pub size: Option<u64>,
    /// `sha256:…` of the uncompressed bytes.
    pub diff_id: Option<String>,
    /// How they are compressed.
    pub compression: Compression,
}

/// A layer that was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// `sha256:…` of the uncompressed bytes.
    pub diff_id: String,
    /// `sha256:…` of the bytes as they came.
    pub digest: String,
    /// Bytes of its regular files, hard links counted once.
    pub size_bytes: u64,
    /// Devices that were left out, as an ordinary user cannot make them.
    pub devices_skipped: u64,
    /// Extended attributes that were left out: reserved ones, and those that the file system or an
    /// ordinary user cannot set.
    pub attributes_skipped: u64,
}

/// Reads a layer from `source` into the empty directory `root`. Returns also the directories that no
/// entry described.
pub(crate) fn unpack<R: Read>(
    source: R,
    layer: &LayerSource,
    root: &File,
    ownership: Ownership,
) -> Result<(UnpackedLayer, Vec<String>)> {
    let mut input = Hashing::new(source, layer.size);
    let written = write(&mut input, layer, root, ownership);
    let written = match written {
        Ok(written) => written,
        // Damage on the way shows first as a bad archive. What matters is who is to blame, so the
        // digest is looked at first; where the rest cannot be read, the first error stands.
        Err(error) => {
            let told = drain(&mut input).is_ok() || input.is_too_long();
            let verdict = if told {
                verify_input(input, layer).err()
            } else {
                None
            };
            return Err(verdict.unwrap_or(error));
        }
    };
    drain(&mut input).map_err(|source| Error::Read { source })?;
    let (summary, diff_id) = written;
    let digest = verify_input(input, layer)?;
    verify("uncompressed layer", layer.diff_id.as_deref(), &diff_id)?;
    let implicit = summary.implicit_dirs.iter();
    let implicit = implicit.filter_map(|name| String::from_utf8(name.as_bytes().to_vec()).ok());
    let implicit = implicit.collect();
    let unpacked = UnpackedLayer {
        diff_id,
        digest,
        size_bytes: summary.size_bytes,
        devices_skipped: summary.devices_skipped,
        attributes_skipped: summary.attributes_skipped,
    };
    Ok((unpacked, implicit))
}

/// Decompresses `input` and applies its entries; returns also the digest of the uncompressed bytes.
fn write<R: Read>(
    input: &mut Hashing<R>,
    layer: &LayerSource,
    root: &File,
    ownership: Ownership,
) -> Result<(Summary, String)> {
    let read = |source| Error::Read { source };
    let decoder = Decoder::new(input, layer.compression).map_err(read)?;
    let mut output = Hashing::new(decoder, None);
    let root = root.as_fd().try_clone_to_owned().map_err(read)?;
    let summary = stream::on_another_thread(&mut output, |bytes| {
        let mut writer = Writer::new(root, ownership);
        let mut archive = Archive::new(bytes);
        while let Some(entry) = archive.next()? {
            writer.apply(&entry, &mut archive)?;
        }
        // What stands behind the archive's end belongs to the digest.
        drain(&mut archive.into_inner()).map_err(read)?;
        writer.finish()
    })?;
    Ok((summary, output.finish().0))
}

fn verify_input<R: Read>(input: Hashing<R>, layer: &LayerSource) -> Result<String> {
    let (digest, len) = input.finish();
    match layer.size {
        Some(expected) if len != expected => Err(Error::SizeMismatch {
            expected,
            found: len,
        }),
        _ => verify("layer", layer.digest.as_deref(), &digest).map(|()| digest),
    }
}

fn verify(what: &'static str, expected: Option<&str>, found: &str) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::DigestMismatch {
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn drain(source: &mut impl Read) -> io::Result<()> {
    io::copy(source, &mut io::sink()).map(drop)
}
