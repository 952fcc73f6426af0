//! The loop's part about children: what a starting one says, and what is left when one has ended.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcd_sys::{pidfd, process, scm};

use super::server::Server;
use super::spawn;
use super::table::{Id, Phase, Starting};
use crate::protocol::{Exit, Failure, PACKET_BYTES_MAX, Reply, Slot, Step, decode};
use crate::stage;

impl Server {
    /// Reads what a starting child says, up to now.
    pub(super) fn status_event(&mut self, id: Id) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let Some(process) = self.table.get_mut(id) else {
                return;
            };
            let Phase::Starting(starting) = &mut process.phase else {
                return;
            };
            let Some(status) = &starting.status else {
                return;
            };
            let packet = match scm::receive(status.as_fd(), &mut buffer, false) {
                Ok(packet) if packet.len > 0 => packet,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                _ => {
                    // Before the close, as with a connection.
                    let _ = self.epoll.delete(status);
                    starting.status = None;
                    return self.status_ended(id);
                }
            };
            let bytes = buffer.get(..packet.len).unwrap_or_default();
            match heard(bytes, packet.fds, packet.sender) {
                Heard::Born(pid) => self.born(id, pid),
                Heard::Terminal(master) => drop(process.kept.insert(Slot::Pty, master)),
                Heard::Failure(failure) => {
                    starting.failure.get_or_insert(failure);
                    // It is about to exit by itself; now it cannot fail to.
                    let _ = pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL);
                }
            }
        }
    }

    /// An exec says which process it is.
    fn born(&mut self, id: Id, pid: i32) {
        // The pid is right, since only this loop reaps. Without descriptors left it cannot be held.
        let Ok(pidfd) = pidfd::open(pid) else {
            let pid = Pid::from_raw(pid);
            let _ = kill(pid, Signal::SIGKILL);
            return;
        };
        self.table.born(id, pid, pidfd);
        if let Some(process) = self.table.get(id)
            && let Phase::Starting(Starting {
                requester: None, ..
            }) = process.phase
        {
            let _ = pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// The status socket is closed: by execve, or by the end of the child.
    fn status_ended(&mut self, id: Id) {
        let Some(process) = self.table.get_mut(id) else {
            return;
        };
        let Phase::Starting(starting) = &process.phase else {
            return;
        };
        if starting.unborn {
            // Neither it nor the go-between will be heard of again, so there is nothing to reap.
            let lost = process::Ended {
                pid: 0,
                code: 0,
                signal: 0,
            };
            return self.ended(id, lost);
        }
        if starting.failure.is_some() {
            return;
        }
        let requester = starting.requester;
        // If this cannot be read, a child that lives and has closed its socket has executed.
        let executed = process::never_executed(process.pid).map_or_else(
            |_| pidfd::send_signal(process.pidfd.as_fd(), 0).is_ok(),
            |never| !never,
        );
        // Without a requester it is being killed, and nobody shall hear of it.
        if let (true, Some((number, seq))) = (executed, requester) {
            process.phase = Phase::Running;
            self.answer(number, |peer| peer.spawned(seq, id));
        }
    }

    /// Reaps every child that has ended: containers', and orphans that came to us as their subreaper.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(pid)) = process::peek_ended() {
            let mut id = self.table.id_of_pid(pid);
            if id.is_none() {
                // An exec may have ended before its first packet was read.
                self.table
                    .unborn()
                    .into_iter()
                    .for_each(|id| self.status_event(id));
                id = self.table.id_of_pid(pid);
            }
            if let Some(id) = id {
                // As long as it is a zombie, what it said and whether it executed can be known.
                self.status_event(id);
                if !self.is_unborn(id) {
                    self.status_ended(id);
                }
            }
            // Again: it may have turned out to be a go-between, whose end means nothing.
            let id = self.table.id_of_pid(pid).filter(|&id| !self.is_unborn(id));
            let Ok(Some(ended)) = process::reap(pid) else {
                return;
            };
            self.table.forget_pid(pid);
            if let Some(id) = id {
                self.ended(id, ended);
            }
        }
    }

    fn is_unborn(&self, id: Id) -> bool {
        self.table
            .get(id)
            .is_some_and(|process| match &process.phase {
                Phase::Starting(starting) => starting.unborn,
                _ => false,
            })
    }

    fn ended(&mut self, id: Id, ended: process::Ended) {
        let Some(process) = self.table.get_mut(id) else {
            return;
        };
        self.parts.cleaner.close(process.mounts.take());
        let exit = Exit {
            code: ended.code,
            signal: ended.signal,
            at_ns: spawn::now_ns(),
        };
        if let Phase::Starting(starting) = &mut process.phase {
            let failure = starting.failure.take().unwrap_or_else(|| ended_early(exit));
            let (requester, status) = (starting.requester, starting.status.take());
            if let Some(status) = status {
                let _ = self.epoll.delete(&status);
            }
            self.discard(id);
            if let Some((number, seq)) = requester {
                self.answer(number, |peer| {
                    peer.reply(Reply::SpawnFailed { seq, failure })
                });
            }
            return;
        }
        process.phase = Phase::Ended(exit);
        if let Some(number) = self.daemon {
            self.answer(number, |peer| {
                peer.exited(id);
                Ok(())
            });
        }
    }
}

/// What a starting child says.
enum Heard {
    Born(i32),
    Terminal(OwnedFd),
    Failure(Failure),
}

fn heard(bytes: &[u8], fds: Vec<OwnedFd>, sender: Option<i32>) -> Heard {
    let nonsense = || Failure {
        step: Step::Exec,
        object: String::new(),
        errno: 0,
        detail: "the child's report makes no sense".into(),
    };
    let master = fds.into_iter().next();
    match (bytes, sender) {
        (spawn::BORN_PACKET, Some(pid)) => Heard::Born(pid),
        (stage::TERMINAL_PACKET, _) => {
            master.map_or_else(|| Heard::Failure(nonsense()), Heard::Terminal)
        }
        _ => {
            let report = bytes.strip_prefix(stage::FAILURE_PACKET);
            let failure = report.and_then(|report| decode(report).ok());
            Heard::Failure(failure.unwrap_or_else(nonsense))
        }
    }
}

fn ended_early(exit: Exit) -> Failure {
    let detail = match exit.signal {
        0 if exit.code == 0 => {
            "it was ended before it began, as by the end of its container".into()
        }
        0 => format!(
            "the child exited with code {} before its program",
            exit.code
        ),
        signal => format!("the child was ended by signal {signal} before its program"),
    };
    Failure {
        step: Step::Exec,
        object: String::new(),
        errno: 0,
        detail,
    }
}
