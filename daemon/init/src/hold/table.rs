//! The processes that the holder knows, by number and by key.
//!
//! Pure bookkeeping: no system call is made here, so that every state can be made in a test.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::protocol::{Exit, Failure, FdRole, ProcessKey, Slot};

/// Number of a process in this holder; never reused.
pub(super) type Id = u64;

/// Where a process is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Cloned, not yet its program.
    Starting(Starting),
    /// Its program runs.
    Running,
    /// Ended and reaped; waits to be acknowledged.
    Ended(Exit),
}

/// A child on its way to its program.
#[derive(Debug)]
pub(super) struct Starting {
    /// Status socket; none once it has ended.
    pub(super) status: Option<OwnedFd>,
    /// Connection that asked, and its number for the request; none if that connection is gone, in
    /// which case the child is being killed and nobody will hear of it.
    pub(super) requester: Option<(u64, u64)>,
    /// What it reported.
    pub(super) failure: Option<Failure>,
    /// Pid and pidfd are still those of the go-between that is to make it (an exec, see `spawn`).
    pub(super) unborn: bool,
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) key: ProcessKey,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Held open so that the process's end does not wait for its mounts to go.
    pub(super) mounts: Option<OwnedFd>,
    /// Descriptors kept for the daemon's successor.
    pub(super) kept: BTreeMap<Slot, OwnedFd>,
    /// Nanoseconds since the epoch.
    pub(super) started_at_ns: u64,
    pub(super) stop_signal: i32,
    pub(super) stop_timeout_ms: u32,
    /// While the holder stops: when SIGKILL is due.
    pub(super) kill_at: Option<Instant>,
    pub(super) phase: Phase,
}

impl Process {
    /// How it ended, if it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Ended(exit) => Some(exit),
            _ => None,
        }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting(_))
    }

    /// What a reply about it carries: the pidfd if asked for, then what is kept.
    pub(super) fn fds(&self, with_pidfd: bool) -> (Vec<FdRole>, Vec<BorrowedFd<'_>>) {
        let pidfd = with_pidfd.then(|| (FdRole::Pidfd, self.pidfd.as_fd()));
        let kept = self
            .kept
            .iter()
            .map(|(&slot, fd)| (FdRole::Keep(slot), fd.as_fd()));
        pidfd.into_iter().chain(kept).unzip()
    }

    /// All that is slow, or may be slow, to close.
    pub(super) fn into_fds(self) -> impl Iterator<Item = OwnedFd> {
        self.mounts.into_iter().chain(self.kept.into_values())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    processes: BTreeMap<Id, Process>,
    by_key: HashMap<ProcessKey, Id>,
    /// Unreaped ones only: a pid means nothing after that.
    by_pid: HashMap<i32, Id>,
    last: Id,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.processes.len()
    }

    pub(super) fn insert(&mut self, process: Process) -> Id {
        self.last += 1;
        self.by_key.insert(process.key.clone(), self.last);
        self.by_pid.insert(process.pid, self.last);
        self.processes.insert(self.last, process);
        self.last
    }

    pub(super) fn get(&self, id: Id) -> Option<&Process> {
        self.processes.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Process> {
        self.processes.get_mut(&id)
    }

    pub(super) fn id_of(&self, key: &ProcessKey) -> Option<Id> {
        self.by_key.get(key).copied()
    }

    pub(super) fn id_of_pid(&self, pid: i32) -> Option<Id> {
        self.by_pid.get(&pid).copied()
    }

    /// An exec has told who it is: from now on the go-between is nobody's.
    pub(super) fn born(&mut self, id: Id, pid: i32, pidfd: OwnedFd) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        self.by_pid.remove(&process.pid);
        self.by_pid.insert(pid, id);
        (process.pid, process.pidfd) = (pid, pidfd);
        if let Phase::Starting(starting) = &mut process.phase {
            starting.unborn = false;
        }
    }

    /// Execs that have not told who they are.
    pub(super) fn unborn(&self) -> Vec<Id> {
        let unborn = |process: &Process| match &process.phase {
            Phase::Starting(starting) => starting.unborn,
            _ => false,
        };
        self.iter()
            .filter(|(_, process)| unborn(process))
            .map(|(id, _)| id)
            .collect()
    }

    /// After a process was reaped.
    pub(super) fn forget_pid(&mut self, pid: i32) {
        self.by_pid.remove(&pid);
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Process> {
        let process = self.processes.remove(&id)?;
        self.by_key.remove(&process.key);
        Some(process)
    }

    /// The first process numbered `from` or higher that a daemon may be told of.
    pub(super) fn next_listed(&self, from: Id) -> Option<(Id, &Process)> {
        let mut rest = self.processes.range(from..);
        rest.find(|(_, process)| !process.is_starting())
            .map(|(&id, process)| (id, process))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Process)> {
        self.processes.iter().map(|(&id, process)| (id, process))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(container: &str, pid: i32, phase: Phase) -> Process {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Process {
            key: ProcessKey {
                container: container.into(),
                exec: None,
            },
            pid,
            pidfd: null(),
            mounts: Some(null()),
            kept: BTreeMap::from([(Slot::Stdout, null()), (Slot::Stdin, null())]),
            started_at_ns: 0,
            stop_signal: 15,
            stop_timeout_ms: 0,
            kill_at: None,
            phase,
        }
    }

    #[test]
    fn a_starting_process_is_not_listed() {
        let mut table = Table::default();
        let starting = Starting {
            status: None,
            requester: None,
            failure: None,
            unborn: true,
        };
        let first = table.insert(process("a", 10, Phase::Starting(starting)));
        let second = table.insert(process("b", 11, Phase::Running));
        assert_eq!(table.next_listed(first).map(|(id, _)| id), Some(second));
        assert!(table.next_listed(second + 1).is_none());
    }

    #[test]
    fn numbers_are_not_reused() {
        let mut table = Table::default();
        let first = table.insert(process("a", 10, Phase::Running));
        table.remove(first);
        let second = table.insert(process("a", 10, Phase::Running));
        assert_ne!(first, second);
        assert_eq!(
            table.id_of(&table.get(second).unwrap().key.clone()),
            Some(second)
        );
    }

    #[test]
    fn an_exec_is_found_by_its_own_pid_once_it_is_born() {
        let mut table = Table::default();
        let starting = Starting {
            status: None,
            requester: None,
            failure: None,
            unborn: true,
        };
        let id = table.insert(process("a", 10, Phase::Starting(starting)));
        assert_eq!(table.unborn(), [id]);
        table.born(id, 11, std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!((table.id_of_pid(10), table.id_of_pid(11)), (None, Some(id)));
        assert_eq!(table.unborn(), []);
    }

    #[test]
    fn roles_and_descriptors_correspond() {
        let process = process("a", 10, Phase::Running);
        let (roles, fds) = process.fds(true);
        let expected = [
            FdRole::Pidfd,
            FdRole::Keep(Slot::Stdin),
            FdRole::Keep(Slot::Stdout),
        ]
        .to_vec();
        assert_eq!((roles, fds.len()), (expected, 3));
        assert_eq!(process.into_fds().count(), 3);
    }
}
