//! Signals as something to poll, not as handlers.
//!
//! A command that owns a terminal or a container blocks the signals that would end it and reads them
//! from a signalfd in its poll loop; so every wait can be interrupted and every clean-up runs in
//! ordinary code. The mask is restored when the value is dropped.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::Error;

/// Signals that end a process by default and that people and service managers send.
const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Signals that are also passed on to a container (`--sig-proxy`).
const PROXIED: [Signal; 5] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGIO,
    Signal::SIGCONT,
];

/// Blocked signals, readable from a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Blocks the signals that end a process, and SIGWINCH; with `proxy`, those too that are passed
    /// on besides.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn block(proxy: bool) -> Result<Signals, Error> {
        let mut set: SigSet = ENDING.into_iter().collect();
        set.add(Signal::SIGWINCH);
        if proxy {
            set.extend(PROXIED);
        }
        let failed = |errno: nix::Error| Error::Io {
            operation: "watch signals",
            source: errno.into(),
        };
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before)).map_err(failed)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(failed)?;
        Ok(Signals { fd, before })
    }

    /// The next signal that came, if any.
    pub fn next(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok().flatten()?;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }

    /// The first signal that came and ends a command; others are dropped.
    pub fn next_ending(&self) -> Option<Signal> {
        std::iter::from_fn(|| self.next()).find(|signal| ENDING.contains(signal))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What is still pending must not kill a command that has ended well.
        while self.next().is_some() {}
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
