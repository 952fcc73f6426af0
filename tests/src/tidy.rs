//! Style as a test: what the compiler's own lints do not check.
//!
//! - [`arrows`]: packages depend on each other as `daemon/ARCHITECTURE.md` draws it, no otherwise.
//! - [`source`]: lengths of files and functions, docs at the top of a file, `unsafe` in
//!   `daemon/sys` only, words that say that something is not finished.
//! - [`manifests`]: every crate inherits the workspace's lints, which demand documentation.
//!
//! Each check is a pure function from text to findings, with a test that shows it failing.

pub mod arrows;
pub mod manifests;
pub mod source;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::check as run,
    error::{Error, Result},
};

/// Something to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// File, and where it makes sense, line: `path:12`.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }
}

/// Checks the whole project; `metadata` is what `cargo metadata` prints.
///
/// # Errors
/// When files cannot be listed or read.
pub fn check(root: &Path, metadata: &str) -> Result<Vec<Finding>> {
    let mut findings = arrows::check(metadata);
    for path in files(root)? {
        let full = root.join(&path);
        let Ok(text) = fs::read_to_string(&full) else {
            continue;
        };
        let name = path.to_string_lossy().into_owned();
        findings.extend(source::check_text(&name, &text));
        if path.extension().is_some_and(|extension| extension == "rs") {
            findings.extend(source::check_rust(&name, &text));
        }
        if path.ends_with("Cargo.toml") {
            findings.extend(manifests::check(&name, &text));
        }
    }
    Ok(findings)
}

/// Files of the project: what git tracks or would, or all where there is no git.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    if let Ok(listing) = run(&mut git) {
        return Ok(listing.lines().map(PathBuf::from).collect());
    }
    let mut found = Vec::new();
    walk(root, root, &mut found)?;
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io(format!("list {}", folder.display())))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push(relative.to_owned());
        }
    }
    Ok(())
}
