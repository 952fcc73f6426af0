//! When to try to reach a restarting daemon again, and when to give up.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

use crate::connection::{Address, Connection, poll_timeout};
use crate::error::Error;
use crate::signals::Signals;

/// The first pause: a restarted service listens again after about as long.
const FIRST_PAUSE_MS: u64 = 20;

/// The longest pause between two attempts.
const PAUSE_MS_MAX: u64 = 500;

/// How long a client waits for the daemon to come back, in all. An upgrade takes a second; this
/// leaves room for a machine that is busy.
pub const BACK_S_MAX: u64 = 30;

/// Pauses between attempts: doubling, bounded, and bounded in sum.
#[derive(Debug)]
pub struct Backoff {
    started: Option<Instant>,
    pause: Duration,
}

impl Default for Backoff {
    /// Nothing was tried yet.
    fn default() -> Self {
        Backoff {
            started: None,
            pause: Duration::from_millis(FIRST_PAUSE_MS),
        }
    }
}

impl Backoff {
    /// The next pause at a moment, or none if the time is up. Time runs from the first call.
    pub fn next_pause(&mut self, now: Instant) -> Option<Duration> {
        let started = *self.started.get_or_insert(now);
        if now.saturating_duration_since(started) >= Duration::from_secs(BACK_S_MAX) {
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
        Some(pause)
    }

    /// How long an answer may still be waited for.
    pub fn left(&self, now: Instant) -> Duration {
        let used = self.started.map_or(Duration::ZERO, |started| {
            now.saturating_duration_since(started)
        });
        Duration::from_secs(BACK_S_MAX).saturating_sub(used)
    }

    /// Waits for the daemon to come back and connects. `what` says, as a clause, what it means if
    /// it does not.
    ///
    /// # Errors
    /// [`Error::NotBack`] when the time is up, [`Error::Interrupted`] by a signal.
    pub fn reconnect(
        &mut self,
        address: &Address,
        signals: Option<&Rc<Signals>>,
        what: &str,
    ) -> Result<Connection, Error> {
        while let Some(pause) = self.next_pause(Instant::now()) {
            sleep(pause, signals)?;
            let attempt = match signals {
                Some(signals) => address.connect_with(signals),
                None => address.connect(),
            };
            if let Ok(connection) = attempt {
                return Ok(connection);
            }
        }
        Err(Error::NotBack {
            seconds: BACK_S_MAX,
            what: what.to_owned(),
        })
    }
}

/// Sleeps, unless a signal comes that ends the command.
fn sleep(pause: Duration, signals: Option<&Rc<Signals>>) -> Result<(), Error> {
    let Some(signals) = signals else {
        std::thread::sleep(pause);
        return Ok(());
    };
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let _ = poll(
            &mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)],
            poll_timeout(left),
        );
        if let Some(signal) = signals.next_ending() {
            return Err(Error::Interrupted {
                signal: signal as i32,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end_in_time() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let start = now;
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.next_pause(now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses.get(..7), Some(&[20, 40, 80, 160, 320, 500, 500][..]));
        let total = now - start;
        assert!(
            total >= Duration::from_secs(BACK_S_MAX) && total < Duration::from_secs(BACK_S_MAX + 1),
            "{total:?}"
        );
        assert_eq!(backoff.left(now), Duration::ZERO);
    }
}
