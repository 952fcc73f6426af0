//! Moves a container's output from its pipes into its log.
//!
//! One task a running container. It waits for readiness in the runtime and splices on a blocking
//! thread, since a write to a file can wait for the disk. It ends when every source is at its end,
//! which a dead container's are: the daemon and the holder hold read ends only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Log, Stream, blocking};
use crate::readiness::watch;

/// How many bytes one splice takes from a terminal. Its buffer in the kernel is 4 KiB a piece.
const TERMINAL_BYTES_MAX: usize = 64 << 10;

/// Where output comes from. Descriptors are nonblocking.
#[derive(Debug)]
pub(crate) enum Sources {
    /// Two pipes.
    Pipes {
        /// Read end of stdout.
        stdout: OwnedFd,
        /// Read end of stderr.
        stderr: OwnedFd,
    },
    /// A terminal, and the pipe between it and the log.
    Terminal {
        /// Master side.
        pty: OwnedFd,
        /// Read end of the relay pipe.
        relay_read: OwnedFd,
        /// Write end of the relay pipe.
        relay_write: OwnedFd,
    },
}

/// Runs until all of `sources` have ended.
///
/// # Errors
/// Registration with the runtime, or writing the log: then output stays in the pipes, and the
/// container blocks when they are full, rather than losing a line.
pub(crate) async fn pump(log: Arc<Log>, sources: Sources) -> io::Result<()> {
    match sources {
        Sources::Pipes { stdout, stderr } => {
            tokio::try_join!(
                pump_pipe(Arc::clone(&log), Stream::Stdout, stdout),
                pump_pipe(log, Stream::Stderr, stderr),
            )?;
            Ok(())
        }
        Sources::Terminal {
            pty,
            relay_read,
            relay_write,
        } => {
            let relay = Arc::new((relay_read, relay_write));
            pump_terminal(log, pty, relay).await
        }
    }
}

async fn pump_pipe(log: Arc<Log>, stream: Stream, pipe: OwnedFd) -> io::Result<()> {
    let pipe = Arc::new(watch(pipe, Interest::READABLE)?);
    loop {
        let mut ready = pipe.readable().await?;
        if ready.ready().is_read_closed() && is_drained(&pipe)? {
            return Ok(());
        }
        let (log_, pipe_) = (Arc::clone(&log), Arc::clone(&pipe));
        let moved = blocking(move || log_.files()?.append(stream, pipe_.get_ref().as_fd())).await;
        match moved {
            Ok(0) => return Ok(()),
            Ok(_) => log.announce_append(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(e) => return Err(e),
        }
    }
}

async fn pump_terminal(
    log: Arc<Log>,
    pty: OwnedFd,
    relay: Arc<(OwnedFd, OwnedFd)>,
) -> io::Result<()> {
    // A daemon that was killed may have left bytes in the relay.
    drain_relay(&log, &relay).await?;
    let pty = Arc::new(watch(pty, Interest::READABLE)?);
    loop {
        let mut ready = pty.readable().await?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        // Terminal and pipe are both memory of the kernel: this cannot wait for a disk.
        let moved = splice(
            pty.get_ref(),
            None,
            &relay.1,
            None,
            TERMINAL_BYTES_MAX,
            flags,
        );
        match moved {
            // EIO: no process has the other side open any more.
            Ok(0) | Err(Errno::EIO) => return Ok(()),
            Ok(_) => drain_relay(&log, &relay).await?,
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

async fn drain_relay(log: &Arc<Log>, relay: &Arc<(OwnedFd, OwnedFd)>) -> io::Result<()> {
    loop {
        let (log_, relay_) = (Arc::clone(log), Arc::clone(relay));
        if !has_input(&relay.0)? {
            return Ok(());
        }
        match blocking(move || log_.files()?.append(Stream::Stdout, relay_.0.as_fd())).await {
            Ok(_) => log.announce_append(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Whether a pipe whose writers are gone holds no more bytes.
fn is_drained(pipe: &AsyncFd<OwnedFd>) -> io::Result<bool> {
    Ok(!has_input(pipe.get_ref())?)
}

fn has_input(fd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLIN)))
}
