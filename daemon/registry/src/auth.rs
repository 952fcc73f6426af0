//! Credentials from files, and the token challenge of registries.
//!
//! Read are plain `auths` entries. Helpers (`credsStore`, `credHelpers`) are programs, and the
//! daemon starts none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// The largest credentials file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A user's name and password, or an identity token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets belong in no log.
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The usual files, in the order that they are asked: `$DOCKER_CONFIG/config.json` or
/// `~/.docker/config.json`, then `$XDG_RUNTIME_DIR/containers/auth.json` (podman's).
pub fn credential_files() -> Vec<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    let podman = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    docker
        .map(|dir| dir.join("config.json"))
        .into_iter()
        .chain(podman)
        .collect()
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Looks a registry (and repository, as podman allows) up in the files. Blocking.
pub(crate) fn lookup(
    files: &[PathBuf],
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, Error> {
    for path in files {
        if let Some(file) = read(path)?
            && let Some(entry) = find(&file, registry, repository)
        {
            return credentials(path, entry);
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<File>, Error> {
    use std::io::Read;
    let failed = |reason: String| Error::Credentials {
        path: path.display().to_string(),
        reason,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    // Position only: an error of serde_json may quote the file.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        failed(format!(
            "invalid JSON at line {}, column {}",
            error.line(),
            error.column()
        ))
    })
}

fn find<'a>(file: &'a File, registry: &str, repository: &str) -> Option<&'a Entry> {
    let full = format!("{registry}/{repository}");
    let aliases: &[&str] = if registry == "docker.io" {
        &["docker.io", "index.docker.io", "registry-1.docker.io"]
    } else {
        &[registry]
    };
    // The most specific first: podman has entries for repositories and their parents.
    let mut prefix = full.as_str();
    while prefix.len() > registry.len() {
        if let Some(entry) = file.auths.get(prefix) {
            return Some(entry);
        }
        prefix = prefix.rsplit_once('/')?.0;
    }
    let host = |key: &str| {
        let key = key
            .strip_prefix("https://")
            .or(key.strip_prefix("http://"))
            .unwrap_or(key);
        key.split('/').next().unwrap_or_default().to_owned()
    };
    // A key with a path that is no API version belongs to a repository.
    let whole = |key: &str| {
        let key = key.trim_end_matches('/');
        key.starts_with("http")
            || key.ends_with("/v1")
            || key.ends_with("/v2")
            || !key.contains('/')
    };
    file.auths
        .iter()
        .find(|(key, _)| whole(key) && aliases.contains(&host(key).as_str()))
        .map(|(_, entry)| entry)
}

fn credentials(path: &Path, entry: &Entry) -> Result<Option<Credentials>, Error> {
    if !entry.username.is_empty() {
        let (username, password) = (entry.username.clone(), entry.password.clone());
        return Ok(Some(Credentials { username, password }));
    }
    if entry.auth.is_empty() {
        // An empty entry says that a helper has it.
        return Ok(None);
    }
    let decoded = decode_base64(&entry.auth).and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let Some((username, password)) = pair else {
        return Err(Error::Credentials {
            path: path.display().to_string(),
            reason: "an `auth` is not the base64 of name:password; log in again".to_owned(),
        });
    };
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Some(Credentials {
        username: username.to_owned(),
        password,
    }))
}

/// Standard base64, with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim().trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// Standard base64 with padding.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for index in 0..4_usize {
            let digit = (word >> (18 - 6 * index)) & 63;
            let digit = if index <= chunk.len() {
                DIGITS[digit as usize]
            } else {
                b'='
            };
            text.push(char::from(digit));
        }
    }
    text
}

/// What a 401 asks for (RFC 6750 and Docker's token specification).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Reads a `WWW-Authenticate` header.
pub(crate) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

/// `key="value", key=value`; values may hold commas inside quotes.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        parameters.insert(key, value.trim().to_owned());
        rest = after;
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let (service, scope) = (owned(service), owned(scope));
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service,
                scope,
            })
        };
        assert_eq!(
            challenge(r#"Bearer realm="https://a/t",service="r",scope="repository:a:pull,push""#),
            bearer("https://a/t", Some("r"), Some("repository:a:pull,push"))
        );
        assert_eq!(
            challenge("bearer realm=x, service=y"),
            bearer("x", Some("y"), None)
        );
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("Bearer service=\"y\""), None);
        assert_eq!(challenge("Bearer realm=\"x"), bearer("x", None, None));
        assert_eq!(challenge(""), None);
        assert_eq!(challenge("Negotiate"), None);
    }

    #[test]
    fn credentials_are_found_by_the_most_specific_key() {
        let file: File = serde_json::from_str(
            r#"{"auths": {"q.io": {"auth": "YTpi"}, "q.io/team": {"auth": "Yzpk"},
                "https://index.docker.io/v1/": {"auth": "ZTpm"}, "e.io": {}}}"#,
        )
        .unwrap();
        let check = |registry: &str, repository: &str, expected: Option<&str>| {
            let entry = find(&file, registry, repository);
            let found = entry.and_then(|e| credentials(Path::new("f"), e).unwrap());
            assert_eq!(
                found.map(|c| c.username).as_deref(),
                expected,
                "{registry}/{repository}"
            );
        };
        check("q.io", "app", Some("a"));
        check("q.io", "team/app", Some("c"));
        check("docker.io", "library/debian", Some("e"));
        check("e.io", "x", None);
        check("team", "x", None);
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decode_base64("dXNlcjpwYXNz").unwrap(), b"user:pass");
        assert_eq!(decode_base64("YTpiYw==").unwrap(), b"a:bc");
        assert_eq!(decode_base64("a b"), None);
    }

    #[test]
    fn base64_is_encoded() {
        for text in ["", "a", "ab", "abc", "user:päss"] {
            assert_eq!(
                decode_base64(&encode_base64(text.as_bytes())).unwrap(),
                text.as_bytes()
            );
        }
        assert_eq!(encode_base64(b"a:bc"), "YTpiYw==");
    }
}
