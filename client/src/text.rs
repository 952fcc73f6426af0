//! Text from elsewhere, made safe and fit for a terminal; and the way to stdout.
//!
//! Names, labels, references and error messages may come from a hostile image. A control character
//! in them could move the cursor, rename the window or fake a prompt, so tables and errors show it
//! escaped. Logs and attached streams are not touched: there the bytes are the point.

use std::io::{self, Write};

use crate::error::Error;

/// The text with every control and invisible formatting character escaped.
pub fn printable(text: &str) -> String {
    if text.chars().all(|c| !is_harmful(c)) {
        return text.to_owned();
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            push(&mut out, c);
            out
        })
}

/// The same, but line ends stay: for messages of several lines.
pub fn printable_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        if c == '\n' {
            out.push(c)
        } else {
            push(&mut out, c)
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    if is_harmful(c) {
        out.extend(c.escape_default());
    } else {
        out.push(c);
    }
}

/// Control characters, and those that reorder or hide text (Unicode bidirectional controls).
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text cut to `max` characters, the last one an ellipsis if anything was cut.
pub fn ellipsis(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// How many digits of an id are shown.
pub const SHORT_ID_LEN: usize = 12;

/// The first digits of a container's or image's id, without the algorithm in front.
pub fn short_id(id: &str) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    printable(&digits.chars().take(SHORT_ID_LEN).collect::<String>())
}

/// Writes text to stdout, whole.
///
/// # Errors
/// [`Error::OutputClosed`] if the reader has gone (`rc ps | head -1`).
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| output_error("write to stdout", source))
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`print`].
pub fn print_line(line: &str) -> Result<(), Error> {
    print(&format!("{line}\n"))
}

/// Writes text to stderr. There is nowhere to report a failure to, so none is.
pub fn warn(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The error for a failed write to one of our own descriptors.
pub fn output_error(operation: &'static str, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::BrokenPipe {
        return Error::OutputClosed;
    }
    Error::Io { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("plain é"), "plain é");
        assert_eq!(printable("a\u{1b}[31mb\r\n"), "a\\u{1b}[31mb\\r\\n");
        assert_eq!(printable("x\u{202e}y\u{9b}"), "x\\u{202e}y\\u{9b}");
        assert_eq!(printable_lines("one\ntwo\u{7}\n"), "one\ntwo\\u{7}");
    }

    #[test]
    fn ids_and_long_texts_are_cut() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
