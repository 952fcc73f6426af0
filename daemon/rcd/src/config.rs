//! `rcd.toml`: settings of the daemon. Every one has a default; an unknown one is an error.
//!
//! ```toml
//! [log]
//! level = "info"                        # or a list: "warn,rcd_engine=debug"; RCD_LOG wins
//!
//! [registry]
//! insecure = ["registry.lan:5000"]      # registries to speak plain http with; loopback always is
//!
//! [storage]
//! root = "/srv/containers"              # instead of $XDG_DATA_HOME/rcd; absolute
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::error::Error;

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is logged.
    pub log: Log,
    /// How registries are reached.
    pub registry: Registry,
    /// Where containers and images are.
    pub storage: Storage,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Levels, in the syntax of tracing's `EnvFilter`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".to_owned(),
        }
    }
}

/// `[registry]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Registries (`host[:port]`) spoken to without TLS.
    pub insecure: Vec<String>,
}

/// `[storage]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Data directory; absolute.
    #[serde(deserialize_with = "absolute")]
    pub root: Option<PathBuf>,
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(Some(path))
    } else {
        Err(D::Error::custom("the path must be absolute"))
    }
}

impl Config {
    /// Reads a configuration. A file that is absent and not `required` means defaults.
    ///
    /// # Errors
    ///
    /// [`Error::ReadConfig`]; [`Error::ParseConfig`] with line and column.
    pub fn read(path: &Path, required: bool) -> Result<Config, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => String::new(),
            Err(source) => {
                return Err(Error::ReadConfig {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        toml::from_str(&text).map_err(|source| Error::ParseConfig {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path(), true).map_err(|error| crate::error::chain(&error))
    }

    #[test]
    fn settings_are_read_and_have_defaults() {
        assert_eq!(read(""), Ok(Config::default()));
        let config =
            read("[log]\nlevel='debug'\n[registry]\ninsecure=['a:5000']\n[storage]\nroot='/srv'\n");
        let config = config.unwrap();
        assert_eq!(config.log.level, "debug");
        assert_eq!(config.registry.insecure, ["a:5000"]);
        assert_eq!(config.storage.root, Some(PathBuf::from("/srv")));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, word) in [
            ("[log]\nlevl = 'x'\n", "line 2, column 1", "levl"),
            (
                "[registry]\n\ninsecure = 3\n",
                "line 3, column 12",
                "insecure",
            ),
            ("[storage]\nroot = 'data'\n", "line 2", "absolute"),
            ("x\n", "line 1", "x"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(line) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn an_absent_file_is_an_error_only_if_it_was_named() {
        let path = Path::new("/nonexistent/rcd.toml");
        assert_eq!(Config::read(path, false).unwrap(), Config::default());
        assert!(matches!(
            Config::read(path, true),
            Err(Error::ReadConfig { .. })
        ));
    }
}
