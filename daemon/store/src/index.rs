//! The index: rows by table and key, behind one trait so that the database can be replaced.
//!
//! The implementation is sled 0.34 with guards against what killing it at random moments showed:
//! - Killed while it opens, it leaves `snap.*.generating`, which the next open takes for a snapshot
//!   and refuses. Those files are deleted first.
//! - Its `flush` gives the log to the kernel and starts the write (`sync_file_range`), which
//!   survives SIGKILL but no power cut. A durable commit adds fdatasync(2) on the database file.
//! - After one failed write, of a full disk too, it refuses everything for good. It is closed then,
//!   and opened again by the next access: what was acknowledged is in its files.
//! - A database that cannot be understood is set aside by the caller and built again from files.
//!
//! sled's own thread flushes every [`FLUSH_MS_MAX`] what was changed with [`Durability::Relaxed`].

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use crate::disk;
use crate::error::{Error, Result, io_error};

/// Bytes of decoded pages that sled may keep. A row is about 2 KB and is read at start only.
const CACHE_BYTES_MAX: u64 = 1 << 20;

/// A relaxed change is with the kernel after this time, in milliseconds.
const FLUSH_MS_MAX: u64 = 500;

/// What a change survives once it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: on disk before it is acknowledged.
    Synced,
    /// SIGKILL of this process: with the kernel before it is acknowledged.
    Written,
    /// Nothing at first, SIGKILL after half a second.
    Relaxed,
}

/// Which records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// `ContainerRecord`s by id.
    Containers,
    /// `ImageRecord`s by id.
    Images,
}

impl Table {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Containers => "container/",
            Self::Images => "image/",
        }
    }
}

/// Rows by table and key. Readers wait for no writer.
pub(crate) trait Index: Send + Sync {
    /// All rows of a table, by key in order.
    fn rows(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>>;
    /// Adds or replaces a row.
    fn put(&self, table: Table, key: &str, row: &[u8], durability: Durability) -> Result<()>;
    /// Removes a row; none there is as good.
    fn remove(&self, table: Table, key: &str, durability: Durability) -> Result<()>;
    /// Makes every change so far durable.
    fn sync(&self) -> Result<()>;
}

/// The index in sled.
pub(crate) struct SledIndex {
    /// None after a failure. Held for reading over an access, for writing only to close and to open:
    /// accesses never wait for each other here.
    database: RwLock<Option<Database>>,
    path: PathBuf,
}

struct Database {
    db: sled::Db,
    /// The file that sled writes, opened once more: sled lends its own to nobody.
    file: File,
}

impl SledIndex {
    /// Opens or creates the index in the directory `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            database: RwLock::new(Some(Database::open(path)?)),
            path: path.to_owned(),
        })
    }

    /// Does `work` on the database, opening it if a failure closed it. A failure closes it.
    fn access<T>(
        &self,
        action: &'static str,
        work: impl Fn(&Database) -> sled::Result<T>,
    ) -> Result<T> {
        loop {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = database.as_ref() {
                let result = work(open);
                drop(database);
                return result.map_err(|source| {
                    self.close();
                    failed(action, &self.path, source)
                });
            }
            drop(database);
            let mut database = self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if database.is_none() {
                *database = Some(Database::open(&self.path)?);
            }
        }
    }

    fn close(&self) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let failed = database.take();
        // sled writes when it is dropped, and asserts where it should report.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(failed)));
    }
}

impl Database {
    fn open(path: &Path) -> Result<Self> {
        remove_torn_snapshots(path)?;
        wait_for_database_lock(path)?;
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES_MAX)
            .flush_every_ms(Some(FLUSH_MS_MAX));
        // sled asserts where it should report, when its file holds what it never wrote.
        let db = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| Error::IndexCrashed {
                path: path.to_owned(),
            })?
            .map_err(|source| failed("open the index", path, source))?;
        let db_file = path.join("db");
        let file = File::open(&db_file).map_err(io_error("open", db_file))?;
        Ok(Self { db, file })
    }

    fn commit(&self, durability: Durability) -> sled::Result<()> {
        if durability == Durability::Relaxed {
            return Ok(());
        }
        self.db.flush()?;
        if durability == Durability::Synced {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// The error of sled's, with the kernel's answer in its usual words.
fn failed(action: &'static str, path: &Path, source: sled::Error) -> Error {
    match source {
        sled::Error::Io(source) if !is_damaged_content(&source) => {
            let plain = match source.raw_os_error() {
                Some(_) => source,
                // sled keeps the kind of an error and a text for programmers.
                None => io::Error::from(source.kind()),
            };
            io_error(action, path)(plain)
        }
        source => Error::Index {
            action,
            path: path.to_owned(),
            source,
        },
    }
}

impl Index for SledIndex {
    fn rows(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>> {
        let prefix = table.prefix();
        self.access("read the index", |database| {
            let mut rows = Vec::new();
            for row in database.db.scan_prefix(prefix) {
                let (key, row) = row?;
                let key = key.get(prefix.len()..).unwrap_or_default();
                rows.push((String::from_utf8_lossy(key).into_owned(), row.to_vec()));
            }
            Ok(rows)
        })
    }

    fn put(&self, table: Table, key: &str, row: &[u8], durability: Durability) -> Result<()> {
        let key = format!("{}{key}", table.prefix());
        self.access("write the index", |database| {
            database.db.insert(&key, row)?;
            database.commit(durability)
        })
    }

    fn remove(&self, table: Table, key: &str, durability: Durability) -> Result<()> {
        let key = format!("{}{key}", table.prefix());
        self.access("write the index", |database| {
            database.db.remove(&key)?;
            database.commit(durability)
        })
    }

    fn sync(&self) -> Result<()> {
        self.access("write the index", |database| {
            database.commit(Durability::Synced)
        })
    }
}

/// Whether an open failed because of what the files hold, and not because the machine refused: a
/// full disk, too many open files or a lock must not cost the index.
pub(crate) fn is_damage(error: &Error) -> bool {
    match error {
        Error::IndexCrashed { .. } => true,
        Error::Index {
            source: sled::Error::Io(source),
            ..
        } => is_damaged_content(source),
        Error::Index { .. } => true,
        _ => false,
    }
}

/// Whether an error of I/O is about what was read.
fn is_damaged_content(source: &io::Error) -> bool {
    matches!(
        source.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData
    )
}

/// Waits until no other process has the database file locked. A killed process gives up its locks
/// one after the other, that of the data directory maybe first; and sled, which locks its file
/// without waiting, may keep it in a thread of its own for a moment after it was closed.
fn wait_for_database_lock(path: &Path) -> Result<()> {
    let name = path.join("db");
    match File::open(&name) {
        Ok(file) => crate::root::lock_file(&file, &name),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("open", name)(error)),
    }
}

fn remove_torn_snapshots(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for name in disk::names(path)? {
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let torn = path.join(name);
            fs::remove_file(&torn).map_err(io_error("remove", torn))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_failed_is_opened_again_with_what_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let index = SledIndex::open(dir.path()).unwrap();
        let put = |key| index.put(Table::Images, key, b"row", Durability::Written);
        put("first").unwrap();
        let full = index.access("write the index", |_| -> sled::Result<()> {
            Err(io::Error::from(ErrorKind::StorageFull).into())
        });
        let error = full.unwrap_err();
        assert!(error.is_full(), "{error:?}");
        put("second").unwrap();
        let rows = index.rows(Table::Images).unwrap();
        let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["first", "second"]);
    }
}
