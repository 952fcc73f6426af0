//! Owners: which ids this process can give to files.

use std::fs;

/// Whether a layer's owners are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Every entry gets its owner; one that is outside the id map is an error.
    #[default]
    Preserve,
    /// Everything belongs to this process. For a process that is root in no user namespace, which
    /// has nothing to run containers with: for tests and for looking into an image.
    Ignore,
}

/// Ids that exist in this process's user namespace (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// First id and count.
    extents: Vec<(u64, u64)>,
}

impl IdMap {
    /// The map of users, or of groups.
    pub(crate) fn of_this_process(file: &str) -> Self {
        // Without /proc nothing is known, and chown(2) itself decides.
        fs::read_to_string(format!("/proc/self/{file}")).map_or(
            Self {
                extents: vec![(0, u64::from(u32::MAX))],
            },
            |text| Self::parse(&text),
        )
    }

    fn parse(text: &str) -> Self {
        let extent = |line: &str| {
            let mut fields = line.split_whitespace();
            let first = fields.next()?.parse().ok()?;
            Some((first, fields.nth(1)?.parse().ok()?))
        };
        Self {
            extents: text.lines().filter_map(extent).collect(),
        }
    }

    /// The id, if a file can have it.
    pub(crate) fn id(&self, id: u64) -> Option<u32> {
        let within = |(first, count): &(u64, u64)| id >= *first && id - first < *count;
        self.extents
            .iter()
            .any(within)
            .then(|| u32::try_from(id).ok())
            .flatten()
    }

    /// The ids for a message: `0-65535`.
    pub(crate) fn ranges(&self) -> String {
        let range = |(first, count): &(u64, u64)| {
            format!("{first}-{}", first.saturating_add(count.saturating_sub(1)))
        };
        self.extents
            .iter()
            .map(range)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_map_have_no_owner() {
        let map =
            IdMap::parse("         0       1500          1\n         1     300000      65536\n");
        assert_eq!(map.id(0), Some(0));
        assert_eq!(map.id(65536), Some(65536));
        assert_eq!(map.id(65537), None);
        assert_eq!(map.id(u64::MAX), None);
        assert_eq!(map.ranges(), "0-0, 1-65536");
    }
}
