//! The driver: the one task that changes a container's state.
//!
//! It takes one thing at a time from its queues: a request, the end of the init, or the moment at
//! which a stop becomes a kill. What a request may do is decided by [`admit`]; what it does is
//! here. Answers that need the container's end (`stop`, `rm -f`) wait in lists that the end
//! empties, so that the driver never sleeps inside a request.
//!
//! Order of a start: log live, spawn, state, record. Order of an end: output drained, state, record,
//! and only then the acknowledgement to the holder, which until then would tell a successor the same
//! exit again. A container with `--rm` leaves the table before anybody hears of its end, so that its
//! name is free when `rc run` returns; its files go afterwards.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rcd_runtime::{Exit, Process};
use rcd_store::ContainerStatus;
use rcd_store::Durability;
use rcd_sys::failpoint;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::io::Io;
use super::lifecycle::{Admission, Phase, Request, admit};
use super::log::{Sources, pump};
use super::{Answer, Command, Container, DriverEnds};
use crate::engine::Shared;
use crate::error::{Error, Result, exit_code};
use crate::types::View;

/// How long the end of a container waits for its output to be drained. Its pipes have no writers
/// by then, so this is the disk's time.
const DRAIN_MS_MAX: u64 = 10_000;

/// A run of a container's first process.
#[derive(Debug)]
struct Run {
    pidfd: Option<std::os::fd::OwnedFd>,
    pump: JoinHandle<()>,
}

/// Since when a run is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// This daemon began it.
    Now,
    /// A daemon before this one did.
    Before,
}

/// State of the driver's task.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    container: Arc<Container>,
    commands: mpsc::Receiver<Command>,
    exits: mpsc::Receiver<Exit>,
    view: watch::Sender<View>,
    run: Option<Run>,
    kill_at: Option<Instant>,
    waiting_for_end: Vec<Answer>,
    waiting_to_remove: Vec<Answer>,
}

impl Driver {
    /// Makes a driver. `process` is a run that a daemon before this one started.
    pub(crate) fn new(
        shared: Arc<Shared>,
        container: Arc<Container>,
        ends: DriverEnds,
        process: Option<Process>,
    ) -> Driver {
        let mut driver = Driver {
            shared,
            container,
            commands: ends.commands,
            exits: ends.exits,
            view: ends.view,
            run: None,
            kill_at: None,
            waiting_for_end: Vec::new(),
            waiting_to_remove: Vec::new(),
        };
        if let Some(process) = process {
            driver.take_up(process, Since::Before);
        }
        driver
    }

    /// Serves requests until the container is removed or the engine stops.
    pub(crate) async fn drive(mut self) {
        let shutdown = self.shared.shutdown.clone();
        while self.phase() != Phase::Removing {
            let kill_at = self.kill_at;
            tokio::select! {
                // An end that is known comes before requests that would meet a dead process, and
                // before the shutdown: a holder that ended will not tell it to the next daemon.
                biased;
                Some(exit) = self.exits.recv() => self.end(Some(exit), None).await,
                () = shutdown.cancelled() => return,
                () = sleep_until(kill_at) => self.escalate(),
                command = self.commands.recv() => match command {
                    Some(command) => self.serve(command).await,
                    None => return,
                },
            }
        }
        // Requests that came too late learn that it is gone by their dropped answers.
    }

    fn phase(&self) -> Phase {
        self.view.borrow().phase
    }

    async fn serve(&mut self, command: Command) {
        match command {
            Command::Start { size, answer } => self.serve_start(size, answer).await,
            Command::Stop { timeout, answer } => self.serve_stop(timeout, answer),
            Command::Kill { signal, answer } => self.serve_kill(signal, answer),
            Command::Remove { force, answer } => self.serve_remove(force, answer).await,
        }
    }

    // ---- start ----

    async fn serve_start(&mut self, size: Option<(u16, u16)>, answer: Answer) {
        let result = match admit(self.phase(), Request::Start) {
            Admission::Accept => self.start(size).await,
            Admission::Already | Admission::Join => Ok(()),
            Admission::EndFirst | Admission::Refuse => Err(self.refusal("start", "")),
        };
        let failed = result.is_err();
        if failed && self.container.record.config.auto_remove && self.phase() == Phase::Exited {
            self.auto_remove();
            let _ = answer.send(result);
            self.delete_files().await;
        } else {
            let _ = answer.send(result);
        }
    }

    async fn start(&mut self, size: Option<(u16, u16)>) -> Result<()> {
        self.set(|view| {
            view.phase = Phase::Starting;
            view.run += 1;
            view.error = None;
        });
        self.container.log.set_live(true);
        failpoint::reach("start.begun");
        let mut options = self.shared.container_options(&self.container.record);
        let terminal = &mut options.process.terminal;
        *terminal = terminal.map(|none| size.unwrap_or(none));
        match self.shared.runtime.spawn(options).await {
            Ok(process) => {
                failpoint::reach("start.spawned");
                self.take_up(process, Since::Now);
                self.record_status();
                Ok(())
            }
            Err(source) => {
                failpoint::reach("start.failed");
                Err(self.start_failed(source))
            }
        }
    }

    fn start_failed(&mut self, source: rcd_runtime::Error) -> Error {
        let exit_code = exit_code(&source);
        let message = crate::error::chain(&source);
        self.container.log.set_live(false);
        self.set(|view| {
            view.phase = Phase::Exited;
            view.exit_code = Some(exit_code);
            view.error = Some(message);
            view.finished_at_ns = crate::engine::now_ns();
        });
        self.record_status();
        let id = self.container.name().to_owned();
        Error::StartFailed {
            id,
            exit_code,
            source: Box::new(source),
        }
    }

    /// Takes charge of a first process: new, or started by a daemon before this one.
    fn take_up(&mut self, process: Process, since: Since) {
        let stdio = process.stdio;
        let sources = match (stdio.pty.as_ref(), stdio.relay, stdio.stdout, stdio.stderr) {
            (Some(pty), Some((relay_read, relay_write)), _, _) => pty
                .try_clone()
                .map(|pty| Sources::Terminal {
                    pty,
                    relay_read,
                    relay_write,
                })
                .map_err(|error| tracing::error!(%error, "cannot duplicate a terminal"))
                .ok(),
            (None, _, Some(stdout), Some(stderr)) => Some(Sources::Pipes { stdout, stderr }),
            _ => None,
        };
        self.container.log.set_live(true);
        let container = Arc::clone(&self.container);
        let shared = Arc::clone(&self.shared);
        // Clients come back for what they have not read, maybe after its removal at its end.
        let hold = since == Since::Before && container.record.config.auto_remove;
        let pump = self.shared.tasks.spawn(async move {
            if hold && let Err(error) = container.log.hold_open().await {
                tracing::error!(container.id = container.id(), %error, "cannot open the log");
            }
            let Some(sources) = sources else { return };
            let pumped = tokio::select! {
                () = handed_over(&shared) => return,
                pumped = pump(Arc::clone(&container.log), sources) => pumped,
            };
            if let Err(error) = pumped {
                tracing::error!(container.id = container.id(), %error, "cannot write the log");
            }
        });
        match Io::new(self.container.key(), stdio.stdin, stdio.pty) {
            Ok(io) => self.container.set_io(Some(io)),
            Err(error) => {
                tracing::error!(container.id = self.container.id(), %error, "no input possible");
            }
        }
        self.run = Some(Run {
            pidfd: process.pidfd,
            pump,
        });
        self.set(|view| {
            view.phase = Phase::Running;
            view.pid = Some(process.pid);
            view.started_at_ns = process.started_at_ns;
            view.exit_code = None;
            view.error = None;
            view.finished_at_ns = 0;
        });
        // If it has ended already, the holder reports that as an event too.
    }

    // ---- stop and kill ----

    fn serve_stop(&mut self, timeout: Option<Duration>, answer: Answer) {
        match admit(self.phase(), Request::Stop) {
            Admission::Already => drop(answer.send(Ok(()))),
            Admission::Join => self.waiting_for_end.push(answer),
            Admission::Accept => {
                let config = &self.container.record.config;
                let timeout = timeout
                    .unwrap_or_else(|| Duration::from_secs(u64::from(config.stop_timeout_s)));
                if let Err(error) = self.signal(config.stop_signal) {
                    drop(answer.send(Err(error)));
                    return;
                }
                failpoint::reach("stop.signalled");
                self.set(|view| view.phase = Phase::Stopping);
                self.kill_at = Some(Instant::now() + timeout);
                self.waiting_for_end.push(answer);
            }
            Admission::EndFirst | Admission::Refuse => {
                drop(answer.send(Err(self.refusal("stop", ""))));
            }
        }
    }

    fn serve_kill(&mut self, signal: i32, answer: Answer) {
        if admit(self.phase(), Request::Kill) != Admission::Accept {
            drop(answer.send(Err(self.not_running())));
            return;
        }
        let result = self.signal(signal);
        failpoint::reach("kill.signalled");
        // SIGKILL cannot fail to end it: the answer says that it has.
        if result.is_ok() && signal == nix::sys::signal::SIGKILL as i32 {
            self.waiting_for_end.push(answer);
        } else {
            drop(answer.send(result));
        }
    }

    /// The stop's patience is over.
    fn escalate(&mut self) {
        self.kill_at = None;
        if let Err(error) = self.signal(nix::sys::signal::SIGKILL as i32) {
            tracing::error!(container.id = self.container.id(), %error, "cannot kill");
        }
        failpoint::reach("stop.escalated");
    }

    fn signal(&self, signal: i32) -> Result<()> {
        let pidfd = self.run.as_ref().and_then(|run| run.pidfd.as_ref());
        let Some(pidfd) = pidfd else { return Ok(()) };
        match rcd_sys::pidfd::send_signal(pidfd.as_fd(), signal) {
            // It has ended already; its exit is on the way.
            Ok(()) | Err(rcd_sys::error::Errno::ESRCH) => Ok(()),
            Err(e) => {
                let what = format!(
                    "send signal {signal} to container {}",
                    self.container.name()
                );
                Err(Error::io(what)(e.into()))
            }
        }
    }

    // ---- end ----

    /// The first process has ended, or (`exit` absent) is gone unseen for `reason`.
    async fn end(&mut self, exit: Option<Exit>, reason: Option<String>) {
        let Some(run) = self.run.take() else { return };
        let pump = run.pump.abort_handle();
        let drained = tokio::time::timeout(Duration::from_millis(DRAIN_MS_MAX), run.pump).await;
        if drained.is_err() {
            pump.abort();
            tracing::error!(
                container.id = self.container.id(),
                "its output was not drained"
            );
        }
        failpoint::reach("exit.drained");
        self.kill_at = None;
        self.container.set_io(None);
        self.container.log.set_live(false);
        let auto_remove = self.container.record.config.auto_remove;
        if auto_remove {
            self.auto_remove();
        }
        self.set(|view| {
            view.phase = if auto_remove {
                Phase::Removing
            } else {
                Phase::Exited
            };
            view.pid = None;
            view.exit_code = exit.map(|exit| exit.code);
            view.finished_at_ns = exit.map_or_else(crate::engine::now_ns, |exit| exit.at_ns);
            view.error = reason;
        });
        failpoint::reach("exit.published");
        for answer in self.waiting_for_end.drain(..) {
            let _ = answer.send(Ok(()));
        }
        if auto_remove {
            self.delete_files().await;
            failpoint::reach("exit.deleted");
            self.shared.runtime.acknowledge(self.container.key()).await;
            failpoint::reach("exit.forgotten");
        } else {
            self.record_status();
        }
        self.shared.remove_cgroup(&self.container);
        let removals = std::mem::take(&mut self.waiting_to_remove);
        if !removals.is_empty() {
            self.remove(removals).await;
        }
    }

    // ---- remove ----

    async fn serve_remove(&mut self, force: bool, answer: Answer) {
        match admit(self.phase(), Request::Remove { force }) {
            Admission::Accept => self.remove(vec![answer]).await,
            Admission::EndFirst => match self.signal(nix::sys::signal::SIGKILL as i32) {
                Ok(()) => {
                    failpoint::reach("remove.killed");
                    self.waiting_to_remove.push(answer);
                }
                Err(error) => drop(answer.send(Err(error))),
            },
            Admission::Already | Admission::Join => self.waiting_to_remove.push(answer),
            Admission::Refuse => {
                drop(answer.send(Err(self.refusal("remove", "; stop it first, or use force"))));
            }
        }
    }

    async fn remove(&mut self, answers: Vec<Answer>) {
        let before = self.phase();
        self.set(|view| view.phase = Phase::Removing);
        failpoint::reach("remove.begun");
        self.shared.recorder.settle().await;
        let result = self
            .shared
            .remove_files(&self.container, Durability::Synced)
            .await;
        failpoint::reach("remove.deleted");
        let failed = result.is_err();
        if failed {
            self.set(|view| view.phase = before);
        } else {
            self.shared.forget(&self.container);
        }
        // What was being done is said again for each who waits.
        let message = result.err().map(|error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), crate::error::chain)
        });
        for answer in answers {
            let _ = answer.send(match &message {
                None => Ok(()),
                Some(message) => Err(Error::Io {
                    operation: format!("remove container {}", self.container.name()),
                    source: std::io::Error::other(message.clone()),
                }),
            });
        }
        self.shared.empty_trash();
    }

    /// Takes a `--rm` container out of the table: its name is free, its exit code stays for a while.
    fn auto_remove(&mut self) {
        self.shared.forget(&self.container);
        self.shared.remember_ended(&self.container);
    }

    /// Deletes the files of a container that is out of the table.
    async fn delete_files(&mut self) {
        if let Err(error) = self
            .shared
            .remove_files(&self.container, Durability::Relaxed)
            .await
        {
            let chain = crate::error::chain(&error);
            tracing::error!(
                container.id = self.container.id(),
                error = chain,
                "cannot remove"
            );
        }
        self.set(|view| view.phase = Phase::Removing);
        self.shared.empty_trash();
        for answer in self.waiting_to_remove.drain(..) {
            let _ = answer.send(Ok(()));
        }
    }

    // ---- small parts ----

    fn set(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(change);
    }

    /// Puts the present state on record, in the background. A `--rm` container has none: the holder
    /// knows whether it lives, and nobody asks afterwards.
    pub(crate) fn record_status(&self) {
        if self.container.record.config.auto_remove {
            return;
        }
        let view = self.view.borrow().clone();
        let status = match view.phase {
            Phase::Created => ContainerStatus::Created,
            Phase::Exited | Phase::Removing => ContainerStatus::Exited {
                started_at_ns: view.started_at_ns,
                finished_at_ns: view.finished_at_ns,
                code: view.exit_code,
                error: view.error,
            },
            Phase::Starting | Phase::Running | Phase::Stopping => ContainerStatus::Running {
                started_at_ns: view.started_at_ns,
            },
        };
        let ended = matches!(status, ContainerStatus::Exited { .. });
        self.shared
            .recorder
            .record(&self.container.record, status, ended);
    }

    fn refusal(&self, action: &'static str, hint: &'static str) -> Error {
        let id = self.container.name().to_owned();
        Error::WrongPhase {
            action,
            id,
            state: self.phase().as_str(),
            hint,
        }
    }

    fn not_running(&self) -> Error {
        Error::NotRunning {
            id: self.container.name().to_owned(),
            state: self.phase().as_str(),
        }
    }
}

/// Resolves when the next daemon may read on where this one stops. What a holder that is gone had kept
/// is lost with this process, so that is read to its end first.
async fn handed_over(shared: &Shared) {
    shared.shutdown.cancelled().await;
    if shared.holder_gone.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(DRAIN_MS_MAX)).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
