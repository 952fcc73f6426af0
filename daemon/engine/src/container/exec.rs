//! Another process in a running container.
//!
//! Its output goes straight from its pipes or terminal to the one client that is attached; nothing
//! is logged. A client that went away may come back within [`REATTACH_S_MAX`]; after that, output is
//! read and thrown away, so that the process never hangs on a full pipe.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use rcd_runtime::{Exit, ProcessKey, Stdio};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch as channel;

use super::attach::{Input, Target};
use super::io::Io;
use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::readiness::watch;
use crate::types::Output;

/// The most bytes read at once.
const READ_BYTES_MAX: usize = 64 << 10;

/// How long output waits for a client that went away.
const REATTACH_S_MAX: u64 = 30;

/// How long the end of an exec waits for its output: a child that it left behind may hold the
/// pipe open for ever.
const DRAIN_MS_MAX: u64 = 500;

/// How long output waits for a client that went away, or that a restart of the daemon cut off.
pub(crate) fn reattach_patience() -> Duration {
    Duration::from_secs(REATTACH_S_MAX)
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) key: ProcessKey,
    pub(crate) exit: channel::Sender<Option<Exit>>,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    io: Option<Arc<Io>>,
    outputs: Option<Outputs>,
}

/// Read ends of an exec's output.
#[derive(Debug, Default)]
struct Outputs {
    stdout: Option<AsyncFd<OwnedFd>>,
    stderr: Option<AsyncFd<OwnedFd>>,
}

impl Exec {
    pub(crate) fn new(key: ProcessKey) -> Arc<Exec> {
        Arc::new(Exec {
            key,
            exit: channel::Sender::new(None),
            parts: Mutex::new(Parts::default()),
        })
    }

    /// Takes charge of the process's stdio.
    pub(crate) fn take_up(&self, stdio: Stdio) -> Result<()> {
        let failed = |e| Error::io("watch an exec's output")(e);
        let open = |fd: Option<OwnedFd>| fd.map(|fd| watch(fd, Interest::READABLE)).transpose();
        let terminal = stdio
            .pty
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose()
            .map_err(failed)?;
        let stdout = open(terminal.or(stdio.stdout)).map_err(failed)?;
        let stderr = open(stdio.stderr).map_err(failed)?;
        let io = Io::new(self.key.clone(), stdio.stdin, stdio.pty).map_err(failed)?;
        *self.parts() = Parts {
            io: Some(io),
            outputs: Some(Outputs { stdout, stderr }),
        };
        Ok(())
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a client. There can be one.
    pub(crate) fn attach(self: &Arc<Exec>, shared: &Arc<Shared>) -> Result<ExecSession> {
        let mut parts = self.parts();
        let id = self.key.exec.clone().unwrap_or_default();
        let outputs = parts.outputs.take().ok_or(Error::ExecAttached { id })?;
        let io = parts.io.clone();
        drop(parts);
        let (exec, shared) = (Arc::clone(self), Arc::clone(shared));
        let exit = self.exit.subscribe();
        Ok(ExecSession {
            exec,
            shared,
            outputs,
            io,
            exit,
            buffer: Vec::new(),
        })
    }

    /// Gives the outputs back when a client leaves, and sees to it that somebody reads them.
    fn detach(self: Arc<Exec>, shared: &Shared, outputs: Outputs) {
        if outputs.is_over() {
            return;
        }
        self.parts().outputs = Some(outputs);
        self.read_unless_taken(shared, reattach_patience());
    }

    /// Sees to it that somebody reads the output, if no client takes it within `patience`.
    pub(crate) fn read_unless_taken(self: Arc<Exec>, shared: &Shared, patience: Duration) {
        // A shutdown must not wait for the end of the exec: the holder keeps its pipes.
        let shutdown = shared.shutdown.clone();
        shared.tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.discard_after(patience) => {}
            }
        });
    }

    /// Reads output and throws it away, unless a client takes it within `patience`.
    async fn discard_after(self: Arc<Exec>, patience: Duration) {
        tokio::time::sleep(patience).await;
        let Some(mut outputs) = self.parts().outputs.take() else {
            return;
        };
        let mut buffer = Vec::new();
        while outputs.read(&mut buffer).await.is_some() {}
    }
}

impl Outputs {
    fn is_over(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// The next bytes of either stream; none when both are over. Cancel safe.
    async fn read(&mut self, buffer: &mut Vec<u8>) -> Option<Output> {
        loop {
            let (is_stdout, ready) = tokio::select! {
                ready = readable(self.stdout.as_ref()), if self.stdout.is_some() => (true, ready),
                ready = readable(self.stderr.as_ref()), if self.stderr.is_some() => (false, ready),
                else => return None,
            };
            let stream = if is_stdout {
                &mut self.stdout
            } else {
                &mut self.stderr
            };
            let Some(fd) = stream.as_ref().filter(|_| ready) else {
                *stream = None;
                continue;
            };
            match read_now(fd, buffer) {
                Read::Bytes(bytes) if is_stdout => return Some(Output::Stdout(bytes)),
                Read::Bytes(bytes) => return Some(Output::Stderr(bytes)),
                Read::Nothing => {}
                Read::End => *stream = None,
            }
        }
    }
}

async fn readable(fd: Option<&AsyncFd<OwnedFd>>) -> bool {
    match fd {
        // Dropping the guard keeps the readiness: `read_now` clears it when there is nothing.
        Some(fd) => fd.readable().await.is_ok(),
        None => std::future::pending().await,
    }
}

enum Read {
    Bytes(Bytes),
    Nothing,
    End,
}

fn read_now(fd: &AsyncFd<OwnedFd>, buffer: &mut Vec<u8>) -> Read {
    buffer.resize(READ_BYTES_MAX, 0);
    let read = fd.try_io(Interest::READABLE, |fd| {
        nix::unistd::read(fd.as_fd(), buffer).map_err(std::io::Error::from)
    });
    match read {
        Ok(0) => Read::End,
        Ok(count) => Read::Bytes(Bytes::copy_from_slice(
            buffer.get(..count).unwrap_or_default(),
        )),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Read::Nothing,
        Err(e) if e.raw_os_error() == Some(Errno::EINTR as i32) => Read::Nothing,
        Err(_) => Read::End,
    }
}

/// A client attached to an exec. Dropping it detaches.
#[derive(Debug)]
pub struct ExecSession {
    exec: Arc<Exec>,
    shared: Arc<Shared>,
    outputs: Outputs,
    io: Option<Arc<Io>>,
    exit: channel::Receiver<Option<Exit>>,
    buffer: Vec<u8>,
}

impl ExecSession {
    /// Id of the exec.
    pub fn id(&self) -> &str {
        self.exec.key.exec.as_deref().unwrap_or_default()
    }

    /// The next output, or the end. Cancel safe.
    pub async fn next(&mut self) -> Output {
        loop {
            let ended = *self.exit.borrow_and_update();
            if let Some(exit) = ended {
                let patience = Duration::from_millis(DRAIN_MS_MAX);
                let rest = self.outputs.read(&mut self.buffer);
                let rest = tokio::time::timeout(patience, rest).await.ok().flatten();
                return rest.unwrap_or_else(|| {
                    self.outputs = Outputs::default();
                    Output::Exit(exit.code)
                });
            }
            tokio::select! {
                output = self.outputs.read(&mut self.buffer), if !self.outputs.is_over() => {
                    if let Some(output) = output {
                        return output;
                    }
                }
                changed = self.exit.changed() => {
                    if changed.is_err() {
                        return Output::Lost("the exec is gone".to_owned());
                    }
                }
            }
        }
    }

    /// A handle for input, to be used beside `next`.
    pub fn input(&self) -> Option<Input> {
        let io = self.io.clone()?;
        Some(Input {
            shared: Arc::clone(&self.shared),
            target: Target::Exec(io),
        })
    }
}

impl Drop for ExecSession {
    fn drop(&mut self) {
        let outputs = std::mem::take(&mut self.outputs);
        Arc::clone(&self.exec).detach(&self.shared, outputs);
    }
}
