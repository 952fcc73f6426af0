//! Writing files so that they are either whole or absent: stage, sync, rename, sync the directory.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rcd_sys::failpoint;

use crate::error::{Result, io_error};

/// Prefix of everything that is not finished. Names of finished things never begin with a dot.
pub(crate) const STAGING_PREFIX: &str = ".staging-";

/// A name for something unfinished. Never used before in this data directory: what an earlier
/// process left may still be there.
pub(crate) fn staging_name() -> String {
    static PROCESS: OnceLock<u128> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos()
    });
    format!(
        "{STAGING_PREFIX}{process:x}-{}",
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Whether a file written survives a power cut or only the death of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// On disk at return.
    Yes,
    /// With the kernel at return.
    No,
}

/// Replaces the file `dir/name` by `bytes` in one step.
pub(crate) fn write_file(dir: &Path, name: &str, bytes: &[u8], sync: Sync) -> Result<()> {
    write_file_by_way_of(dir, dir, name, bytes, sync)
}

/// As [`write_file`], staging in another directory of the same file system.
pub(crate) fn write_file_by_way_of(
    staging: &Path,
    dir: &Path,
    name: &str,
    bytes: &[u8],
    sync: Sync,
) -> Result<()> {
    let staging = staging.join(staging_name());
    let result = stage_file(&staging, bytes, sync).and_then(|()| {
        failpoint::reach("file.staged");
        let path = dir.join(name);
        fs::rename(&staging, &path).map_err(io_error("create", path))
    });
    if result.is_err() {
        // The first error is the one to tell; what is left goes at the next open at the latest.
        let _ = fs::remove_file(&staging);
    }
    result?;
    if sync == Sync::Yes {
        sync_dir(dir)
    } else {
        Ok(())
    }
}

fn stage_file(path: &Path, bytes: &[u8], sync: Sync) -> Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    if sync == Sync::Yes {
        file.sync_all().map_err(io_error("sync", path))?;
    }
    Ok(())
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}

/// Names in `dir`, without those that are not UTF-8: the store makes none.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Contents of a file; none if there is no such file.
pub(crate) fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Removes a file; none there is as good.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}
