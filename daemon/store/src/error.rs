//! The errors of this crate.

use std::io;
use std::path::PathBuf;

/// What could not be done, and on what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a path of the data directory failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `create`, `sync`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The data directory lies on a file system that is mounted read-only.
    #[error(
        "data directory {} is on a read-only file system; \
         remount it writable or set XDG_DATA_HOME to a writable place",
        path.display()
    )]
    ReadOnly {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory is not the user's.
    #[error(
        "data directory {} belongs to user {owner}, not to user {user}; \
         remove it or set XDG_DATA_HOME to a directory of your own",
        path.display()
    )]
    ForeignOwner {
        /// The data directory.
        path: PathBuf,
        /// Who owns it, as this process sees ids.
        owner: u32,
        /// Who this process is.
        user: u32,
    },
    /// The path of the data directory names something else.
    #[error("data directory {} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The file system of the data directory cannot hold layers.
    #[error(
        "data directory {} is on a file system that cannot hold layers ({lacks}); \
         set XDG_DATA_HOME to a directory on ext4, xfs or btrfs",
        path.display()
    )]
    Unsuitable {
        /// The data directory.
        path: PathBuf,
        /// What it cannot do.
        lacks: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Another daemon has the data directory open.
    #[error("data directory {} is in use by another rcd; stop that one first", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The index failed.
    #[error("cannot {action} {}", path.display())]
    Index {
        /// What was tried, as a verb: `open the index`.
        action: &'static str,
        /// Directory of the index.
        path: PathBuf,
        /// The database's answer.
        #[source]
        source: sled::Error,
    },
    /// The database crashed while it read its files.
    #[error("the index {} is damaged beyond what its database understands", path.display())]
    IndexCrashed {
        /// Directory of the index.
        path: PathBuf,
    },
    /// A record was written by a newer rcd.
    #[error(
        "{what} was written by a newer rcd (schema {found}, this one knows {known}); \
         nothing was changed: install the newer rcd again"
    )]
    NewerSchema {
        /// Which record.
        what: String,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// A record cannot be decoded.
    #[error("{what} is damaged")]
    Damaged {
        /// Which record.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A record cannot be encoded.
    #[error("cannot encode {what}")]
    Encode {
        /// Which record.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An id that cannot be a directory name.
    #[error("{id:?} is not a container id")]
    InvalidId {
        /// The id.
        id: String,
    },
    /// A digest in another form than `sha256:` and 64 hexadecimal digits.
    #[error("{digest:?} is not a sha256 digest")]
    InvalidDigest {
        /// The digest.
        digest: String,
    },
    /// Content is not what its digest says.
    #[error("{what}: digest is {found}, expected {expected}")]
    DigestMismatch {
        /// Which content: `layer`, `blob`, `uncompressed layer`.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// Content is shorter or longer than announced.
    #[error("layer is {found} bytes, expected {expected}")]
    SizeMismatch {
        /// What was announced.
        expected: u64,
        /// What came; a longer one was not read to its end.
        found: u64,
    },
    /// A blob above the bound.
    #[error("blob {digest} is {size} bytes, more than the {max} allowed")]
    BlobTooLarge {
        /// The blob.
        digest: String,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        max: u64,
    },
    /// The layer's byte stream could not be read or decompressed.
    #[error("cannot read the layer")]
    Read {
        /// Why: the source's own error, or the decompressor's.
        #[source]
        source: io::Error,
    },
    /// The archive breaks its format's rules or a bound.
    #[error("layer is not a valid tar archive: {what} (at byte {offset})")]
    Archive {
        /// What is wrong.
        what: String,
        /// Where: byte of the uncompressed layer.
        offset: u64,
    },
    /// An entry of the archive is refused.
    #[error("tar entry {entry:?} is refused: {why}")]
    Entry {
        /// Name of the entry.
        entry: String,
        /// Why.
        why: String,
    },
    /// An entry of the archive could not be made on disk.
    #[error("cannot {action} tar entry {entry:?}")]
    Apply {
        /// What was tried, as a verb.
        action: &'static str,
        /// Name of the entry.
        entry: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the file system, or the user's quota of it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let source = match self {
            Self::Io { source, .. } | Self::Apply { source, .. } => source,
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Makes an [`Error::Io`] of the error of `action` on `path`.
pub(crate) fn io_error<E: Into<io::Error>>(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(E) -> Error {
    let path = path.into();
    move |source| Error::Io {
        action,
        path,
        source: source.into(),
    }
}
