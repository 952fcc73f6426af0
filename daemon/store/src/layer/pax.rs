//! Extended headers of POSIX.1-2001 (pax): `<length> <key>=<value>\n`, by length.
//!
//! The tar crate splits them at line ends, which breaks binary values such as
//! `SCHILY.xattr.security.capability`, so they are parsed here.

use std::collections::BTreeMap;

/// Longest extended header, in bytes. Go's reader, and so Docker, has the same bound.
pub(crate) const HEADER_BYTES_MAX: u64 = 1 << 20;

/// What one entry's extended headers say. A later record of the same key replaces an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Data segments of a sparse file of GNU format 0.0, which repeats its keys.
    segments: Vec<u64>,
}

impl Pax {
    /// Adds the records of a header; an error says what is wrong.
    pub(crate) fn extend(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() && bytes.first() != Some(&0) {
            let (key, value, rest) = split_record(bytes).ok_or("malformed pax record")?;
            bytes = rest;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    self.segments
                        .push(number(value).ok_or("malformed pax sparse map")?);
                }
                _ => drop(self.records.insert(key.to_vec(), value.to_vec())),
            }
        }
        Ok(())
    }

    /// Value of a key. An empty value removes what the plain header says, which nobody uses: it
    /// counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        self.records
            .get(key.as_bytes())
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }

    /// A decimal value.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.get(key)
            .map(|value| number(value).ok_or_else(|| format!("malformed pax {key}")))
            .transpose()
    }

    /// A time in seconds, with a fraction: seconds and nanoseconds since the epoch.
    pub(crate) fn time(&self, key: &str) -> Result<Option<(i64, u32)>, String> {
        self.get(key)
            .map(|value| time(value).ok_or_else(|| format!("malformed pax {key}")))
            .transpose()
    }

    /// Offsets and lengths in turn, if the file is sparse by format 0.0.
    pub(crate) fn segments(&self) -> &[u64] {
        &self.segments
    }

    /// Extended attributes: name and value.
    pub(crate) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.")?;
            (!name.is_empty()).then_some((name, value.as_slice()))
        })
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(number(bytes.get(..space)?)?).ok()?;
    let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
    (!key.is_empty()).then_some((key, value, bytes.get(len..)?))
}

/// A decimal number without sign.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-1.25` is 1.25 s before the epoch: -2 s and 750,000,000 ns.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text
        .strip_prefix(b"-")
        .map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(number(parts.next()?)?).ok()?;
    let mut nanoseconds = 0_u32;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for place in 0..9 {
        let digit = fraction
            .get(place)
            .map_or(0, |digit| u32::from(digit - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_line_ends() {
        let mut pax = Pax::default();
        pax.extend(b"30 SCHILY.xattr.user.a=x\ny\n\0=\n").unwrap();
        let found: Vec<_> = pax.xattrs().collect();
        assert_eq!(found, [(&b"user.a"[..], &b"x\ny\n\0="[..])]);
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("", None),
            ("1.x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            "x",
            "5 a=b",
            "999999 a=b\n",
            "6 ab\n",
            "18446744073709551616 a=b\n",
            "3 =\n",
        ] {
            assert!(Pax::default().extend(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
