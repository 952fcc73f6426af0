//! Sockets from the service manager, and what it is told.
//!
//! Sockets passed by systemd (`sd_listen_fds(3)`) are known by name, as later ones share the list
//! with stored descriptors. Without any, the daemon listens by itself.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// `FileDescriptorName=` of the varlink socket.
const VARLINK: &str = "varlink";

/// The listening sockets.
#[derive(Debug)]
pub struct Sockets {
    /// The varlink socket.
    pub varlink: UnixListener,
    /// The socket that this process made and has to remove, if it did.
    pub made: Option<Made>,
}

/// A socket in the file system, known by its inode: a successor may have put its own in place.
#[derive(Debug, Clone)]
pub struct Made {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl Made {
    fn new(path: &Path) -> Made {
        Made {
            path: path.to_owned(),
            inode: inode(path),
        }
    }

    /// Removes it if it is still this process's.
    pub fn remove(&self) {
        if self.inode.is_some() && self.inode == inode(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Sockets {
    /// Removes what this process made, for one that ends before it serves.
    pub fn remove(self) {
        if let Some(made) = self.made {
            made.remove();
        }
    }
}

/// Takes the passed sockets, or makes one at `path`.
///
/// # Errors
///
/// [`Error::Activation`], [`Error::Serving`], [`Error::Listen`].
pub fn sockets(path: &Path) -> Result<Sockets, Error> {
    match passed().map_err(|source| Error::Activation { source })? {
        Some(varlink) => Ok(Sockets {
            varlink,
            made: None,
        }),
        None => Ok(Sockets {
            varlink: listen(path)?,
            made: Some(Made::new(path)),
        }),
    }
}

/// Whether a service manager started this process and waits to hear from it.
pub fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn passed() -> io::Result<Option<UnixListener>> {
    let mut varlink = None;
    for (number, name) in sd_notify::listen_fds_with_names()? {
        let copy: OwnedFd = rcd_sys::fd::duplicate(number)?;
        nix::unistd::close(number)?;
        // A unit without FileDescriptorName= passes the unit's name.
        if name == VARLINK || varlink.is_none() && name.ends_with(".socket") {
            let listener = UnixListener::from(copy);
            // Refuses what is no socket.
            listener.local_addr()?;
            varlink = Some(listener);
        } else {
            tracing::warn!(
                name,
                "the service manager passed a descriptor of an unknown name; closed"
            );
        }
    }
    Ok(varlink)
}

/// Listens at `path`, in place of a socket that nobody serves any more.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen {
        path: path.to_owned(),
        source,
    };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(Error::Serving {
                    path: path.to_owned(),
                });
            }
            std::fs::remove_file(path).map_err(failed)?;
            UnixListener::bind(path).map_err(failed)?
        }
        bound => bound.map_err(failed)?,
    };
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Tells the service manager, if there is one, that the daemon serves.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells it that the daemon is stopping.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Tells the service manager twice in each of its watchdog's intervals that the async runtime makes
/// progress. Returns at once where no watchdog is set.
pub async fn watchdog(shutdown: CancellationToken) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        tokio::select! {
            _ = ticks.tick() => notify(&[NotifyState::Watchdog]),
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(listen(&path).unwrap());
        let served = listen(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path), Err(Error::Serving { .. })));
        drop(served);
        assert!(listen(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket/absent");
        assert!(matches!(listen(&path), Err(Error::Listen { .. })));
    }
}
