//! Reads a log in the order in which it was written, from any place, and follows it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::files::{Files, Record};
use super::{Log, Progress, Stream, blocking};

/// The most bytes of one [`Chunk`]; also what one trip to a blocking thread reads at most.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// How many index records are looked at in one go.
const RECORDS_BATCH: usize = 256;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its stream.
    pub stream: Stream,
    /// When its first byte came, nanoseconds since the epoch.
    pub at_ns: u64,
    /// The bytes; at most 64 KiB.
    pub bytes: Bytes,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// At the first byte.
    Start,
    /// After the last byte.
    End,
    /// Before the last so many lines, both streams counted together.
    Tail(u64),
    /// At these offsets in stdout and stderr.
    Offsets(u64, u64),
}

/// Reads a log. Does not hold up its writer.
#[derive(Debug)]
pub struct Reader {
    log: Arc<Log>,
    progress: watch::Receiver<Progress>,
    cursor: Cursor,
}

/// Place in a log: the next record, and where each stream's wanted bytes begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    record: u64,
    stdout: u64,
    stderr: u64,
}

impl Cursor {
    fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Reader {
    /// A reader of `log` at `position`.
    ///
    /// # Errors
    /// The log's files cannot be read.
    pub(crate) async fn new(log: Arc<Log>, position: Position) -> io::Result<Reader> {
        let progress = log.progress.subscribe();
        let log_ = Arc::clone(&log);
        let cursor = blocking(move || match log_.existing_files()? {
            None => Ok(Cursor::default()),
            Some(files) => locate(&files, position),
        })
        .await?;
        Ok(Reader {
            log,
            progress,
            cursor,
        })
    }

    /// A reader at the beginning of a log that has not been written to. Touches no file.
    pub(crate) fn of_new_log(log: Arc<Log>) -> Reader {
        let progress = log.progress.subscribe();
        Reader {
            log,
            progress,
            cursor: Cursor::default(),
        }
    }

    /// Offsets in stdout and stderr of the next byte to be read.
    pub fn offsets(&self) -> (u64, u64) {
        (self.cursor.stdout, self.cursor.stderr)
    }

    /// The next piece; none at the end, which with `follow` is the end of the container's run.
    /// Cancel safe: a dropped call has read nothing.
    ///
    /// # Errors
    /// The log's files cannot be read.
    pub async fn next(&mut self, follow: bool) -> io::Result<Option<Chunk>> {
        loop {
            // Whether it lives is asked before looking, so that its last bytes are not missed.
            let live = self.progress.borrow_and_update().live;
            let (log, cursor) = (Arc::clone(&self.log), self.cursor);
            // Nothing was there when this reader was made, and nothing has come since.
            let silent = self.progress.borrow().appended == 0 && self.log.opened().is_none();
            let found = match silent {
                true => None,
                false => blocking(move || read_chunk(&log, cursor)).await?,
            };
            if let Some((chunk, cursor)) = found {
                self.cursor = cursor;
                return Ok(Some(chunk));
            }
            if !follow || !live || self.progress.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

/// Reads on from `cursor`: as many adjacent records of one stream as fit in a chunk.
fn read_chunk(log: &Log, mut cursor: Cursor) -> io::Result<Option<(Chunk, Cursor)>> {
    let Some(files) = log.existing_files()? else {
        return Ok(None);
    };
    loop {
        cursor.record = cursor.record.max(files.first_record());
        let records = files.records(cursor.record, RECORDS_BATCH)?;
        if records.is_empty() {
            return Ok(None);
        }
        if let Some(chunk) = gather(&files, &records, &mut cursor)? {
            return Ok(Some((chunk, cursor)));
        }
    }
}

/// Takes wanted bytes from the front of `records`. None if they are all before the cursor.
fn gather(files: &Files, records: &[Record], cursor: &mut Cursor) -> io::Result<Option<Chunk>> {
    let mut piece: Option<(Stream, u64, u64, u64)> = None;
    for record in records {
        let wanted = *cursor.of(record.stream);
        let begin = record.offset.max(wanted).max(files.begin(record.stream));
        if begin >= record.end() {
            cursor.record += 1;
            continue;
        }
        let (stream, at_ns, from, to) =
            piece.unwrap_or((record.stream, record.at_ns, begin, begin));
        let room = CHUNK_BYTES_MAX as u64 - (to - from);
        if stream != record.stream || to != begin || room == 0 {
            break;
        }
        let taken = room.min(record.end() - begin);
        piece = Some((stream, at_ns, from, to + taken));
        *cursor.of(stream) = to + taken;
        if to + taken < record.end() {
            break;
        }
        cursor.record += 1;
    }
    let Some((stream, at_ns, from, to)) = piece else {
        return Ok(None);
    };
    let mut bytes = vec![0; (to - from) as usize];
    files.read(stream, from, &mut bytes)?;
    // A reader so far behind that the writer has thrown away what it was reading.
    if files.begin(stream) > from {
        return Ok(None);
    }
    Ok(Some(Chunk {
        stream,
        at_ns,
        bytes: bytes.into(),
    }))
}

fn locate(files: &Files, position: Position) -> io::Result<Cursor> {
    let end = Cursor {
        record: files.record_count(),
        stdout: files.end(Stream::Stdout),
        stderr: files.end(Stream::Stderr),
    };
    match position {
        Position::Start => Ok(Cursor::default()),
        Position::End => Ok(end),
        Position::Offsets(stdout, stderr) => {
            let wanted = Cursor {
                record: 0,
                stdout,
                stderr,
            };
            let record = first_record_past(files, wanted, end.record)?;
            Ok(Cursor { record, ..wanted })
        }
        Position::Tail(lines) => locate_tail(files, end, lines),
    }
}

/// The first record with bytes at or after the wanted offsets: found from the end, where clients
/// that come back are.
fn first_record_past(files: &Files, mut wanted: Cursor, records: u64) -> io::Result<u64> {
    let mut stdout_found = wanted.stdout >= files.end(Stream::Stdout);
    let mut stderr_found = wanted.stderr >= files.end(Stream::Stderr);
    if stdout_found && stderr_found {
        return Ok(records);
    }
    let mut upper = records;
    while upper > files.first_record() {
        let lower = upper.saturating_sub(RECORDS_BATCH as u64);
        for record in files.records(lower, (upper - lower) as usize)?.iter().rev() {
            let before = record.end() <= *wanted.of(record.stream);
            match record.stream {
                Stream::Stdout => stdout_found |= before,
                Stream::Stderr => stderr_found |= before,
            }
            if stdout_found && stderr_found {
                return Ok(upper);
            }
            upper -= 1;
        }
    }
    Ok(0)
}

/// The place before the last `lines` lines. A last line without its newline counts.
fn locate_tail(files: &Files, end: Cursor, lines: u64) -> io::Result<Cursor> {
    if lines == 0 {
        return Ok(end);
    }
    let mut cursor = end;
    let mut newlines = 0;
    let mut at_end = true;
    while cursor.record > files.first_record() {
        let Some(record) = files.records(cursor.record - 1, 1)?.first().copied() else {
            break;
        };
        let mut upper = record.end();
        while upper > record.offset {
            let from = record
                .offset
                .max(upper.saturating_sub(CHUNK_BYTES_MAX as u64));
            let mut bytes = vec![0; (upper - from) as usize];
            files.read(record.stream, from, &mut bytes)?;
            for (at, byte) in bytes.iter().enumerate().rev() {
                // The newline that ends the log does not separate two lines.
                if *byte == b'\n' && !std::mem::take(&mut at_end) {
                    newlines += 1;
                    if newlines == lines {
                        *cursor.of(record.stream) = from + at as u64 + 1;
                        cursor.record -= 1;
                        return Ok(cursor);
                    }
                }
                at_end = false;
            }
            upper = from;
        }
        *cursor.of(record.stream) = record.offset;
        cursor.record -= 1;
    }
    Ok(Cursor::default())
}
