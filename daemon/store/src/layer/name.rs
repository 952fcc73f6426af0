//! Names of tar entries: cleaned as Docker cleans them, or refused, and whiteouts recognised.

/// Longest path of an entry, in bytes (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;

/// Longest component, in bytes (NAME_MAX).
const COMPONENT_BYTES_MAX: usize = 255;

/// Whiteouts begin so (OCI image specification, layer.md).
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// Names of AUFS itself begin so; all but the next are without meaning.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// Hides what lower layers have in its directory.
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// A path beneath the layer's root: no leading slash, no `.` or `..`, empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(Vec<u8>);

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An ordinary entry.
    Plain(Name),
    /// The removal of this name.
    Whiteout(Name),
    /// The removal of everything that lower layers have in this directory.
    Opaque(Name),
    /// Nothing.
    Ignored,
}

impl Name {
    /// Cleans a path: an absolute one is taken from the root, `a/../b` is `b`. One that leaves the
    /// root, or is too long for Linux, is refused; the error says why.
    pub(crate) fn clean(path: &[u8]) -> Result<Self, String> {
        if path.contains(&0) {
            return Err("its name holds a NUL byte".to_owned());
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop().ok_or("it leads out of the layer")?;
                }
                _ if part.len() > COMPONENT_BYTES_MAX => {
                    let len = part.len();
                    return Err(format!(
                        "a component of its name is {len} bytes, more than {COMPONENT_BYTES_MAX}"
                    ));
                }
                _ => parts.push(part),
            }
        }
        let name = parts.join(&b'/');
        if name.len() > PATH_BYTES_MAX {
            let len = name.len();
            return Err(format!(
                "its name is {len} bytes, more than {PATH_BYTES_MAX}"
            ));
        }
        Ok(Self(name))
    }

    /// The root.
    pub(crate) const fn root() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory that holds it, and its name there. The root has neither.
    pub(crate) fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (dir, file) = self.0.split_at(slash);
                (Self(dir.to_vec()), file.get(1..).unwrap_or_default())
            }
            None => (Self::root(), &self.0),
        })
    }

    /// The name `file` in this directory.
    pub(crate) fn join(&self, file: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(file);
        Self(path)
    }

    /// What an entry of this name asks for.
    pub(crate) fn meaning(self) -> Result<Meaning, String> {
        let Some((dir, file)) = self.split() else {
            return Ok(Meaning::Plain(self));
        };
        if file == OPAQUE_MARK {
            return Ok(Meaning::Opaque(dir));
        }
        if file.starts_with(AUFS_PREFIX) {
            return Ok(Meaning::Ignored);
        }
        match file.strip_prefix(WHITEOUT_PREFIX) {
            None => Ok(Meaning::Plain(self)),
            Some(b"" | b"." | b"..") => Err("it is a whiteout of nothing".to_owned()),
            Some(hidden) => Ok(Meaning::Whiteout(dir.join(hidden))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        for (path, expected) in [
            ("a/b", Some("a/b")),
            ("/a//./b/", Some("a/b")),
            ("./", Some("")),
            ("/", Some("")),
            ("a/../b", Some("b")),
            ("..", None),
            ("../a", None),
            ("a/../../b", None),
            ("/../etc/passwd", None),
            ("a\0b", None),
        ] {
            let cleaned = Name::clean(path.as_bytes()).ok();
            assert_eq!(
                cleaned.as_ref().map(Name::as_bytes),
                expected.map(str::as_bytes),
                "{path}"
            );
        }
        assert!(Name::clean(&[b'a'; 255]).is_ok());
        assert!(Name::clean(&[b'a'; 256]).is_err());
        assert!(Name::clean(&b"ab/".repeat(2000)).is_err());
    }

    #[test]
    fn whiteouts_are_recognised_and_never_lead_elsewhere() {
        let meaning = |path: &str| Name::clean(path.as_bytes()).unwrap().meaning();
        let name = |path: &str| Name(path.as_bytes().to_vec());
        assert_eq!(meaning("a/.wh.b"), Ok(Meaning::Whiteout(name("a/b"))));
        assert_eq!(meaning(".wh.b"), Ok(Meaning::Whiteout(name("b"))));
        assert_eq!(meaning("a/.wh..wh..opq"), Ok(Meaning::Opaque(name("a"))));
        assert_eq!(meaning(".wh..wh..opq"), Ok(Meaning::Opaque(name(""))));
        assert_eq!(meaning(".wh..wh.plnk"), Ok(Meaning::Ignored));
        assert_eq!(meaning("a/.whb"), Ok(Meaning::Plain(name("a/.whb"))));
        for bad in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(meaning(bad).is_err(), "{bad}");
        }
    }
}
