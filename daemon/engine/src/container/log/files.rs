//! The files of a log: data of two streams and the index over them.
//!
//! All access is at explicit offsets (`pread`, `pwrite`, `splice`), so one description serves the
//! pump and every reader. Only the pump appends; the ends it has reached are atomics for the
//! readers. An append publishes its record after its bytes are in place.
//!
//! A log keeps the last bytes of each stream and the last records, within [`LIMITS`]. What is
//! older is punched out of the files, so that offsets stay what they are, and readers begin behind
//! the hole. Where a hole begins follows from the file's length alone; nothing else is on record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, SpliceFFlags, fallocate, splice};

use super::Stream;

/// Length of an encoded [`Record`] in bytes.
const RECORD_BYTES: usize = 24;

/// The most bytes moved by one append, so that both streams get their turn. A pipe holds 64 KiB
/// unless enlarged.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// How much of a log is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of each stream.
    pub(super) stream_bytes: u64,
    /// Holes grow in steps, so that most appends punch none.
    pub(super) stream_bytes_step: u64,
    /// Records of both streams.
    pub(super) records: u64,
    /// The same for the index.
    pub(super) records_step: u64,
}

/// What every log is kept to: 256 MiB a stream, and an index of 96 MiB, which is enough for pieces
/// of 128 bytes.
pub(super) const LIMITS: Limits = Limits {
    stream_bytes: 256 << 20,
    stream_bytes_step: 16 << 20,
    records: 4 << 20,
    records_step: 256 << 10,
};

/// What is kept of something that has come to `end`, at most `max` and a `step`: where it begins.
const fn kept_from(end: u64, max: u64, step: u64) -> u64 {
    end.saturating_sub(max) / step * step
}

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
    /// Bytes behind `end` whose record could not be written: the disk was full.
    unpublished: AtomicU32,
}

/// Open files of one log.
#[derive(Debug)]
pub(super) struct Files {
    stdout: Data,
    stderr: Data,
    index: File,
    records: AtomicU64,
    limits: Limits,
}

impl Files {
    /// Makes the files of an empty log.
    pub(super) fn create(dir: &Path, limits: Limits) -> io::Result<Files> {
        match std::fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        Files::with(dir, true, limits)
    }

    /// Opens the files of a log and mends what a crash left: a torn last record, and bytes that no
    /// record covers. None if nothing was ever written.
    pub(super) fn open(dir: &Path, limits: Limits) -> io::Result<Option<Files>> {
        match Files::with(dir, false, limits) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
            Ok(files) => files.mend().map(Some),
        }
    }

    fn with(dir: &Path, create: bool, limits: Limits) -> io::Result<Files> {
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
            unpublished: AtomicU32::new(0),
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
            limits,
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

    /// End of the last record of `stream`. If none is kept although some were punched out, its
    /// bytes had records too: then the file's own end.
    fn last_end(&self, stream: Stream, records: u64) -> io::Result<u64> {
        const BATCH: u64 = 256;
        let first = self.first_record();
        let mut upper = records;
        while upper > first {
            let lower = upper.saturating_sub(BATCH).max(first);
            let batch = self.records(lower, (upper - lower) as usize)?;
            if let Some(last) = batch.iter().rev().find(|r| r.stream == stream) {
                return Ok(last.end());
            }
            upper = lower;
        }
        match first {
            0 => Ok(0),
            _ => Ok(self.data(stream).file.metadata()?.len()),
        }
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

    /// Number of the first record that is kept.
    pub(super) fn first_record(&self) -> u64 {
        kept_from(
            self.record_count(),
            self.limits.records,
            self.limits.records_step,
        )
    }

    /// Offset of the first byte of `stream` that is kept.
    pub(super) fn begin(&self, stream: Stream) -> u64 {
        kept_from(
            self.end(stream),
            self.limits.stream_bytes,
            self.limits.stream_bytes_step,
        )
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
        let left = data.unpublished.load(Ordering::Acquire);
        if left > 0 {
            self.publish(stream, left)?;
        }
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
            data.unpublished.store(moved as u32, Ordering::Release);
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
        let kept = (self.begin(stream), self.first_record());
        data.end.store(record.end(), Ordering::Release);
        data.unpublished.store(0, Ordering::Release);
        self.records.store(number + 1, Ordering::Release);
        if self.begin(stream) > kept.0 {
            punch(&data.file, self.begin(stream));
        }
        if self.first_record() > kept.1 {
            punch(&self.index, self.first_record() * RECORD_BYTES as u64);
        }
        Ok(())
    }
}

/// Gives the space before `end` back. A file system that cannot keeps it: the log is then larger
/// than it need be, which is no reason to stop the container.
fn punch(file: &File, end: u64) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let Err(error) = fallocate(file, flags, 0, end as i64) {
        tracing::debug!(%error, "cannot shorten a log");
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
