//! One connection: what waits to be sent on it, and sending that without waiting.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcd_sys::{Errno, scm};

use super::QUEUE_PACKETS_MAX;
use super::table::{Id, Table};
use crate::protocol::{Reply, encode};

/// An answer in the queue. Those about processes are made when they are sent, from the table, so
/// that nothing is duplicated in the meantime.
#[derive(Debug)]
enum Outgoing {
    Reply(Reply),
    Spawned {
        seq: u64,
        id: Id,
    },
    /// The rest of a List, from this number on.
    List {
        seq: u64,
        from: Id,
    },
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    /// The socket is full; epoll tells when it is not.
    Full,
    /// Memory is short, or more descriptors of this user are in transit than `RLIMIT_NOFILE`
    /// (`unix(7)`, `ETOOMANYREFS`), to which any container can add: no fault of this connection.
    Later,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: OwnedFd,
    /// It has said Hello.
    pub(super) greeted: bool,
    /// epoll tells when the socket takes more.
    pub(super) watches_writable: bool,
    /// The kernel takes nothing for a reason that epoll does not watch, see [`Sent::Later`].
    pub(super) stalled: bool,
    queue: VecDeque<Outgoing>,
    /// Ended processes that this connection has not heard of: at most one entry a process.
    exits: VecDeque<Id>,
}

impl Peer {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let (queue, exits) = (VecDeque::new(), VecDeque::new());
        Self {
            socket,
            greeted: false,
            watches_writable: false,
            stalled: false,
            queue,
            exits,
        }
    }

    pub(super) fn reply(&mut self, reply: Reply) -> Result<(), Gone> {
        self.push(Outgoing::Reply(reply))
    }

    pub(super) fn spawned(&mut self, seq: u64, id: Id) -> Result<(), Gone> {
        self.push(Outgoing::Spawned { seq, id })
    }

    pub(super) fn list(&mut self, seq: u64) -> Result<(), Gone> {
        self.push(Outgoing::List { seq, from: 0 })
    }

    pub(super) fn exited(&mut self, id: Id) {
        self.exits.push_back(id);
    }

    fn push(&mut self, outgoing: Outgoing) -> Result<(), Gone> {
        if self.queue.len() >= QUEUE_PACKETS_MAX {
            return Err(Gone);
        }
        self.queue.push_back(outgoing);
        Ok(())
    }

    /// Sends a last word, if the socket takes it now.
    pub(super) fn refuse(&self, reason: &str) {
        let reason = reason.chars().take(512).collect();
        if let Ok(bytes) = encode(&Reply::Refused { reason }) {
            let _ = scm::send(self.socket.as_fd(), &bytes, &[]);
        }
    }

    /// Sends as much as the socket takes: answers in the order of requests, then exits. Tells
    /// whether the socket is full.
    pub(super) fn pump(&mut self, table: &Table) -> Result<bool, Gone> {
        let sent = match self.pump_answers(table)? {
            Sent::Yes => self.pump_exits(table)?,
            sent => sent,
        };
        self.stalled = sent == Sent::Later;
        Ok(sent == Sent::Full)
    }

    fn pump_answers(&mut self, table: &Table) -> Result<Sent, Gone> {
        while let Some(next) = self.queue.front_mut() {
            let (sent, rest) = match next {
                Outgoing::Reply(reply) => (send(&self.socket, reply, &[])?, None),
                Outgoing::Spawned { seq, id } => {
                    (send_spawned(&self.socket, *seq, *id, table)?, None)
                }
                Outgoing::List { seq, from } => match table.next_listed(*from) {
                    Some((id, process)) => (
                        send_process(&self.socket, *seq, process)?,
                        Some((*seq, id + 1)),
                    ),
                    None => (
                        send(&self.socket, &Reply::ListEnd { seq: *seq }, &[])?,
                        None,
                    ),
                },
            };
            match (sent, rest) {
                (Sent::Yes, Some((seq, from))) => *next = Outgoing::List { seq, from },
                (Sent::Yes, None) => drop(self.queue.pop_front()),
                (sent, _) => return Ok(sent),
            }
        }
        Ok(Sent::Yes)
    }

    fn pump_exits(&mut self, table: &Table) -> Result<Sent, Gone> {
        while let Some(&id) = self.exits.front() {
            if let Some(process) = table.get(id)
                && let Some(exit) = process.exit()
            {
                let key = process.key.clone();
                let sent = send(&self.socket, &Reply::Exited { key, exit }, &[])?;
                if sent != Sent::Yes {
                    return Ok(sent);
                }
            }
            self.exits.pop_front();
        }
        Ok(Sent::Yes)
    }
}

fn send_spawned(socket: &OwnedFd, seq: u64, id: Id, table: &Table) -> Result<Sent, Gone> {
    // A daemon that acknowledged the end before it read of the start needs no answer any more.
    let Some(process) = table.get(id) else {
        return Ok(Sent::Yes);
    };
    let (roles, fds) = process.fds(true);
    send(
        socket,
        &Reply::Spawned {
            seq,
            pid: process.pid,
            started_at_ns: process.started_at_ns,
            fds: roles,
        },
        &fds,
    )
}

fn send_process(socket: &OwnedFd, seq: u64, process: &super::table::Process) -> Result<Sent, Gone> {
    let exit = process.exit();
    let (roles, fds) = process.fds(exit.is_none());
    let (key, pid, started_at_ns) = (process.key.clone(), process.pid, process.started_at_ns);
    send(
        socket,
        &Reply::Process {
            seq,
            key,
            pid,
            started_at_ns,
            exit,
            fds: roles,
        },
        &fds,
    )
}

fn send(socket: &OwnedFd, reply: &Reply, fds: &[BorrowedFd<'_>]) -> Result<Sent, Gone> {
    let bytes = encode(reply).map_err(|_| Gone)?;
    match scm::send(socket.as_fd(), &bytes, fds) {
        Ok(()) => Ok(Sent::Yes),
        Err(Errno::EAGAIN) => Ok(Sent::Full),
        Err(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => Ok(Sent::Later),
        Err(_) => Err(Gone),
    }
}
