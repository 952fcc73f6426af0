//! Image references by Docker's rules: `debian:12` is `docker.io/library/debian:12`.
//!
//! ```text
//!   reference  = [domain "/"] path [":" tag] ["@" digest]
//!   domain     = host [":" port], only if it has a dot or a colon, or is `localhost`
//!   path       = component *("/" component)      lower case
//!   component  = alnum *((1*2"_" / "." / 1*"-") alnum)
//!   tag        = [A-Za-z0-9_] *127[A-Za-z0-9_.-]
//!   digest     = "sha256:" 64 hex digits, lower case
//! ```
//! (github.com/distribution/reference, `regexp.go` and `normalize.go`.) Parsing is total: any text
//! gives a reference or an [`Error::Reference`].

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The longest name, domain included, in bytes: `NameTotalLengthMax` of Docker's grammar.
pub const NAME_BYTES_MAX: usize = 255;

/// The longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// The longest text worth parsing in bytes: the longest name, tag and digest with their marks.
const TEXT_BYTES_MAX: usize = NAME_BYTES_MAX + 1 + TAG_BYTES_MAX + 1 + DIGEST_BYTES;

/// Length of `sha256:` and its 64 digits.
const DIGEST_BYTES: usize = 7 + 64;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The name under which old clients know it.
const LEGACY_REGISTRY: &str = "index.docker.io";

/// Where names of one component live at the default registry.
const DEFAULT_NAMESPACE: &str = "library/";

/// The tag of names with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// A full image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// The registry as named: host and perhaps port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, such as `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if the text had neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which wins over a tag.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The short form that people write: without `docker.io`, and without `library/` there.
    pub fn familiar(&self) -> String {
        let mut text = String::new();
        if self.registry == DEFAULT_REGISTRY {
            let short = self.repository.strip_prefix(DEFAULT_NAMESPACE);
            // `library/a/b` is no short name's expansion.
            text.push_str(
                short
                    .filter(|s| !s.contains('/'))
                    .unwrap_or(&self.repository),
            );
        } else {
            text.push_str(&self.registry);
            text.push('/');
            text.push_str(&self.repository);
        }
        self.push_suffix(&mut text);
        text
    }

    /// The host to connect to: Docker's registry answers under another name than its own.
    pub(crate) fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            "registry-1.docker.io"
        } else {
            &self.registry
        }
    }

    /// What the registry's API calls `<reference>`: the digest, else the tag.
    pub(crate) fn api_reference(&self) -> &str {
        self.digest().or(self.tag()).unwrap_or(DEFAULT_TAG)
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut suffix = String::new();
        self.push_suffix(&mut suffix);
        write!(f, "{}/{}{suffix}", self.registry, self.repository)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error::Reference {
            text: shorten(text),
            reason,
        })
    }
}

/// Whether a text is `sha256:` and 64 lower-case hex digits, the one digest that rcd verifies.
pub fn is_sha256_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex_64)
}

fn is_hex_64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Enough of a text to recognise it by, in an error.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err("it is too long");
    }
    if is_hex_64(text) {
        return Err("a name of 64 hex digits would be taken for an image id");
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) if is_sha256_digest(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return Err("its digest is not sha256: and 64 lower-case hex digits"),
    };
    let (registry, rest) = split_registry(rest)?;
    let (repository, tag) = match rest.rsplit_once(':') {
        None => (rest, None),
        Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
        Some(_) => {
            return Err("its tag is not 1 to 128 letters, digits, `_`, `.` or `-`, \
                        the first neither `.` nor `-`");
        }
    };
    check_repository(repository)?;
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("{DEFAULT_NAMESPACE}{repository}")
    } else {
        repository.to_owned()
    };
    if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
        return Err("its name has more than 255 characters");
    }
    let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
    Ok(Reference {
        registry,
        repository,
        tag,
        digest,
    })
}

/// Splits off the registry: the part before the first slash if it looks like a host.
fn split_registry(text: &str) -> Result<(String, &str), &'static str> {
    let Some((first, rest)) = text.split_once('/') else {
        return Ok((DEFAULT_REGISTRY.to_owned(), text));
    };
    let is_host = first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase());
    if !is_host {
        return Ok((DEFAULT_REGISTRY.to_owned(), text));
    }
    if !is_domain(first) {
        return Err("its registry is not a host name or address with an optional port");
    }
    let registry = if first == LEGACY_REGISTRY {
        DEFAULT_REGISTRY
    } else {
        first
    };
    Ok((registry.to_owned(), rest))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let valid = address.parse::<std::net::Ipv6Addr>().is_ok();
                return valid && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let inside = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    bytes.iter().all(inside)
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_BYTES_MAX).contains(&tag.len())
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.bytes().next().is_some_and(word)
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("its repository must be lower case");
    }
    if repository.split('/').all(is_component) {
        Ok(())
    } else {
        Err(
            "its repository is not parts of a-z and 0-9, joined by `.`, `_`, `__` or `-`, \
             with `/` between parts",
        )
    }
}

/// Letters and digits, with separators only between them.
fn is_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends =
        bytes.first().copied().is_some_and(alnum) && bytes.last().copied().is_some_and(alnum);
    ends && component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_take_their_full_and_their_short_form() {
        let check = |text: &str, full: &str, familiar: &str| {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference);
        };
        check("debian", "docker.io/library/debian:latest", "debian:latest");
        check("debian:12", "docker.io/library/debian:12", "debian:12");
        check(
            "library/debian",
            "docker.io/library/debian:latest",
            "debian:latest",
        );
        check(
            "library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        );
        check("me/app:v1.0_x", "docker.io/me/app:v1.0_x", "me/app:v1.0_x");
        check(
            "docker.io/debian",
            "docker.io/library/debian:latest",
            "debian:latest",
        );
        check(
            "index.docker.io/me/a",
            "docker.io/me/a:latest",
            "me/a:latest",
        );
        check("localhost/a", "localhost/a:latest", "localhost/a:latest");
        check(
            "localhost:5000/a/b",
            "localhost:5000/a/b:latest",
            "localhost:5000/a/b:latest",
        );
        check(
            "127.0.0.1:5000/debian:12",
            "127.0.0.1:5000/debian:12",
            "127.0.0.1:5000/debian:12",
        );
        check("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest");
        check("Host/a:1", "Host/a:1", "Host/a:1");
        check(
            "quay.io/a/b__c-d---e.f:1",
            "quay.io/a/b__c-d---e.f:1",
            "quay.io/a/b__c-d---e.f:1",
        );
        let pinned = format!("debian@{DIGEST}");
        check(&pinned, &format!("docker.io/library/{pinned}"), &pinned);
        let both = format!("q.io/a:12@{DIGEST}");
        check(&both, &both, &both);
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        let check = |text: &str, reason: &str| {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        };
        check("", "empty");
        check("Debian", "lower case");
        check("a/B", "lower case");
        check("debian:", "tag");
        check("debian:.x", "tag");
        check(&format!("a:{}", "x".repeat(129)), "tag");
        check("debian@sha256:12", "digest");
        check("debian@md5:00", "digest");
        check(&format!("a@{}", DIGEST.to_uppercase()), "digest");
        check("a//b", "repository");
        check("/a", "repository");
        check("a/", "repository");
        check("a..b", "repository");
        check("a___b", "repository");
        check("-a", "repository");
        check("a b", "repository");
        check("ä", "repository");
        check("../a", "registry");
        check("host:99999/a", "registry");
        check("host:/a", "registry");
        check("[::1/a", "registry");
        check("-x.io/a", "registry");
        check("http://x.io/a", "registry");
        check(&"0".repeat(64), "image id");
        check(&format!("q.io/{}", "a".repeat(251)), "255");
        check(&"a".repeat(9999), "too long");
    }

    #[test]
    fn a_name_of_the_greatest_length_is_taken() {
        let name = format!("q.io/{}", "a".repeat(250));
        assert_eq!(name.parse::<Reference>().unwrap().repository().len(), 250);
    }

    #[test]
    fn mutated_texts_never_panic_and_what_parses_is_stable() {
        let seeds = [
            "localhost:5000/a_b/c:12",
            "[::1]:5/a",
            "debian",
            &format!("q.io/a:1@{DIGEST}"),
        ];
        let alphabet: Vec<char> = "aZ09.-_/:@[]% \0é😀".chars().collect();
        let mut state = 0x9e37_79b9_u64;
        let mut random = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % bound
        };
        for round in 0..40_000 {
            let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
            for _ in 0..=random(4) {
                let at = random(text.len() + 1);
                match random(3) {
                    0 => text.insert(at, alphabet[random(alphabet.len())]),
                    1 if at < text.len() => drop(text.remove(at)),
                    _ if at < text.len() => text[at] = alphabet[random(alphabet.len())],
                    _ => {}
                }
            }
            let text: String = text.into_iter().collect();
            if let Ok(reference) = text.parse::<Reference>() {
                assert_eq!(
                    reference.to_string().parse::<Reference>().unwrap(),
                    reference
                );
                assert_eq!(
                    reference.familiar().parse::<Reference>().unwrap(),
                    reference
                );
            }
        }
    }
}
