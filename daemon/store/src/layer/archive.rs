//! Reading a tar archive, entry by entry, in bounded memory.
//!
//! Headers are decoded by the tar crate; the walk over them is ours, because that crate's reader
//! takes extension headers of any length into memory and splits pax records at line ends. Taken:
//! old, ustar, GNU (long names, sparse) and pax (names, owners, times, attributes, sparse 0.0, 0.1
//! and 1.0). As in Docker's reader, an archive ends at a block of zeros or at the end of the stream,
//! global pax headers are passed over, and links, directories and devices have no data.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::pax::{HEADER_BYTES_MAX, Pax};
use super::sparse::{self, Map, Numbers, PaxSparse};
use crate::error::{Error, Result};

const BLOCK_LEN: u64 = 512;

/// Extension headers that may precede one entry. Real ones have four at most.
const EXTENSIONS_MAX: usize = 16;

/// Size of a file that Linux can hold, in bytes.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Device,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
    /// Size of the file.
    pub(crate) size: u64,
    /// Where its data belongs, if it has holes.
    pub(crate) sparse: Option<Map>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// The name for a message.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// A walk over an archive. After [`Archive::next`], [`Archive::read`] gives the entry's data; what
/// of it is not read is passed over.
pub(crate) struct Archive<R> {
    source: R,
    offset: u64,
    /// Bytes of data left of the entry, and of padding behind it.
    data: u64,
    padding: u64,
}

/// Extension headers met before an entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            offset: 0,
            data: 0,
            padding: 0,
        }
    }

    /// The stream behind the archive.
    pub(crate) fn into_inner(self) -> R {
        self.source
    }

    /// The next entry; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..EXTENSIONS_MAX {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let size = self.check(field(&header.as_old().size, || header.entry_size()))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let bytes = self.extension(size)?;
                    extensions
                        .pax
                        .extend(&bytes)
                        .map_err(|what| self.error(what))?;
                }
                // Bounded as the others are, and passed over.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                kind => return self.entry(&header, kind, size, extensions).map(Some),
            }
        }
        Err(self.error(format!(
            "more than {EXTENSIONS_MAX} extension headers for one entry"
        )))
    }

    /// Reads data of the entry. Returns 0 at its end only.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.data)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let Some(buffer) = buffer.get_mut(..want) else {
            return Ok(0);
        };
        let got = loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|source| Error::Read { source })?,
            }
        };
        if got == 0 {
            return Err(self.error("archive ends within an entry"));
        }
        self.offset += got as u64;
        self.data -= got as u64;
        Ok(got)
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry> {
        let Extensions { path, link, pax } = extensions;
        let text = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        let path = text(pax.get("GNU.sparse.name"))
            .or_else(|| text(pax.get("path")))
            .or(path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = text(pax.get("linkpath"))
            .or(link)
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            .unwrap_or_default();
        let kind = kind_of(kind, &path).ok_or_else(|| {
            self.error(format!("unknown entry type {:?}", kind.as_byte() as char))
        })?;
        let data = match kind {
            Kind::File => self.check(pax.number("size"))?.unwrap_or(size),
            _ => 0,
        };
        if data > FILE_BYTES_MAX {
            return Err(self.error("entry is larger than any file"));
        }
        self.data = data;
        self.padding = data.wrapping_neg() % BLOCK_LEN;
        let sparse = if kind == Kind::File {
            self.sparse(header, &pax)?
        } else {
            None
        };
        let old = header.as_old();
        let (uid, gid) = (
            field(&old.uid, || header.uid()),
            field(&old.gid, || header.gid()),
        );
        let mtime = field(&old.mtime, || header.mtime());
        let mtime = mtime.map(|seconds| (seconds.cast_signed(), 0));
        let mode = field(&old.mode, || header.mode().map(u64::from));
        // Higher bits are the file's type, as some writers put it there.
        let mode = u32::try_from(self.check(mode)? & 0o7777).unwrap_or_default();
        Ok(Entry {
            kind,
            mode,
            uid: self.check(pax.number("uid").and_then(|pax| pax.map_or(uid, Ok)))?,
            gid: self.check(pax.number("gid").and_then(|pax| pax.map_or(gid, Ok)))?,
            mtime: self.check(pax.time("mtime").and_then(|pax| pax.map_or(mtime, Ok)))?,
            size: sparse.as_ref().map_or(data, |map| map.size),
            sparse,
            xattrs: pax
                .xattrs()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
            path,
            link,
        })
    }

    /// The map of a sparse file. What of it stands in the data is read.
    fn sparse(&mut self, header: &Header, pax: &Pax) -> Result<Option<Map>> {
        let (segments, size) = match self.check(sparse::of_pax(pax))? {
            Some(PaxSparse::Map(segments, size)) => (segments, size),
            Some(PaxSparse::InData(size)) => (self.sparse_map_in_data()?, size),
            None if sparse::is_gnu(header) => self.gnu_sparse_map(header)?,
            None => return Ok(None),
        };
        if size > FILE_BYTES_MAX {
            return Err(self.error("sparse file is larger than any file"));
        }
        self.check(Map::new(segments, size, self.data)).map(Some)
    }

    /// Format 1.0: decimal numbers, a line each, the first their count, padded to a block.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>> {
        let before = self.data;
        let count = self.decimal_line()?;
        let mut numbers = Numbers::default();
        for _ in 0..count {
            let (offset, len) = (self.decimal_line()?, self.decimal_line()?);
            self.check(numbers.push(offset, len))?;
        }
        let rest = (before - self.data).wrapping_neg() % BLOCK_LEN;
        self.data = self
            .data
            .checked_sub(rest)
            .ok_or_else(|| self.error("sparse map is cut off"))?;
        self.pass(rest)?;
        Ok(numbers.into_segments())
    }

    fn decimal_line(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        let mut byte = [0];
        while self.read(&mut byte)? == 1 {
            match byte {
                [b'\n'] => {
                    return self.check(super::pax::number(&digits).ok_or("malformed sparse map"));
                }
                [digit] if digits.len() < 20 => digits.push(digit),
                _ => break,
            }
        }
        Err(self.error("malformed sparse map"))
    }

    /// Old GNU format: four stretches in the header, the others in blocks between it and the data.
    fn gnu_sparse_map(&mut self, header: &Header) -> Result<(Vec<(u64, u64)>, u64)> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| self.error("sparse entry without a GNU header"))?;
        let size = self.check(gnu.real_size().map_err(|error| error.to_string()))?;
        let mut numbers = Numbers::default();
        self.check(numbers.extend(&gnu.sparse))?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            if !self.block(block.as_mut_bytes())? {
                return Err(self.error("archive ends within a sparse map"));
            }
            // A block without a stretch ends the list, whatever it says of more.
            more = block.is_extended() && block.sparse().iter().any(|part| !part.is_empty());
            self.check(numbers.extend(block.sparse()))?;
        }
        Ok((numbers.into_segments(), size))
    }

    /// The next header that is not zeros, its checksum verified.
    fn next_header(&mut self) -> Result<Option<Header>> {
        let left = self.data.saturating_add(self.padding);
        self.data = 0;
        self.padding = 0;
        self.pass(left)?;
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum's own eight bytes count as spaces. Some old writers summed signed bytes.
        let others = || {
            bytes
                .iter()
                .enumerate()
                .filter(|(at, _)| !(148..156).contains(at))
        };
        let unsigned: i64 = 256 + others().map(|(_, byte)| i64::from(*byte)).sum::<i64>();
        let signed: i64 = 256
            + others()
                .map(|(_, byte)| i64::from(byte.cast_signed()))
                .sum::<i64>();
        let told = self.check(field(&header.as_old().cksum, || {
            header.cksum().map(u64::from)
        }))?;
        // Eight octal digits: it fits.
        let told = i64::try_from(told).unwrap_or(i64::MAX);
        if told != unsigned && told != signed {
            return Err(self.error("header checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// A GNU long name, up to its NUL.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        name.truncate(
            name.iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len()),
        );
        Ok(name)
    }

    /// The data of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > HEADER_BYTES_MAX {
            let what = format!("extension header of {size} bytes, more than {HEADER_BYTES_MAX}");
            return Err(self.error(what));
        }
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK_LEN;
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let got = self.read(&mut part)?;
            match part.get(..got) {
                Some(part) if got > 0 => bytes.extend_from_slice(part),
                _ => return Ok(bytes),
            }
        }
    }

    /// Reads one block; false if the stream ends before it.
    fn block(&mut self, block: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.error("archive ends within a header")),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Read { source }),
            }
        }
        self.offset += filled as u64;
        Ok(true)
    }

    fn pass(&mut self, len: u64) -> Result<()> {
        let passed = io::copy(&mut self.source.by_ref().take(len), &mut io::sink())
            .map_err(|source| Error::Read { source })?;
        self.offset += passed;
        if passed < len {
            return Err(self.error("archive ends within an entry"));
        }
        Ok(())
    }

    fn check<T, E: Into<String>>(&self, result: Result<T, E>) -> Result<T> {
        result.map_err(|what| self.error(what))
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::Archive {
            what: what.into(),
            offset: self.offset,
        }
    }
}

/// A number of a header. A blank field is 0, as in Docker's reader; the tar crate refuses it.
fn field(bytes: &[u8], number: impl FnOnce() -> io::Result<u64>) -> Result<u64, String> {
    if bytes.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    // The tar crate's text quotes the bytes, whatever they are.
    number().map_err(|_| "a number in a header is malformed".to_owned())
}

fn kind_of(kind: EntryType, path: &[u8]) -> Option<Kind> {
    Some(match kind {
        // Before ustar a directory was a file whose name ends in a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        _ => return None,
    })
}
