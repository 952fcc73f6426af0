//! Stopping: what SIGTERM sets going, as `rc stop` would do it for each container.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::libc;
use rcd_sys::pidfd;

use super::KILL_GRACE_MS;
use super::table::{Phase, Table};

/// A stop that is under way.
#[derive(Debug)]
pub(super) struct Stop {
    /// When the holder exits whatever is left.
    give_up_at: Instant,
}

impl Stop {
    /// Asks every container's init to stop; a child that is not its program yet is killed. Execs end
    /// with their init, or, without a pid namespace to take them along, are killed with the last.
    pub(super) fn begin(table: &mut Table, now: Instant) -> Self {
        let mut last = now;
        for process in table
            .iter_mut()
            .filter(|process| process.key.exec.is_none())
        {
            let asked = matches!(process.phase, Phase::Running)
                && pidfd::send_signal(process.pidfd.as_fd(), process.stop_signal).is_ok();
            let patience = if asked { process.stop_timeout_ms } else { 0 };
            let due = now + Duration::from_millis(patience.into());
            last = last.max(due);
            process.kill_at = Some(due);
        }
        for process in table
            .iter_mut()
            .filter(|process| process.key.exec.is_some())
        {
            process.kill_at = Some(last);
        }
        Self {
            give_up_at: last + Duration::from_millis(KILL_GRACE_MS),
        }
    }

    /// Makes everything due now: the second SIGTERM.
    pub(super) fn hurry(&mut self, table: &mut Table, now: Instant) {
        for process in table.iter_mut().filter(|process| process.kill_at.is_some()) {
            process.kill_at = Some(now);
        }
        self.give_up_at = now + Duration::from_millis(KILL_GRACE_MS);
    }

    /// Kills what is due, and says when to come again; none if the stop is over.
    pub(super) fn turn(&self, table: &mut Table, now: Instant) -> Option<Instant> {
        if table.iter().all(|(_, process)| process.exit().is_some()) || now >= self.give_up_at {
            return None;
        }
        let mut next = self.give_up_at;
        for process in table.iter_mut().filter(|process| process.exit().is_none()) {
            match process.kill_at {
                Some(due) if due <= now => {
                    // ESRCH: it has ended, which SIGCHLD is about to tell.
                    let _ = pidfd::send_signal(process.pidfd.as_fd(), libc::SIGKILL);
                    process.kill_at = None;
                }
                Some(due) => next = next.min(due),
                None => {}
            }
        }
        Some(next)
    }
}
