//! The event loop: what happens, and who does something about it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rcd_sys::{pidfd, scm};

use super::peer::{Gone, Peer};
use super::spawn::{self, Nursery};
use super::start::Parts;
use super::stop::Stop;
use super::table::{Id, Phase, Table};
use super::{BATCH_MAX, STRANGERS_MAX};
use crate::Error;
use crate::protocol::{
    Failure, FdRole, PACKET_BYTES_MAX, PROTOCOL_VERSION, ProcessKey, Reply, Request, Slot, Spawn,
    Step, assign, decode,
};

/// How soon the loop comes back to a cleaner or a daemon that the kernel took nothing more for.
const RETRY_MS: u16 = 50;

/// What an event is about. With a number it makes the 64 bits that epoll hands back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Signals,
    Peer(u64),
    Status(Id),
}

impl Source {
    fn pack(self) -> u64 {
        match self {
            Self::Listener => 0,
            Self::Signals => 1,
            Self::Peer(number) => number << 2 | 2,
            Self::Status(id) => id << 2 | 3,
        }
    }

    fn unpack(bits: u64) -> Self {
        match (bits & 3, bits >> 2) {
            (2, number) => Self::Peer(number),
            (3, id) => Self::Status(id),
            (1, _) => Self::Signals,
            _ => Self::Listener,
        }
    }
}

/// The holder at work.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) parts: Parts,
    pub(super) epoll: Epoll,
    signals: SignalFd,
    pub(super) table: Table,
    peers: BTreeMap<u64, Peer>,
    /// The connection that is the daemon.
    pub(super) daemon: Option<u64>,
    last_peer: u64,
    stop: Option<Stop>,
}

impl Server {
    pub(super) fn new(parts: Parts) -> Result<Self, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(Error::call("make an epoll instance"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&parts.signals, flags)
            .map_err(Error::call("make a signal descriptor"))?;
        let event = |source: Source| EpollEvent::new(EpollFlags::EPOLLIN, source.pack());
        epoll
            .add(&parts.listener, event(Source::Listener))
            .and_then(|()| epoll.add(&signals, event(Source::Signals)))
            .map_err(Error::call("watch the socket and signals"))?;
        let (table, peers) = (Table::default(), BTreeMap::new());
        let (daemon, last_peer, stop) = (None, 0, None);
        Ok(Self {
            parts,
            epoll,
            signals,
            table,
            peers,
            daemon,
            last_peer,
            stop,
        })
    }

    /// Serves until stopped.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); BATCH_MAX];
        while let Some(timeout) = self.timeout() {
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(source) => {
                    return Err(Error::Call {
                        action: "wait for events",
                        source,
                    });
                }
            };
            for event in events.iter().take(count) {
                match Source::unpack(event.data()) {
                    Source::Listener => self.accept(),
                    Source::Signals => self.signalled(),
                    Source::Peer(number) => self.peer_event(number, event.events()),
                    Source::Status(id) => self.status_event(id),
                }
            }
            self.parts.cleaner.flush();
            if self.is_stalled() {
                self.pump_daemon();
            }
        }
        self.pump_daemon();
        // Not through the cleaner: the socket of the next holder may be there in a moment.
        let _ = std::fs::remove_file(&self.parts.socket);
        drop(self.parts.lock);
        Ok(())
    }

    /// How long to wait for events; none to end.
    fn timeout(&mut self) -> Option<EpollTimeout> {
        let behind = self.parts.cleaner.is_behind() || self.is_stalled();
        let soon = if behind { RETRY_MS } else { u16::MAX };
        if let Some(stop) = &self.stop {
            let now = Instant::now();
            let left = stop
                .turn(&mut self.table, now)?
                .saturating_duration_since(now);
            // Rounded up, or the loop would spin through the last millisecond.
            let ms = u16::try_from(left.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
            return Some(EpollTimeout::from(ms.min(soon)));
        }
        Some(if behind {
            EpollTimeout::from(soon)
        } else {
            EpollTimeout::NONE
        })
    }

    /// Whether the daemon's answers wait for something that no event will tell of.
    fn is_stalled(&self) -> bool {
        self.daemon
            .and_then(|number| self.peers.get(&number))
            .is_some_and(|peer| peer.stalled)
    }

    // Connections.

    fn accept(&mut self) {
        let socket = match scm::accept(self.parts.listener.as_fd()) {
            Ok(socket) => socket,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return,
            Err(errno) => return self.parts.log.line(format_args!("cannot accept: {errno}")),
        };
        // Within the namespace, the holder's own user is 0 and nobody else is.
        let peer = Peer::new(socket);
        if scm::peer_uid(peer.socket.as_fd()) != Ok(0) {
            return peer.refuse("another user");
        }
        self.last_peer += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Peer(self.last_peer).pack());
        if let Err(errno) = self.epoll.add(&peer.socket, event) {
            return self
                .parts
                .log
                .line(format_args!("cannot watch a connection: {errno}"));
        }
        self.peers.insert(self.last_peer, peer);
        let strangers: Vec<u64> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.greeted)
            .map(|(&number, _)| number)
            .collect();
        if strangers.len() > STRANGERS_MAX
            && let Some(&oldest) = strangers.first()
        {
            self.refuse(oldest, "too many connections that did not say hello");
        }
    }

    fn peer_event(&mut self, number: u64, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.pump(number);
        }
        let mut buffer = [0; PACKET_BYTES_MAX];
        for _ in 0..BATCH_MAX {
            let Some(peer) = self.peers.get(&number) else {
                return;
            };
            let packet = match scm::receive(peer.socket.as_fd(), &mut buffer, false) {
                Ok(packet) => packet,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(_) => return self.forget_peer(number),
            };
            if packet.len == 0 {
                return self.forget_peer(number);
            }
            let bytes = buffer.get(..packet.len).unwrap_or_default();
            match parse(bytes, packet.truncated, packet.fds) {
                Ok((request, fds)) => self.request(number, request, fds),
                Err(error) => return self.refuse(number, &error.to_string()),
            }
        }
    }

    fn refuse(&mut self, number: u64, reason: &str) {
        self.parts
            .log
            .line(format_args!("connection refused: {reason}"));
        if let Some(peer) = self.peers.get(&number) {
            peer.refuse(reason);
        }
        self.forget_peer(number);
    }

    /// Ends a connection. What it was starting is killed: nobody knows of it (see the module above).
    fn forget_peer(&mut self, number: u64) {
        let Some(peer) = self.peers.remove(&number) else {
            return;
        };
        // Before the close: a child on its way may hold the socket too, and keep it in the set.
        let _ = self.epoll.delete(&peer.socket);
        drop(peer);
        if self.daemon == Some(number) {
            self.daemon = None;
        }
        let starting: Vec<Id> = self
            .table
            .iter()
            .filter(|(_, p)| p.is_starting())
            .map(|(id, _)| id)
            .collect();
        for id in starting {
            self.status_event(id);
            if let Some(process) = self.table.get_mut(id)
                && let Phase::Starting(starting) = &mut process.phase
                && starting
                    .requester
                    .is_none_or(|(requester, _)| requester == number)
            {
                starting.requester = None;
                let _ = pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL);
            }
        }
    }

    /// Sends what can be sent, and has epoll tell when more can be.
    fn pump(&mut self, number: u64) {
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let left = peer.pump(&self.table).and_then(|left| {
            if left != peer.watches_writable {
                let wanted = if left {
                    EpollFlags::EPOLLOUT
                } else {
                    EpollFlags::empty()
                };
                let bits = Source::Peer(number).pack();
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN | wanted, bits);
                self.epoll
                    .modify(&peer.socket, &mut event)
                    .map_err(|_| Gone)?;
                peer.watches_writable = left;
            }
            Ok(())
        });
        if left.is_err() {
            self.forget_peer(number);
        }
    }

    fn pump_daemon(&mut self) {
        if let Some(number) = self.daemon {
            self.pump(number);
        }
    }

    // Requests.

    fn request(&mut self, number: u64, request: Request, fds: Vec<(FdRole, OwnedFd)>) {
        match request {
            Request::Hello { version } => self.hello(number, version),
            _ if self.daemon != Some(number) => self.refuse(number, "a request before hello"),
            Request::Spawn(spawn) => self.spawn(number, &spawn, fds),
            Request::List { seq } => self.answer(number, |peer| peer.list(seq)),
            Request::Acknowledge { key } => self.acknowledge(&key),
            Request::Drop { key, slot } => self.drop_kept(&key, slot),
        }
    }

    /// Queues an answer and sends it; a connection that reads none of its answers is over.
    pub(super) fn answer(&mut self, number: u64, push: impl FnOnce(&mut Peer) -> Result<(), Gone>) {
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        match push(peer) {
            Ok(()) => self.pump(number),
            Err(Gone) => self.refuse(number, "too many answers are not read"),
        }
    }

    fn hello(&mut self, number: u64, version: u32) {
        if version == 0 {
            return self.refuse(number, "protocol version 0 does not exist");
        }
        if self.daemon == Some(number) {
            return self.refuse(number, "a second hello");
        }
        if let Some(older) = self.daemon {
            self.refuse(older, "another connection is the daemon now");
        }
        self.daemon = Some(number);
        let cgroup = self
            .parts
            .cgroup
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        let pid = std::process::id() as i32;
        let welcome = Reply::Welcome {
            version: version.min(PROTOCOL_VERSION),
            pid,
            cgroup,
        };
        let ended: Vec<Id> = self
            .table
            .iter()
            .filter(|(_, process)| process.exit().is_some())
            .map(|(id, _)| id)
            .collect();
        let stopping = self.stop.is_some();
        self.answer(number, |peer| {
            peer.greeted = true;
            ended.into_iter().for_each(|id| peer.exited(id));
            peer.reply(welcome)?;
            if stopping {
                peer.reply(Reply::Stopping)
            } else {
                Ok(())
            }
        });
    }

    fn spawn(&mut self, number: u64, request: &Spawn, fds: Vec<(FdRole, OwnedFd)>) {
        let seq = request.seq;
        let nursery = Nursery {
            mount_point: &self.parts.mount_point,
            nofile: self.parts.nofile,
        };
        let spawned = match self.stop {
            Some(_) => Err(spawn::refusal(&request.key, "the holder is stopping")),
            None => spawn::spawn(&self.table, &nursery, (number, seq), request, fds),
        };
        match spawned {
            Ok(process) => {
                let id = self.table.insert(process);
                self.watch_status(id);
            }
            Err(failure) => self.answer(number, |peer| {
                peer.reply(Reply::SpawnFailed { seq, failure })
            }),
        }
    }

    fn watch_status(&mut self, id: Id) {
        let Some(process) = self.table.get_mut(id) else {
            return;
        };
        let Phase::Starting(starting) = &mut process.phase else {
            return;
        };
        let Some(status) = &starting.status else {
            return;
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Status(id).pack());
        if let Err(errno) = self.epoll.add(status, event) {
            // It could not be heard, so it shall not be; its end brings the answer.
            let object = "status socket".into();
            let detail = "it cannot be watched".into();
            starting.failure = Some(Failure {
                step: Step::Clone,
                object,
                errno: errno as i32,
                detail,
            });
            let _ = pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    fn acknowledge(&mut self, key: &ProcessKey) {
        let Some(id) = self.table.id_of(key) else {
            return;
        };
        // Acknowledging what has not ended is a mistake that must not lose an exit code.
        if self
            .table
            .get(id)
            .is_some_and(|process| process.exit().is_some())
        {
            self.discard(id);
        }
    }

    fn drop_kept(&mut self, key: &ProcessKey, slot: Slot) {
        let id = self.table.id_of(key);
        if let Some(process) = id.and_then(|id| self.table.get_mut(id)) {
            // Here and now: the program waits for its end of input. Pipes close quickly.
            drop(process.kept.remove(&slot));
        }
    }

    pub(super) fn discard(&mut self, id: Id) {
        if let Some(process) = self.table.remove(id) {
            self.parts.cleaner.close(process.into_fds());
        }
    }

    // Signals.

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGTERM | libc::SIGINT => self.terminate(),
                _ => self.reap(),
            }
        }
    }

    fn terminate(&mut self) {
        let now = Instant::now();
        if let Some(stop) = &mut self.stop {
            return stop.hurry(&mut self.table, now);
        }
        super::notify::notify("STOPPING=1");
        self.stop = Some(Stop::begin(&mut self.table, now));
        if let Some(number) = self.daemon {
            self.answer(number, |peer| peer.reply(Reply::Stopping));
        }
    }
}

/// A packet as a request with its descriptors.
fn parse(
    bytes: &[u8],
    truncated: bool,
    fds: Vec<OwnedFd>,
) -> Result<(Request, Vec<(FdRole, OwnedFd)>), Error> {
    if truncated {
        return Err(Error::PacketTooLarge { bytes: bytes.len() });
    }
    let request: Request = decode(bytes)?;
    let fds = assign(request.roles(), fds)?;
    Ok((request, fds))
}
