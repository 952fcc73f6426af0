//! A process's input and terminal, shared by the clients that are attached to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use rcd_runtime::{ProcessKey, Slot};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::platform::Runtime;
use crate::readiness::watch;

/// Where input goes and what terminal there is.
#[derive(Debug)]
pub(crate) struct Io {
    key: ProcessKey,
    stdin: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    pty: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl Io {
    /// Takes over a nonblocking stdin pipe or terminal master.
    pub(crate) fn new(
        key: ProcessKey,
        stdin: Option<OwnedFd>,
        pty: Option<OwnedFd>,
    ) -> io::Result<Arc<Io>> {
        let register = |fd: Option<OwnedFd>| -> io::Result<Option<Arc<AsyncFd<OwnedFd>>>> {
            fd.map(|fd| watch(fd, Interest::WRITABLE).map(Arc::new))
                .transpose()
        };
        let pty = register(pty)?;
        let stdin = match &pty {
            Some(pty) => Some(Arc::clone(pty)),
            None => register(stdin)?,
        };
        Ok(Arc::new(Io {
            key,
            stdin: Mutex::new(stdin),
            pty,
        }))
    }

    /// Writes all of `bytes`, waiting where the process does not read. Bytes for a process that
    /// closed its input are dropped, as a shell's pipe drops them.
    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<()> {
        let Some(stdin) = self.stdin() else {
            return Ok(());
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut ready = stdin
                .writable()
                .await
                .map_err(Error::io("write a container's input"))?;
            match nix::unistd::write(stdin.get_ref().as_fd(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::EIO) => return Ok(()),
                Err(e) => return Err(Error::io("write a container's input")(e.into())),
            }
        }
        Ok(())
    }

    /// Ends the input. A terminal has no end of input of its own: there this does nothing.
    pub(crate) async fn close(&self, runtime: &dyn Runtime) {
        if self.pty.is_none() && self.take_stdin().is_some() {
            runtime.drop_kept(self.key.clone(), Slot::Stdin).await;
        }
    }

    /// Sets the terminal's size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        match &self.pty {
            None => Ok(()),
            Some(pty) => rcd_sys::pty::set_size(pty.get_ref().as_fd(), rows, columns)
                .map_err(|e| Error::io("set the terminal's size")(e.into())),
        }
    }

    fn stdin(&self) -> Option<Arc<AsyncFd<OwnedFd>>> {
        self.stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn take_stdin(&self) -> Option<Arc<AsyncFd<OwnedFd>>> {
        self.stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
