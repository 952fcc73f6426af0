//! The files of a log: data of two streams and the index over them.
//!
//! All access is at explicit offsets (`pread`, `pwrite`, `splice`), so one description serves the
//! pump and every reader. Only the pump appends; the ends it has reached are atomics for the
//! readers. An append publishes its record after its bytes are in place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};

use super::Stream;

/// Length of an encoded [`Record`] in bytes.
const RECORD_BYTES: usize = 24;

/// The most bytes moved by one append, so that both streams get their turn. A pipe holds 64 KiB
/// unless enlarged.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// One piece of output: where it is and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// Nanoseconds since the epoch.
    pub(super) at_ns: u64,
    /// Where it begins in its stream's file.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) len: u32,
    /// Its stream.
    pub(super) stream: Stream,
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..8].copy_from_slice(&self.at_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Record {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Record {
            at_ns: word(0),
            offset: word(8),
            len: u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]),
            stream: if bytes[20] == 2 {
                Stream::Stderr
            } else {
                Stream::Stdout
            },
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

/// A stream's data file and how far it is written.
#[derive(Debug)]
struct Data {
    file: File,
    end: AtomicU64,
}

/// Open files of one log.
#[derive(Debug)]
pub(super) struct Files {
    stdout: Data,
    stderr: Data,
    index: File,
    records: AtomicU64,
}

impl Files {
    /// Makes the files of an empty log.
    pub(super) fn create(dir: &Path) -> io::Result<Files> {
        match std::fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        Files::with(dir, true)
    }

    /// Opens the files of a log and mends what a crash left: a torn last record, and bytes that no
    /// record covers. None if nothing was ever written.
    pub(super) fn open(dir: &Path) -> io::Result<Option<Files>> {
        match Files::with(dir, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
            Ok(files) => files.mend().map(Some),
        }
    }

    fn with(dir: &Path, create: bool) -> io::Result<Files> {
        let open = |name: &str, create: bool| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(create).mode(0o600);
            options.open(dir.join(name))
        };
        // The index is made last: where it is, the others are.
        let index = if create {
            None
        } else {
            Some(open("index", false)?)
        };
        let data = |file| Data {
            file,
            end: AtomicU64::new(0),
        };
        let stdout = data(open("stdout", true)?);
        let stderr = data(open("stderr", true)?);
        let index = match index {
            Some(index) => index,
            None => open("index", true)?,
        };
        Ok(Files {
            stdout,
            stderr,
            index,
            records: AtomicU64::new(0),
        })
    }

    fn mend(self) -> io::Result<Files> {
        let records = self.index.metadata()?.len() / RECORD_BYTES as u64;
        self.index.set_len(records * RECORD_BYTES as u64)?;
        self.records.store(records, Ordering::Release);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let covered = self.last_end(stream, records)?;
            let written = self.data(stream).file.metadata()?.len();
            self.data(stream).end.store(covered, Ordering::Release);
            let mut missing = written.saturating_sub(covered);
            while missing > 0 {
                let piece = missing.min(u64::from(u32::MAX));
                self.publish(stream, piece as u32)?;
                missing -= piece;
            }
        }
        Ok(self)
    }

    /// End of the last record of `stream`.
    fn last_end(&self, stream: Stream, records: u64) -> io::Result<u64> {
        const BATCH: u64 = 256;
        let mut upper = records;
        while upper > 0 {
            let lower = upper.saturating_sub(BATCH);
            let batch = self.records(lower, (upper - lower) as usize)?;
            if let Some(last) = batch.iter().rev().find(|r| r.stream == stream) {
                return Ok(last.end());
            }
            upper = lower;
        }
        Ok(0)
    }

    fn data(&self, stream: Stream) -> &Data {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// Number of records published.
    pub(super) fn record_count(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    /// Bytes of `stream` published.
    pub(super) fn end(&self, stream: Stream) -> u64 {
        self.data(stream).end.load(Ordering::Acquire)
    }

    /// Up to `count` records from number `first` on.
    pub(super) fn records(&self, first: u64, count: usize) -> io::Result<Vec<Record>> {
        let available = self.record_count().saturating_sub(first);
        let count = usize::try_from(available).unwrap_or(usize::MAX).min(count);
        let mut bytes = vec![0; count * RECORD_BYTES];
        self.index
            .read_exact_at(&mut bytes, first * RECORD_BYTES as u64)?;
        let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
        Ok(records.iter().map(Record::decode).collect())
    }

    /// Fills `buffer` with bytes of `stream` from `offset` on.
    pub(super) fn read(&self, stream: Stream, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.data(stream).file.read_exact_at(buffer, offset)
    }

    /// Moves what `pipe` holds to the end of `stream`. Returns the number of bytes, which is 0 at
    /// the end of input; `WouldBlock` if the pipe is empty but open.
    pub(super) fn append(&self, stream: Stream, pipe: BorrowedFd<'_>) -> io::Result<usize> {
        let data = self.data(stream);
        let mut offset = data.end.load(Ordering::Acquire) as i64;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let moved = loop {
            let end = Some(&mut offset);
            match splice(pipe, None, data.file.as_fd(), end, APPEND_BYTES_MAX, flags) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        if moved > 0 {
            self.publish(stream, moved as u32)?;
        }
        Ok(moved)
    }

    /// Records that `len` more bytes of `stream` are in its file.
    fn publish(&self, stream: Stream, len: u32) -> io::Result<()> {
        let data = self.data(stream);
        let offset = data.end.load(Ordering::Acquire);
        let record = Record {
            at_ns: now_ns(),
            offset,
            len,
            stream,
        };
        let number = self.record_count();
        self.index
            .write_all_at(&record.encode(), number * RECORD_BYTES as u64)?;
        data.end.store(record.end(), Ordering::Release);
        self.records.store(number + 1, Ordering::Release);
        Ok(())
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
