//! Where the daemon's files are, by the XDG base directory specification.
//!
//! A value that is not absolute is ignored, as the specification demands. Directories are made with
//! mode 0700 and must belong to the user: layers hold setuid files, and the socket gives power over
//! every container.

use std::env;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

use crate::error::Error;

/// The directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Containers and images.
    pub data: PathBuf,
    /// Sockets, the common mount point. Gone after a reboot.
    pub runtime: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
}

impl Paths {
    /// Finds the directories from the environment of the process.
    ///
    /// # Errors
    ///
    /// [`Error::NoDirectory`].
    pub fn find() -> Result<Paths, Error> {
        let uid = geteuid();
        let home =
            absolute("HOME").or_else(|| User::from_uid(uid).ok().flatten().map(|user| user.dir));
        let below_home = |variable, path: &str| {
            absolute(variable).or_else(|| home.as_ref().map(|home| home.join(path)))
        };
        let no_home = |what| Error::NoDirectory {
            what,
            advice: "set HOME",
        };
        Ok(Paths {
            data: below_home("XDG_DATA_HOME", ".local/share").ok_or_else(|| no_home("data"))?.join("rcd"),
            config: below_home("XDG_CONFIG_HOME", ".config")
                .ok_or_else(|| no_home("configuration"))?
                .join("rcd/rcd.toml"),
            runtime: absolute("XDG_RUNTIME_DIR")
                .or_else(|| login_directory(uid))
                .ok_or(Error::NoDirectory {
                    what: "runtime",
                    advice: "set XDG_RUNTIME_DIR to a directory that is yours, has mode 0700 and is emptied at logout; a login session does so",
                })?
                .join("rcd"),
        })
    }

    /// The varlink socket.
    pub fn varlink_socket(&self) -> PathBuf {
        self.runtime.join("varlink.sock")
    }

    /// The holder's socket.
    pub fn holder_socket(&self) -> PathBuf {
        self.runtime.join("holder.sock")
    }

    /// What the holder writes to its stderr.
    pub fn holder_log(&self) -> PathBuf {
        self.runtime.join("holder.log")
    }

    /// The mount point that all containers share; each mounts there in a namespace of its own.
    pub fn rootfs(&self) -> PathBuf {
        self.runtime.join("rootfs")
    }

    /// Makes the data and runtime directories.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`], [`Error::Owner`].
    pub fn make(&self) -> Result<(), Error> {
        make_private(&self.data)?;
        make_private(&self.runtime)?;
        make_private(&self.rootfs())
    }
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

/// `/run/user/<uid>`, which logind makes, for a shell that lost its environment (`su`, cron).
fn login_directory(uid: Uid) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/run/user/{uid}"));
    let metadata = path.metadata().ok()?;
    (metadata.is_dir() && metadata.uid() == uid.as_raw()).then_some(path)
}

/// Makes a directory, and its parents, for this user alone.
fn make_private(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Directory {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    if metadata.uid() != geteuid().as_raw() {
        return Err(Error::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
        });
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_become_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        make_private(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_no_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            make_private(file.path()),
            Err(Error::Directory { .. })
        ));
    }
}
