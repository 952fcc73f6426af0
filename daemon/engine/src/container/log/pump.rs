//! Moves a container's output from its pipes into its log.
//!
//! One task a running container. It waits for readiness in the runtime and splices on a blocking
//! thread, since a write to a file can wait for the disk. It ends when every source is at its end,
//! which a dead container's are: the daemon and the holder hold read ends only.
//!
//! While the disk is full, output stays in the pipes, and the container waits when they are full
//! too, rather than losing a line. It goes on when there is room again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::{Log, Stream, blocking};
use crate::readiness::watch;

/// How many bytes one splice takes from a terminal. Its buffer in the kernel is 4 KiB a piece.
const TERMINAL_BYTES_MAX: usize = 64 << 10;

/// Pause between attempts to write while the disk is full.
const FULL_PAUSE_MS: u64 = 500;

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
/// Registration with the runtime, or writing the log for another reason than a full disk: then
/// output stays in the pipes until the daemon's next start.
pub(crate) async fn pump(log: Arc<Log>, sources: Sources) -> io::Result<()> {
    match sources {
        Sources::Pipes { stdout, stderr } => {
            let stdout = Arc::new(watch(stdout, Interest::READABLE)?);
            let stderr = Arc::new(watch(stderr, Interest::READABLE)?);
            pump_pipes(log, [Some(stdout), Some(stderr)]).await
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

type Pipe = Option<Arc<AsyncFd<OwnedFd>>>;

/// Moves from whichever pipe has something, one after the other: a log has one writer.
async fn pump_pipes(log: Arc<Log>, mut pipes: [Pipe; 2]) -> io::Result<()> {
    let mut room = Room::default();
    while pipes.iter().any(Option::is_some) {
        let [stdout, stderr] = &pipes;
        let (at, stream, pipe, mut ready) = tokio::select! {
            ready = readable(stdout) => (0, Stream::Stdout, stdout, ready?),
            ready = readable(stderr) => (1, Stream::Stderr, stderr, ready?),
        };
        let Some(pipe) = pipe.clone() else { continue };
        let mut ended = ready.ready().is_read_closed() && is_drained(&pipe)?;
        if !ended {
            let log_ = Arc::clone(&log);
            match blocking(move || log_.files()?.append(stream, pipe.get_ref().as_fd())).await {
                Ok(0) => ended = true,
                Ok(_) => {
                    room.found();
                    log.announce_append();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) => room.wait(&log, e).await?,
            }
        }
        drop(ready);
        if ended {
            pipes[at] = None;
        }
    }
    Ok(())
}

/// Waits until there is something to read, for ever where there is no pipe any more.
async fn readable(pipe: &Pipe) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match pipe {
        Some(pipe) => pipe.readable().await,
        None => std::future::pending().await,
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
    let mut room = Room::default();
    loop {
        let (log_, relay_) = (Arc::clone(log), Arc::clone(relay));
        if !has_input(&relay.0)? {
            return Ok(());
        }
        match blocking(move || log_.files()?.append(Stream::Stdout, relay_.0.as_fd())).await {
            Ok(_) => {
                room.found();
                log.announce_append();
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => room.wait(log, e).await?,
        }
    }
}

/// Whether the disk has room for the log, as far as is known.
#[derive(Debug, Default)]
struct Room {
    missing: bool,
}

impl Room {
    fn found(&mut self) {
        if std::mem::take(&mut self.missing) {
            tracing::info!("there is room for the log again");
        }
    }

    /// Waits a little if `error` is that of a full disk; else it is the result.
    async fn wait(&mut self, log: &Log, error: io::Error) -> io::Result<()> {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if !matches!(error.kind(), StorageFull | QuotaExceeded) {
            return Err(error);
        }
        if !std::mem::replace(&mut self.missing, true) {
            tracing::error!(log = %log.dir.display(), %error, "output waits until the log can be written");
        }
        tokio::time::sleep(Duration::from_millis(FULL_PAUSE_MS)).await;
        Ok(())
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
