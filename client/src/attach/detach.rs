//! Keys that detach from a terminal without ending what runs in it.
//!
//! The sequence is looked for in what is typed. A key that may begin it is held back until the next
//! one decides; a sequence that breaks off is forwarded whole, so that nothing typed is lost.

use crate::error::Error;

/// Docker's default: Ctrl-P, Ctrl-Q.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// A sequence of keys, and how much of it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Parses Docker's notation: keys between commas, each a character or `ctrl-` with a letter or
    /// one of `@[\]^_`. An empty text means that nothing detaches.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn parse(text: &str) -> Result<DetachKeys, Error> {
        let bad =
            |key: &str| Error::Usage(format!("invalid detach keys {text:?}: unknown key {key:?}"));
        if text.is_empty() {
            return Ok(DetachKeys {
                keys: Vec::new(),
                matched: 0,
            });
        }
        let keys = text.split(',').map(|key| {
            match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
                ([byte], _) => Ok(*byte),
                (_, Some([byte])) if matches!(byte.to_ascii_uppercase(), b'@'..=b'_') => {
                    Ok(byte.to_ascii_uppercase() & 0x1f)
                }
                _ if key == "DEL" => Ok(0x7f),
                _ => Err(bad(key)),
            }
        });
        Ok(DetachKeys {
            keys: keys.collect::<Result<_, _>>()?,
            matched: 0,
        })
    }

    /// Takes typed bytes; appends to `out` those that the container shall get. True means that
    /// the sequence is complete; what follows it is dropped.
    pub fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for byte in typed {
            // A broken-off sequence may contain the beginning of another: forward its first key and
            // look at the rest again, until what is held back fits with this byte.
            while self.matched > 0 && self.keys.get(self.matched) != Some(byte) {
                let longest = self.longest_restart();
                out.extend_from_slice(self.keys.get(..self.matched - longest).unwrap_or_default());
                self.matched = longest;
            }
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
            } else {
                out.push(*byte);
            }
            if self.matched == self.keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }

    /// Takes back the keys that are held, for the end of the input.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
        self.matched = 0;
    }

    /// The longest proper end of the matched part that is also a beginning of the sequence.
    fn longest_restart(&self) -> usize {
        let matched = self.keys.get(..self.matched).unwrap_or_default();
        (0..self.matched)
            .rev()
            .find(|len| {
                self.keys
                    .starts_with(matched.get(self.matched - len..).unwrap_or(matched))
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_as_dockers() {
        let keys = |text: &str| {
            DetachKeys::parse(text)
                .map(|keys| keys.keys)
                .map_err(|error| error.to_string())
        };
        assert_eq!(keys(DEFAULT), Ok(vec![16, 17]));
        assert_eq!(keys("a,b"), Ok(vec![b'a', b'b']));
        assert_eq!(
            keys("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_"),
            Ok(vec![0, 27, 28, 29, 30, 31])
        );
        assert_eq!(keys("DEL"), Ok(vec![127]));
        assert_eq!(keys(""), Ok(vec![]));
        for bad in [
            "ctrl-", "ctrl-ab", "ctrl-é", "é", "a,,b", "shift-x", "ctrl-1",
        ] {
            assert!(
                keys(bad).is_err_and(|text| text.contains("invalid detach keys")),
                "{bad}"
            );
        }
    }

    fn check(keys: &str, typed: &[&str], forwarded: &str, detached: bool) {
        let mut filter = DetachKeys::parse(keys).unwrap();
        let mut out = Vec::new();
        let done = typed
            .iter()
            .any(|part| filter.filter(part.as_bytes(), &mut out));
        if !done {
            filter.flush(&mut out);
        }
        assert_eq!(
            (out.as_slice(), done),
            (forwarded.as_bytes(), detached),
            "{keys} {typed:?}"
        );
    }

    #[test]
    fn only_the_whole_sequence_detaches_and_nothing_typed_is_lost() {
        check("ctrl-p,ctrl-q", &["ls\r\x10\x11rest"], "ls\r", true);
        check("ctrl-p,ctrl-q", &["a\x10", "\x11"], "a", true);
        check("ctrl-p,ctrl-q", &["\x10", "x"], "\x10x", false);
        check("ctrl-p,ctrl-q", &["\x10\x10\x11"], "\x10", true);
        check("ctrl-p,ctrl-q", &["\x11\x10"], "\x11\x10", false);
        check("a,a,b", &["aaab"], "a", true);
        check("a,b,a,c", &["ababac"], "ab", true);
        check("", &["\x10\x11"], "\x10\x11", false);
    }
}
