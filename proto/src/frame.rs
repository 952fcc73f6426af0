//! Frames of an upgraded connection: how bytes of a terminal, a log or a tar travel.
//!
//! Each frame is an 8-byte header, then its content. The header has the shape of Docker's stream
//! multiplexing: kind, three zero bytes, length in big-endian. Stdin, stdout and stderr have
//! Docker's numbers.
//!
//! ```text
//! byte    0      1..4    4..8          8..
//!       ┌──────┬───────┬─────────────┬─────────
//!       │ kind │ 0 0 0 │ length (BE) │ content
//!       └──────┴───────┴─────────────┴─────────
//! ```
//!
//! [`encode`] appends a frame to a buffer; [`Decoder`] takes bytes as they come and gives frames
//! back. A decoder holds at most one frame beside the bytes of the last call of
//! [`Decoder::extend`], if its owner takes all frames before it adds more.

/// The largest content of a frame in bytes: what one read of a pipe gives at most.
pub const CONTENT_BYTES_MAX: usize = 64 << 10;

/// Length of a header in bytes.
pub const HEADER_BYTES: usize = 8;

/// What a frame carries, and who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: input. An empty one ends the input.
    Stdin = 0,
    /// Server: standard output, or all output of a terminal.
    Stdout = 1,
    /// Server: standard error.
    Stderr = 2,
    /// Server, last: it failed. Content is the JSON of an error, `{"error":…,"parameters":…}`.
    Error = 3,
    /// Client: new size of the terminal: rows, then columns, each u16 big-endian.
    Resize = 4,
    /// Server, last: the process ended. Content is its exit code, i32 big-endian.
    Exit = 5,
    /// Server, last: no more will come (end of logs, or the container was detached from).
    End = 6,
    /// Server, last: the JSON result of an upload.
    Result = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            0 => Kind::Stdin,
            1 => Kind::Stdout,
            2 => Kind::Stderr,
            3 => Kind::Error,
            4 => Kind::Resize,
            5 => Kind::Exit,
            6 => Kind::End,
            7 => Kind::Result,
            _ => return None,
        })
    }

    /// Whether the server sends nothing after a frame of this kind.
    pub fn is_last(self) -> bool {
        matches!(self, Kind::Error | Kind::Exit | Kind::End | Kind::Result)
    }
}

/// Bytes that are no frame. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is none of ours.
    #[error("unknown kind of frame: {0}")]
    UnknownKind(u8),
    /// The three bytes after the kind are not zero.
    #[error("malformed header of a frame")]
    Malformed,
    /// The content is longer than [`CONTENT_BYTES_MAX`].
    #[error("a frame of {0} bytes is longer than the {CONTENT_BYTES_MAX} allowed")]
    TooLong(u32),
}

/// Kind and length of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it carries.
    pub kind: Kind,
    /// Length of its content in bytes, at most [`CONTENT_BYTES_MAX`].
    pub len: usize,
}

impl Header {
    /// The header's bytes. `len` beyond [`CONTENT_BYTES_MAX`] is refused by every decoder.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = u32::try_from(self.len).unwrap_or(u32::MAX).to_be_bytes();
        [self.kind as u8, 0, 0, 0, a, b, c, d]
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// Any [`FrameError`].
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let [kind, x, y, z, a, b, c, d] = bytes;
        let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
        if [x, y, z] != [0, 0, 0] {
            return Err(FrameError::Malformed);
        }
        let len = u32::from_be_bytes([a, b, c, d]);
        match usize::try_from(len) {
            Ok(len) if len <= CONTENT_BYTES_MAX => Ok(Header { kind, len }),
            _ => Err(FrameError::TooLong(len)),
        }
    }
}

/// Appends `content` to `out`, as one frame, or as several where it is too long for one. An empty
/// content makes one empty frame.
pub fn encode(kind: Kind, content: &[u8], out: &mut Vec<u8>) {
    let mut rest = content;
    loop {
        let (part, after) = rest.split_at(rest.len().min(CONTENT_BYTES_MAX));
        out.extend_from_slice(
            &Header {
                kind,
                len: part.len(),
            }
            .encode(),
        );
        out.extend_from_slice(part);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// The content of a Resize frame.
pub fn encode_size(rows: u16, columns: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (rows.to_be_bytes(), columns.to_be_bytes());
    [a, b, c, d]
}

/// Rows and columns of a Resize frame, if its content is four bytes long.
pub fn decode_size(content: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = <[u8; 4]>::try_from(content).ok()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// The exit code of an Exit frame, if its content is four bytes long.
pub fn decode_exit(content: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(<[u8; 4]>::try_from(content).ok()?))
}

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes before this one were given out.
    taken: usize,
}

impl Decoder {
    /// Adds bytes as they came.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or none until more bytes come.
    ///
    /// # Errors
    ///
    /// Any [`FrameError`]; it repeats at every further call.
    pub fn next_frame(&mut self) -> Result<Option<(Kind, &[u8])>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(*header)?;
        let end = HEADER_BYTES + header.len;
        let Some(content) = rest.get(HEADER_BYTES..end) else {
            return Ok(None);
        };
        self.taken += end;
        Ok(Some((header.kind, content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<(Kind, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((kind, content)) = decoder.next_frame().unwrap() {
            frames.push((kind, content.to_vec()));
        }
        frames
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        encode(Kind::Stdout, b"hello", &mut bytes);
        encode(Kind::Stdin, b"", &mut bytes);
        encode(Kind::Exit, &7i32.to_be_bytes(), &mut bytes);
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            decoder.extend(&bytes[..cut]);
            let mut frames = all(&mut decoder);
            decoder.extend(&bytes[cut..]);
            frames.extend(all(&mut decoder));
            let [out, input, exit] = <[_; 3]>::try_from(frames).unwrap();
            assert_eq!(out, (Kind::Stdout, b"hello".to_vec()));
            assert_eq!(input, (Kind::Stdin, Vec::new()));
            assert_eq!(decode_exit(&exit.1), Some(7));
        }
    }

    #[test]
    fn a_long_content_becomes_several_frames() {
        let mut bytes = Vec::new();
        encode(Kind::Stderr, &vec![b'x'; CONTENT_BYTES_MAX + 1], &mut bytes);
        let mut decoder = Decoder::default();
        decoder.extend(&bytes);
        let lengths: Vec<_> = all(&mut decoder)
            .iter()
            .map(|(_, content)| content.len())
            .collect();
        assert_eq!(lengths, [CONTENT_BYTES_MAX, 1]);
    }

    #[test]
    fn bad_headers_are_refused_at_once() {
        let cases = [
            ([9, 0, 0, 0, 0, 0, 0, 0], FrameError::UnknownKind(9)),
            ([1, 0, 1, 0, 0, 0, 0, 0], FrameError::Malformed),
            ([1, 0, 0, 0, 0, 1, 0, 1], FrameError::TooLong(65_537)),
            (
                [1, 0, 0, 0, 255, 255, 255, 255],
                FrameError::TooLong(u32::MAX),
            ),
        ];
        for (bytes, error) in cases {
            let mut decoder = Decoder::default();
            decoder.extend(&bytes);
            assert_eq!(decoder.next_frame(), Err(error));
            assert_eq!(decoder.next_frame(), Err(error));
        }
    }

    #[test]
    fn sizes_and_codes_of_the_wrong_length_are_none() {
        assert_eq!(decode_size(&encode_size(24, 80)), Some((24, 80)));
        assert_eq!(decode_size(b"123"), None);
        assert_eq!(decode_exit(b"12345"), None);
    }
}
