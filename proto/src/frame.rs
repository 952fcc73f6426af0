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

/// The largest content of a frame in bytes.
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
    /// Server, last: no more will come (end of logs).
    End = 6,
    /// Server, last: the JSON result of an upload.
    Result = 7,
}
