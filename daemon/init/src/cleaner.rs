//! The cleaner: a process whose only work is to close descriptors.
//!
//! The last close of a mount namespace unmounts all that is in it, and unmounting an overlay syncs
//! the file system of its upper directory: seconds, beside much dirty data. The holder has one
//! thread and must answer meanwhile, so it sends such descriptors here (SCM_RIGHTS) and forgets
//! them. The cleaner receives a packet, drops what came with it, and takes the next; at the end of
//! the socket, which is the end of the holder, it exits.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rcd_sys::{Errno, clone, process, scm};

use crate::error::Error;

/// The holder's end.
#[derive(Debug)]
pub(crate) struct Cleaner {
    socket: OwnedFd,
    /// What the socket has not taken yet. Bounded by the holder's descriptor limit, whose reserve
    /// the admission of new processes respects.
    waiting: VecDeque<OwnedFd>,
}

impl Cleaner {
    /// Forks it.
    pub(crate) fn start() -> Result<Self, Error> {
        Ok(Self {
            socket: fork()?,
            waiting: VecDeque::new(),
        })
    }

    /// Has descriptors closed over there. Never waits.
    pub(crate) fn close(&mut self, fds: impl IntoIterator<Item = OwnedFd>) {
        self.waiting.extend(fds);
        self.flush();
    }

    /// Sends on what waits, as far as the socket takes it. Called again at every turn of the
    /// holder's loop. A cleaner that was killed is replaced; where even that fails, the holder
    /// closes the descriptors itself: slow, but nothing leaks.
    pub(crate) fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(scm::FDS_MAX);
            let batch: Vec<BorrowedFd<'_>> =
                self.waiting.iter().take(count).map(AsFd::as_fd).collect();
            match scm::send(self.socket.as_fd(), b"x", &batch) {
                Ok(()) => drop(self.waiting.drain(..count)),
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => return,
                Err(_) => match fork() {
                    Ok(socket) => self.socket = socket,
                    Err(_) => self.waiting.clear(),
                },
            }
        }
    }

    /// Whether something waits for room in the socket.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn fork() -> Result<OwnedFd, Error> {
    let (mine, theirs) = scm::pair().map_err(Error::call("make a socket pair"))?;
    let keep = [theirs.as_raw_fd()];
    let options = clone::Options {
        keep: Some(&keep),
        ..clone::Options::default()
    };
    clone::clone3(options, move || clean(&theirs)).map_err(Error::call("fork the cleaner"))?;
    Ok(mine)
}

fn clean(socket: &OwnedFd) -> Infallible {
    loop {
        match scm::receive(socket.as_fd(), &mut [0; 1], true) {
            Ok(packet) if packet.len > 0 => drop(packet),
            Err(Errno::EINTR) => {}
            _ => process::exit_now(0),
        }
    }
}
