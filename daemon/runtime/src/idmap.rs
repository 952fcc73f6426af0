//! Id maps of the user namespace that the daemon is in.
//!
//! For `rc info`, and for settings whose range depends on what is mapped. Format:
//! `user_namespaces(7)`, "/proc/pid/uid_map": lines of first id inside, first id outside, count.

use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// One line of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// User and group ids of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<Range>,
    /// Group ids.
    pub gids: Vec<Range>,
}

impl IdMaps {
    /// Reads this process's maps.
    ///
    /// # Errors
    /// [`Error::Proc`] if `/proc` is missing or says something unknown.
    pub fn current() -> Result<Self, Error> {
        Ok(Self {
            uids: read("/proc/self/uid_map")?,
            gids: read("/proc/self/gid_map")?,
        })
    }

    /// The highest mapped group id; 0 if none is.
    pub fn gid_max(&self) -> u32 {
        self.gids
            .iter()
            .map(|r| r.inside.saturating_add(r.count.saturating_sub(1)))
            .max()
            .unwrap_or(0)
    }
}

fn read(path: &str) -> Result<Vec<Range>, Error> {
    let failed = |source| Error::Proc {
        path: PathBuf::from(path),
        source,
    };
    let text = std::fs::read_to_string(Path::new(path)).map_err(failed)?;
    parse(&text).ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidData)))
}

fn parse(text: &str) -> Option<Vec<Range>> {
    text.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Range> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    let range = Range {
        inside: next()?,
        outside: next()?,
        count: next()?,
    };
    numbers.next().is_none().then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_parse_as_the_kernel_prints_them() {
        let text = "         0       1500          1\n         1     300000      65536\n";
        let ranges = parse(text).unwrap();
        assert_eq!(
            ranges[1],
            Range {
                inside: 1,
                outside: 300_000,
                count: 65_536
            }
        );
        let maps = IdMaps {
            uids: Vec::new(),
            gids: ranges,
        };
        assert_eq!(maps.gid_max(), 65_536);
    }

    #[test]
    fn the_initial_namespace_maps_everything() {
        let maps = IdMaps {
            uids: Vec::new(),
            gids: parse("0 0 4294967295").unwrap(),
        };
        assert_eq!(maps.gid_max(), u32::MAX - 1);
        assert_eq!(IdMaps::default().gid_max(), 0);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["0 1", "0 1 2 3", "a 1 2", "0 0 4294967296", "-1 0 1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_has_maps() {
        assert!(!IdMaps::current().unwrap().uids.is_empty());
    }
}
