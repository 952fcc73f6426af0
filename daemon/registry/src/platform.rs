//! Platforms, and which of an index's images runs on one.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Operating system, processor and its variant, in the names of Go (`GOOS`, `GOARCH`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v7`, `v8`, …; for a wish, none means the architecture's usual one.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn native() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an image of platform `self` serves a wish: lower is better, none not at all.
    ///
    /// As containerd ranks: an older arm variant runs on a newer processor, arm64 means v8, and a
    /// variant that nobody asked for serves if nothing better does.
    pub(crate) fn rank(&self, wish: &Self) -> Option<u32> {
        if self.os != wish.os || self.architecture != wish.architecture {
            return None;
        }
        let variant = |platform: &Self| {
            let given = platform
                .variant
                .clone()
                .filter(|variant| !variant.is_empty());
            given.or_else(|| match platform.architecture.as_str() {
                "arm64" => Some("v8".to_owned()),
                "arm" => Some("v7".to_owned()),
                "amd64" => Some("v1".to_owned()),
                _ => None,
            })
        };
        let (has, wants) = (variant(self), variant(wish));
        if has == wants {
            return Some(0);
        }
        let level = |variant: &Option<String>| -> Option<u32> {
            variant.as_deref()?.strip_prefix('v')?.parse().ok()
        };
        match (level(&has), level(&wants)) {
            (Some(has), Some(wants)) => wants.checked_sub(has),
            // 1000: after every level that fits.
            (_, None) => Some(1000),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/architecture[/variant]`, also with the kernel's names for processors.
    fn from_str(text: &str) -> Result<Self, Error> {
        /// The longest that any part needs to be, in bytes.
        const PART_BYTES_MAX: usize = 32;
        let invalid = || Error::Platform {
            text: text.chars().take(80).collect(),
        };
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            (1..=PART_BYTES_MAX).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(invalid());
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_lowercase())),
            _ => return Err(invalid()),
        };
        let architecture = match architecture.to_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "armhf" => "arm".to_owned(),
            "i386" => "386".to_owned(),
            other => other.to_owned(),
        };
        Ok(Self {
            os: os.to_lowercase(),
            architecture,
            variant,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_ranked_for_a_wish() {
        let check = |has: &str, wish: &str, rank: Option<u32>| {
            let (has, wish): (Platform, Platform) = (has.parse().unwrap(), wish.parse().unwrap());
            assert_eq!(has.rank(&wish), rank, "{has} for {wish}");
        };
        check("linux/amd64", "linux/amd64", Some(0));
        check("linux/amd64/v1", "linux/amd64", Some(0));
        check("linux/amd64/v3", "linux/amd64", None);
        check("linux/arm64", "linux/arm64/v8", Some(0));
        check("linux/arm64/v8", "linux/arm64", Some(0));
        check("linux/arm/v6", "linux/arm/v7", Some(1));
        check("linux/arm/v5", "linux/arm", Some(2));
        check("linux/arm/v7", "linux/arm/v6", None);
        check("windows/amd64", "linux/amd64", None);
        check("linux/arm64", "linux/amd64", None);
        check("linux/riscv64/x", "linux/riscv64", Some(1000));
    }

    #[test]
    fn platforms_are_read_and_shown() {
        let check = |text: &str, shown: Option<&str>| {
            assert_eq!(
                text.parse::<Platform>()
                    .ok()
                    .map(|p| p.to_string())
                    .as_deref(),
                shown
            );
        };
        check("linux/amd64", Some("linux/amd64"));
        check("linux/x86_64", Some("linux/amd64"));
        check("Linux/aarch64/V8", Some("linux/arm64/v8"));
        check("linux", None);
        check("linux/", None);
        check("a/b/c/d", None);
        check("linux/a b", None);
    }
}
