//! The byte stream of a layer: digest of what comes in, decompression, digest of what comes out.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};

use super::Compression;
use crate::error::{Error, Result};

/// Bytes read at once from the source and from the decompressor.
const BUFFER_BYTES: usize = 128 << 10;

/// Bytes that tell the format.
const MAGIC_LEN: usize = 4;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frames to pass over have 0x184D2A50 to 0x184D2A5F, little endian (RFC 8878, 3.1.2).
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Hashes and counts what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    len: u64,
    max: u64,
}

impl<R: Read> Hashing<R> {
    /// Reads at most `max` bytes, and one more to know that there are more.
    pub(crate) fn new(inner: R, max: Option<u64>) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            len: 0,
            max: max.unwrap_or(u64::MAX),
        }
    }

    /// Digest and count of what was read.
    pub(crate) fn finish(self) -> (String, u64) {
        (crate::digest::finish(self.hash), self.len)
    }

    /// Whether there were more bytes than allowed.
    pub(crate) fn is_too_long(&self) -> bool {
        self.len > self.max
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.len > self.max {
            return Err(io::Error::other("more bytes than announced"));
        }
        let got = self.inner.read(buffer)?;
        if let Some(read) = buffer.get(..got) {
            self.hash.update(read);
            self.len = self.len.saturating_add(got as u64);
        }
        Ok(got)
    }
}

type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// A decompressor.
pub(crate) enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Box<Zstd<Source<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Picks the decompressor. Whatever is announced except plain, the first bytes decide, as in
    /// Docker: registries hold layers under wrong media types, and no tar begins as gzip or zstd do.
    pub(crate) fn new(mut source: R, compression: Compression) -> io::Result<Self> {
        let mut magic = Vec::new();
        source
            .by_ref()
            .take(MAGIC_LEN as u64)
            .read_to_end(&mut magic)?;
        let is = |prefix: &[u8]| compression != Compression::None && magic.starts_with(prefix);
        let (gzip, zstd) = (
            is(&GZIP_MAGIC),
            is(&ZSTD_MAGIC) || is(&magic) && is_skippable(&magic),
        );
        let source = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic).chain(source));
        Ok(if gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(source)))
        } else if zstd {
            Self::Zstd(Box::new(Zstd::new(source)))
        } else {
            Self::Plain(source)
        })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Zstandard frames one after the other; skippable ones, as zstd:chunked has, are passed over.
pub(crate) struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    within_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            decoder: FrameDecoder::new(),
            within_frame: false,
        }
    }

    /// Goes to the next frame with data; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut magic = [0; MAGIC_LEN];
            self.source.read_exact(&mut magic)?;
            if is_skippable(&magic) {
                let mut len = [0; 4];
                self.source.read_exact(&mut len)?;
                let len = u64::from(u32::from_le_bytes(len));
                if io::copy(&mut self.source.by_ref().take(len), &mut io::sink())? < len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            let mut frame = Cursor::new(magic).chain(&mut self.source);
            self.decoder.reset(&mut frame).map_err(io::Error::other)?;
            self.within_frame = true;
            return Ok(true);
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.within_frame && self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.within_frame && !self.decoder.is_finished() {
                let step = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder
                    .decode_blocks(&mut self.source, step)
                    .map_err(io::Error::other)?;
                continue;
            }
            self.within_frame = false;
            if !self.next_frame()? {
                return Ok(0);
            }
        }
    }
}

fn is_skippable(magic: &[u8]) -> bool {
    magic.first().is_some_and(|first| first >> 4 == 5) && magic.get(1..4) == Some(&ZSTD_SKIPPABLE)
}

/// Buffers between the two threads, of [`BUFFER_BYTES`] each.
const QUEUE_LEN: usize = 8;

/// Runs `consume` on another thread, with what is read from `source` on this one. If `consume` ends
/// early, with an error, no more is read.
pub(crate) fn on_another_thread<T: Send>(
    source: &mut impl Read,
    consume: impl FnOnce(Received) -> Result<T> + Send,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_LEN);
    let (spare_sender, spares) = mpsc::channel();
    thread::scope(|scope| {
        let received = Received {
            receiver,
            spares: spare_sender,
            part: Vec::new(),
            at: 0,
        };
        let consumer = thread::Builder::new()
            .name("layer-writer".to_owned())
            .spawn_scoped(scope, move || consume(received))
            .map_err(|source| Error::Read { source })?;
        feed(source, &sender, &spares);
        drop(sender);
        match consumer.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sends until the end, an error, or nobody listens.
fn feed(
    source: &mut impl Read,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    spares: &Receiver<Vec<u8>>,
) {
    loop {
        let mut part = spares.try_recv().unwrap_or_default();
        part.clear();
        let read = source
            .by_ref()
            .take(BUFFER_BYTES as u64)
            .read_to_end(&mut part);
        let last = !matches!(read, Ok(got) if got > 0);
        let sent = sender.send(read.map(|_| part));
        if last || sent.is_err() {
            return;
        }
    }
}

/// The reading end of [`on_another_thread`].
pub(crate) struct Received {
    receiver: Receiver<io::Result<Vec<u8>>>,
    /// Empty buffers on their way back.
    spares: Sender<Vec<u8>>,
    part: Vec<u8>,
    at: usize,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.part.len() {
            self.at = 0;
            // The sender is gone after its last word, which was an empty part or an error.
            let next = self.receiver.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            // Nobody takes buffers back any more when the source has ended.
            let _ = self.spares.send(std::mem::replace(&mut self.part, next));
        }
        let got = self.part.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += got;
        Ok(got)
    }
}
