//! The one task that owns the connection to the holder.
//!
//! ```text
//!   Runtime ──Command──► [ task: pending by seq ] ──packets──► holder
//!           ◄──oneshot──                          ◄──packets──
//!   engine  ◄──Event────
//! ```
//!
//! Bounds: commands wait in their queue once [`PENDING_MAX`] requests are unanswered or the socket
//! is full. Events that the engine has not taken are held, so that a busy engine does not delay
//! replies; at [`EVENTS_HELD_MAX`] the task stops reading and the holder keeps the rest.
//!
//! A requester that went away changes nothing: the process exists, its descriptors here are closed,
//! and `list` shows it. When the connection ends, or a packet breaks the protocol, every waiter
//! gets [`Error::HolderGone`] and the last event is [`Event::HolderGone`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rcd_init::protocol::{FdRole, ProcessKey, Reply, Request, Slot, Spawn};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::cgroup::Cgroups;
use crate::wire::{self, Packet, Received};
use crate::{Error, Event, Process, Stdio};

/// Requests without an answer. The holder starts one process at a time for each core at best, so
/// more would only wait there instead of here.
pub(crate) const PENDING_MAX: usize = 256;

/// Events held back for an engine that does not take them.
pub(crate) const EVENTS_HELD_MAX: usize = 4096;

/// Packets read before the other queues get their turn.
const PACKETS_AT_ONCE_MAX: usize = 32;

/// Answer to a start or a list.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// What handles ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Start a process.
    Spawn(Box<Start>, Answer<Process>),
    /// List all processes.
    List { answer: Answer<Vec<Process>> },
    /// Forget a process.
    Acknowledge { key: ProcessKey },
    /// Close a kept descriptor.
    Drop { key: ProcessKey, slot: Slot },
}

/// A process that is ready to be started.
#[derive(Debug)]
pub(crate) struct Start {
    /// The request; the task numbers it.
    pub(crate) spawn: Spawn,
    /// What goes with it.
    pub(crate) fds: Vec<OwnedFd>,
    /// The daemon's ends, for the answer.
    pub(crate) stdio: Stdio,
    /// Its cgroup was made for it, and goes if it does not start.
    pub(crate) cgroup_is_new: bool,
}

#[derive(Debug)]
enum Pending {
    Spawn {
        key: ProcessKey,
        stdio: Stdio,
        cgroup_is_new: bool,
        answer: Answer<Process>,
    },
    List {
        found: Vec<Process>,
        answer: Answer<Vec<Process>>,
    },
}

pub(crate) struct Client {
    socket: AsyncFd<OwnedFd>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    cgroups: Option<Cgroups>,
    pending: HashMap<u64, Pending>,
    /// By the number of the request.
    outgoing: VecDeque<(u64, Packet)>,
    held: VecDeque<Event>,
    seq: u64,
}

/// Why the task ended.
enum End {
    /// No handle is left.
    Unused,
    /// The connection is gone or unusable.
    Gone(String),
}

/// What the task woke up for.
enum Wake {
    Readable(io::Result<()>),
    Writable(io::Result<()>),
    Command(Option<Command>),
    Told,
}

type Flow = ControlFlow<End>;

impl Client {
    /// Takes over a connected socket. Must be called within the async runtime.
    pub(crate) fn new(
        socket: OwnedFd,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        cgroups: Option<Cgroups>,
    ) -> io::Result<Self> {
        set_nonblocking(&socket)?;
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor may change or close; an OwnedFd's may not"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self {
            socket,
            commands,
            events,
            cgroups,
            pending: HashMap::new(),
            outgoing: VecDeque::new(),
            held: VecDeque::new(),
            seq: 0,
        })
    }

    pub(crate) async fn run(mut self) {
        let end = loop {
            if let ControlFlow::Break(end) = self.turn().await {
                break end;
            }
        };
        if let End::Gone(reason) = end {
            tracing::error!(reason, "connection to the holder lost");
            self.lose().await;
        }
    }

    /// Waits for one thing and does it. Every awaited future here is cancellation-safe.
    async fn turn(&mut self) -> Flow {
        let may_read = self.held.len() < EVENTS_HELD_MAX;
        let may_serve = self.outgoing.is_empty() && self.pending.len() < PENDING_MAX;
        let wake = tokio::select! {
            biased;
            ready = self.socket.readable(), if may_read => Wake::Readable(ready.map(drop)),
            permit = self.events.reserve(), if !self.held.is_empty() => {
                match (permit, self.held.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    // Nobody listens any more.
                    _ => self.held.clear(),
                }
                Wake::Told
            }
            ready = self.socket.writable(), if !self.outgoing.is_empty() => {
                Wake::Writable(ready.map(drop))
            }
            command = self.commands.recv(), if may_serve => Wake::Command(command),
        };
        match wake {
            Wake::Readable(Ok(())) => self.read(),
            Wake::Writable(Ok(())) => self.flush(),
            Wake::Readable(Err(e)) | Wake::Writable(Err(e)) => gone(e),
            Wake::Command(Some(command)) => self.serve(command),
            Wake::Command(None) => Flow::Break(End::Unused),
            Wake::Told => Flow::Continue(()),
        }
    }

    fn serve(&mut self, command: Command) -> Flow {
        self.seq += 1;
        let seq = self.seq;
        let (request, fds, pending) = match command {
            Command::Spawn(start, answer) => {
                let Start {
                    mut spawn,
                    fds,
                    stdio,
                    cgroup_is_new,
                } = *start;
                spawn.seq = seq;
                let key = spawn.key.clone();
                let pending = Pending::Spawn {
                    key,
                    stdio,
                    cgroup_is_new,
                    answer,
                };
                (Request::Spawn(spawn), fds, Some(pending))
            }
            Command::List { answer } => {
                let found = Vec::new();
                (
                    Request::List { seq },
                    Vec::new(),
                    Some(Pending::List { found, answer }),
                )
            }
            Command::Acknowledge { key } => (Request::Acknowledge { key }, Vec::new(), None),
            Command::Drop { key, slot } => (Request::Drop { key, slot }, Vec::new(), None),
        };
        match Packet::new(&request, fds) {
            Ok(packet) => {
                self.pending.extend(pending.map(|p| (seq, p)));
                self.outgoing.push_back((seq, packet));
                self.flush()
            }
            Err(error) => {
                match pending {
                    Some(pending) => self.fail(pending, error),
                    None => tracing::error!(error = chain(&error), "request not sent"),
                }
                Flow::Continue(())
            }
        }
    }

    fn flush(&mut self) -> Flow {
        while let Some((seq, packet)) = self.outgoing.front() {
            let seq = *seq;
            match self
                .socket
                .try_io(tokio::io::Interest::WRITABLE, |s| packet.send(s.as_fd()))
            {
                Ok(()) => drop(self.outgoing.pop_front()),
                // The user's sockets are full of descriptors: a start that fails, and no more.
                Err(source) if source.raw_os_error() == Some(nix::libc::ETOOMANYREFS) => {
                    drop(self.outgoing.pop_front());
                    self.fail_unsent(seq, source);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return gone(e),
            }
        }
        Flow::Continue(())
    }

    fn read(&mut self) -> Flow {
        for _ in 0..PACKETS_AT_ONCE_MAX {
            if self.held.len() >= EVENTS_HELD_MAX {
                break;
            }
            let read = self.socket.try_io(tokio::io::Interest::READABLE, |s| {
                wire::receive(s.as_fd(), false)
            });
            match read {
                Ok(Some(Ok(received))) => self.handle(received)?,
                Ok(Some(Err(error))) => return Flow::Break(End::Gone(chain(&error))),
                Ok(None) => return Flow::Break(End::Gone("end of connection".to_owned())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return gone(e),
            }
        }
        Flow::Continue(())
    }

    fn handle(&mut self, Received { reply, fds }: Received) -> Flow {
        match reply {
            Reply::Spawned {
                seq,
                pid,
                started_at_ns,
                ..
            } => self.spawned(seq, pid, started_at_ns, fds),
            Reply::SpawnFailed { seq, failure } => match self.pending.remove(&seq) {
                Some(Pending::Spawn {
                    key,
                    cgroup_is_new,
                    answer,
                    ..
                }) => {
                    let error = Error::start(key.clone(), failure);
                    self.give_up(key, cgroup_is_new, answer, error);
                }
                other => return self.unexpected(seq, other),
            },
            Reply::Process {
                seq,
                key,
                pid,
                started_at_ns,
                exit,
                ..
            } => match self.pending.get_mut(&seq) {
                Some(Pending::List { found, .. }) => {
                    let mut process = Process {
                        key,
                        pid,
                        started_at_ns,
                        exit,
                        pidfd: None,
                        stdio: Stdio::default(),
                    };
                    fill(&mut process, fds);
                    found.push(process);
                }
                _ => return Flow::Break(End::Gone(format!("no list has number {seq}"))),
            },
            Reply::ListEnd { seq } => match self.pending.remove(&seq) {
                Some(Pending::List { found, answer }) => drop(answer.send(Ok(found))),
                other => return self.unexpected(seq, other),
            },
            Reply::Exited { key, exit } => self.tell(Event::Exited { key, exit }),
            Reply::Stopping => self.tell(Event::HolderStopping),
            Reply::Refused { reason } => return Flow::Break(End::Gone(reason)),
            Reply::Welcome { .. } => return Flow::Break(End::Gone("a second Welcome".to_owned())),
        }
        Flow::Continue(())
    }

    fn spawned(&mut self, seq: u64, pid: i32, started_at_ns: u64, fds: Vec<(FdRole, OwnedFd)>) {
        // A process that nobody asked for is in the holder's table all the same, and `list` shows
        // it; its descriptors close here.
        let Some(Pending::Spawn {
            key, stdio, answer, ..
        }) = self.pending.remove(&seq)
        else {
            tracing::error!(
                seq,
                pid,
                "the holder started a process that was not asked for"
            );
            return;
        };
        let mut process = Process {
            key,
            pid,
            started_at_ns,
            exit: None,
            pidfd: None,
            stdio,
        };
        fill(&mut process, fds);
        drop(answer.send(Ok(process)));
    }

    fn unexpected(&mut self, seq: u64, pending: Option<Pending>) -> Flow {
        if let Some(pending) = pending {
            self.fail(pending, Error::HolderGone);
        }
        Flow::Break(End::Gone(format!(
            "request {seq} does not match its answer"
        )))
    }

    /// Only a start carries descriptors.
    fn fail_unsent(&mut self, seq: u64, source: io::Error) {
        if let Some(Pending::Spawn {
            key,
            cgroup_is_new,
            answer,
            ..
        }) = self.pending.remove(&seq)
        {
            let error = Error::InTransit {
                key: key.clone(),
                source,
            };
            self.give_up(key, cgroup_is_new, answer, error);
        }
    }

    /// Answers a request with an error.
    fn fail(&self, pending: Pending, error: Error) {
        match pending {
            Pending::Spawn {
                key,
                cgroup_is_new,
                answer,
                ..
            } => self.give_up(key, cgroup_is_new, answer, error),
            Pending::List { answer, .. } => drop(answer.send(Err(error))),
        }
    }

    /// A container that did not start leaves no cgroup, whether or not its requester still waits.
    /// One that waits hears of it afterwards, so that its next start finds nothing half removed.
    fn give_up(&self, key: ProcessKey, cgroup_is_new: bool, answer: Answer<Process>, error: Error) {
        match &self.cgroups {
            Some(cgroups) if cgroup_is_new => {
                let cgroups = cgroups.clone();
                tokio::spawn(async move {
                    cgroups.remove_or_warn(&key.container).await;
                    drop(answer.send(Err(error)));
                });
            }
            _ => drop(answer.send(Err(error))),
        }
    }

    fn tell(&mut self, event: Event) {
        if !self.held.is_empty() {
            self.held.push_back(event);
            return;
        }
        match self.events.try_send(event) {
            Err(mpsc::error::TrySendError::Full(event)) => self.held.push_back(event),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    /// Tells everyone. New requests fail from the moment that the queue is closed.
    async fn lose(mut self) {
        self.commands.close();
        for (_, pending) in std::mem::take(&mut self.pending) {
            self.fail(pending, Error::HolderGone);
        }
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Spawn(start, answer) => {
                    let Start {
                        spawn,
                        cgroup_is_new,
                        ..
                    } = *start;
                    self.give_up(spawn.key, cgroup_is_new, answer, Error::HolderGone);
                }
                Command::List { answer } => drop(answer.send(Err(Error::HolderGone))),
                Command::Acknowledge { .. } | Command::Drop { .. } => {}
            }
        }
        let held = std::mem::take(&mut self.held);
        for event in held.into_iter().chain([Event::HolderGone]) {
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }
}

/// An error with its causes, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn gone(error: io::Error) -> Flow {
    Flow::Break(End::Gone(error.to_string()))
}

/// Puts received descriptors into their places. What the daemon has already, from having made it,
/// stays; the duplicate closes.
fn fill(process: &mut Process, fds: Vec<(FdRole, OwnedFd)>) {
    let stdio = &mut process.stdio;
    let (mut relay_read, mut relay_write) = (None, None);
    for (role, fd) in fds {
        let place = match role {
            FdRole::Pidfd => &mut process.pidfd,
            FdRole::Keep(Slot::Stdin) => &mut stdio.stdin,
            FdRole::Keep(Slot::Stdout) => &mut stdio.stdout,
            FdRole::Keep(Slot::Stderr) => &mut stdio.stderr,
            FdRole::Keep(Slot::Pty) => {
                // Made by the child, so nobody has set this yet.
                if let Err(error) = set_nonblocking(&fd) {
                    tracing::error!(%error, "terminal cannot be made nonblocking");
                }
                &mut stdio.pty
            }
            FdRole::Keep(Slot::RelayRead) => &mut relay_read,
            FdRole::Keep(Slot::RelayWrite) => &mut relay_write,
            FdRole::Plan
            | FdRole::Cgroup
            | FdRole::NetNs
            | FdRole::Stdin
            | FdRole::Stdout
            | FdRole::Stderr => continue,
        };
        place.get_or_insert(fd);
    }
    if let (None, Some(read), Some(write)) = (&stdio.relay, relay_read, relay_write) {
        stdio.relay = Some((read, write));
    }
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests;
