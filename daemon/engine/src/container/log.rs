//! The log of a container: every byte it wrote, on disk, before anybody is shown one.
//!
//! A log is three files in `containers/<id>/log`. `stdout` and `stderr` are the bytes as written
//! (a terminal has only `stdout`). `index` is a row of fixed-size records, one for each piece that
//! arrived: when, which stream, where, how long. It gives the order between the streams and the
//! timestamps.
//!
//! ```text
//!   pipe ──splice──► stdout  │aaaa│bb│cccccc│         offsets are explicit, never O_APPEND
//!   pipe ──splice──► stderr  │xx│yyyy│
//!                    index   │t1 out 0 4│t2 err 0 2│t3 out 4 2│t4 err 2 4│t5 out 6 6│
//! ```
//!
//! Bytes never pass through the daemon's memory, so that a daemon that is killed takes none along:
//! what was spliced is in the file, what was not is in the pipe, whose read end the holder keeps. A
//! terminal cannot be spliced to a file; it goes through a relay pipe that the holder keeps too. A
//! crash between a splice and its record leaves a data file longer than the index says;
//! [`files::Files::open`] writes the missing record.
//!
//! Everybody who shows output (`logs`, `attach`, `run`) reads these files with a [`Reader`]. That
//! gives them one mechanism, lets a slow reader slow down nobody, and lets a client whose
//! connection broke go on at the byte where it was.
//!
//! Files are made at the first byte, so that a silent container costs none.

mod files;
mod pump;
mod reader;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use files::{Files, LIMITS, Limits};

pub(crate) use pump::{Sources, pump};
pub use reader::{Chunk, Position, Reader};

/// One of a container's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// Bumped at each append, so that readers look again.
    appended: u64,
    /// A run of the container is writing or may write.
    live: bool,
}

/// The log of one container. Shared by its pump and its readers.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    limits: Limits,
    files: Mutex<Option<Arc<Files>>>,
    progress: watch::Sender<Progress>,
}

impl Log {
    /// The log in `dir`. Touches no file.
    pub(crate) fn new(dir: PathBuf) -> Arc<Log> {
        Log::with_limits(dir, LIMITS)
    }

    fn with_limits(dir: PathBuf, limits: Limits) -> Arc<Log> {
        Arc::new(Log {
            dir,
            limits,
            files: Mutex::new(None),
            progress: watch::Sender::new(Progress::default()),
        })
    }

    /// Says whether a run may still write. Readers that follow end once it cannot.
    pub(crate) fn set_live(&self, live: bool) {
        self.progress.send_modify(|p| p.live = live);
    }

    fn announce_append(&self) {
        self.progress.send_modify(|p| p.appended += 1);
    }

    /// The open files, if the log has any. Blocks on the disk the first time.
    fn existing_files(&self) -> std::io::Result<Option<Arc<Files>>> {
        if let Some(files) = self.opened() {
            return Ok(Some(files));
        }
        match Files::open(&self.dir, self.limits)? {
            Some(files) => Ok(Some(self.remember(files))),
            None => Ok(None),
        }
    }

    /// Opens the files, if there are any, so that they can be read when their names are gone.
    pub(crate) async fn hold_open(self: &Arc<Self>) -> std::io::Result<()> {
        let log = Arc::clone(self);
        blocking(move || log.existing_files().map(drop)).await
    }

    /// The open files, made if there are none. Blocks on the disk the first time.
    fn files(&self) -> std::io::Result<Arc<Files>> {
        match self.existing_files()? {
            Some(files) => Ok(files),
            None => Ok(self.remember(Files::create(&self.dir, self.limits)?)),
        }
    }

    fn opened(&self) -> Option<Arc<Files>> {
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps `files`, unless another thread was first.
    fn remember(&self, files: Files) -> Arc<Files> {
        let mut slot = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slot.get_or_insert_with(|| Arc::new(files)))
    }
}

/// Runs `work` on a blocking thread; a panic in it becomes an error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

#[cfg(test)]
mod tests;
