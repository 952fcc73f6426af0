//! Maps of sparse files: which stretches of a file are in the archive, the rest being holes.

use tar::{GnuSparseHeader, Header};

use super::pax::{self, Pax};

/// Most stretches that one file may have. At 16 bytes each, 4 MiB.
const SEGMENTS_MAX: usize = 1 << 18;

/// A sparse file's stretches of data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map {
    /// Offset in the file and length, in order, not overlapping.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Size of the file.
    pub(crate) size: u64,
}

impl Map {
    /// Checks that `segments` are in order within `size` bytes and hold `data` bytes in all.
    pub(crate) fn new(segments: Vec<(u64, u64)>, size: u64, data: u64) -> Result<Self, String> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, len) in &segments {
            let next = offset
                .checked_add(*len)
                .filter(|next| *offset >= end && *next <= size);
            end = next.ok_or("sparse map is out of order or beyond the file")?;
            // Cannot overflow: the stretches do not overlap and end within `size`.
            sum += len;
        }
        if sum == data {
            Ok(Self { segments, size })
        } else {
            Err("sparse map does not match the entry's size".to_owned())
        }
    }
}

/// Collects the numbers of a map, offsets and lengths in turn.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Adds a stretch.
    pub(crate) fn push(&mut self, offset: u64, len: u64) -> Result<(), String> {
        if self.0.len() >= SEGMENTS_MAX {
            return Err(format!(
                "sparse file has more than {SEGMENTS_MAX} stretches of data"
            ));
        }
        self.0.push((offset, len));
        Ok(())
    }

    /// Adds those of a GNU header; one with an empty field ends the list.
    pub(crate) fn extend(&mut self, headers: &[GnuSparseHeader]) -> Result<(), String> {
        for header in headers.iter().take_while(|header| !header.is_empty()) {
            let number = |result: std::io::Result<u64>| result.map_err(|error| error.to_string());
            self.push(number(header.offset())?, number(header.length())?)?;
        }
        Ok(())
    }

    /// The stretches.
    pub(crate) fn into_segments(self) -> Vec<(u64, u64)> {
        self.0
    }
}

/// How a pax header says that a file is sparse.
#[derive(Debug)]
pub(crate) enum PaxSparse {
    /// Formats 0.0 and 0.1: the map is in the header.
    Map(Vec<(u64, u64)>, u64),
    /// Format 1.0: the map stands before the data; the file's size.
    InData(u64),
}

/// Reads what a pax header says of sparseness.
pub(crate) fn of_pax(pax: &Pax) -> Result<Option<PaxSparse>, String> {
    if pax.get("GNU.sparse.major") == Some(b"1") {
        let size = pax
            .number("GNU.sparse.realsize")?
            .ok_or("sparse file without a size")?;
        return Ok(Some(PaxSparse::InData(size)));
    }
    let Some(size) = pax.number("GNU.sparse.size")? else {
        return Ok(None);
    };
    let listed: Vec<u64> = match pax.get("GNU.sparse.map") {
        Some(map) => map
            .split(|byte| *byte == b',')
            .map(pax::number)
            .collect::<Option<_>>()
            .ok_or("malformed pax sparse map")?,
        None => pax.segments().to_vec(),
    };
    let mut numbers = Numbers::default();
    for pair in listed.chunks(2) {
        match *pair {
            [offset, len] => numbers.push(offset, len)?,
            _ => return Err("pax sparse map has an odd count".to_owned()),
        }
    }
    Ok(Some(PaxSparse::Map(numbers.into_segments(), size)))
}

/// Whether a header is that of an old GNU sparse file.
pub(crate) fn is_gnu(header: &Header) -> bool {
    header.entry_type().is_gnu_sparse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_be_in_order_within_the_file_and_complete() {
        assert!(Map::new(vec![(0, 5), (10, 5)], 20, 10).is_ok());
        assert!(Map::new(vec![], 20, 0).is_ok());
        for (segments, size, data) in [
            (vec![(10, 5), (0, 5)], 20, 10),
            (vec![(0, 6), (5, 5)], 20, 11),
            (vec![(0, 5)], 4, 5),
            (vec![(u64::MAX, 5)], u64::MAX, 5),
            (vec![(0, 5)], 20, 6),
        ] {
            assert!(Map::new(segments, size, data).is_err());
        }
    }
}
