//! Into the holder's namespaces, before there is a second thread.
//!
//! ```text
//!   connect ─ Hello ─► Welcome ─ pidfd of the holder ─ setns(USER|NS) ─ uid, gid 0 ─ chdir /
//! ```
//!
//! The kernel lets only a single-threaded process change its user namespace (`setns(2)`), so this
//! runs before the async runtime starts. The process keeps its pid, and gains all capabilities in
//! the user namespace, over the ids that are mapped there and nothing else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Uid};
use rcd_init::protocol::{PROTOCOL_VERSION, Reply, Request};

use crate::Error;
use crate::wire::{self, Packet};

/// The oldest protocol that this daemon speaks: the one before the newest, if there is one.
const PROTOCOL_VERSION_MIN: u32 = if PROTOCOL_VERSION > 1 {
    PROTOCOL_VERSION - 1
} else {
    1
};

/// How long the holder may take to answer. It answers from its event loop in well under 1 ms; a
/// stopped or hung one must not hang the daemon's start for ever.
const WELCOME_TIMEOUT_S: i64 = 10;

/// A connection to the holder, its namespaces joined.
#[derive(Debug)]
pub struct Joined {
    pub(crate) socket: OwnedFd,
    holder_pid: i32,
    cgroup: Option<PathBuf>,
    protocol: u32,
}

impl Joined {
    /// The holder's pid on the host.
    pub fn holder_pid(&self) -> i32 {
        self.holder_pid
    }

    /// The holder's delegated cgroup as an absolute directory, where there is one.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// The protocol version that both speak.
    pub fn protocol(&self) -> u32 {
        self.protocol
    }

    /// Says hello on a connected socket.
    pub(crate) fn handshake(socket: OwnedFd, path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Connect {
            path: path.to_owned(),
            source,
        };
        let hello = Packet::new(
            &Request::Hello {
                version: PROTOCOL_VERSION,
            },
            Vec::new(),
        )?;
        hello.send(socket.as_fd()).map_err(failed)?;
        let received = wire::receive(socket.as_fd(), true).map_err(|e| failed(timed_out(e)))?;
        let received = received.ok_or(Error::HolderGone)??;
        match received.reply {
            Reply::Welcome {
                version,
                pid,
                cgroup,
            } => {
                if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version) {
                    return Err(Error::Version {
                        holder: version,
                        oldest: PROTOCOL_VERSION_MIN,
                        newest: PROTOCOL_VERSION,
                    });
                }
                let cgroup = cgroup.map(PathBuf::from);
                Ok(Self {
                    socket,
                    holder_pid: pid,
                    cgroup,
                    protocol: version,
                })
            }
            Reply::Refused { reason } => Err(Error::Refused { reason }),
            other => Err(Error::protocol(format!("{other:?} in answer to Hello"))),
        }
    }

    /// Moves this process into the holder's user and mount namespaces.
    fn enter(&self) -> Result<(), Error> {
        let pid = self.holder_pid;
        let failed = |what| {
            move |errno: nix::Error| Error::Join {
                what,
                pid,
                source: errno.into(),
            }
        };
        let pidfd = self.holder_pidfd()?;
        let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        nix::sched::setns(pidfd, namespaces).map_err(failed("join"))?;
        let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
        nix::unistd::setresgid(gid, gid, gid).map_err(failed("become group 0 in"))?;
        nix::unistd::setresuid(uid, uid, uid).map_err(failed("become user 0 in"))?;
        nix::unistd::chdir("/").map_err(failed("change to the root directory of"))
    }

    /// From the socket where the kernel can (6.5), which no reuse of the pid can fool; else by pid.
    fn holder_pidfd(&self) -> Result<OwnedFd, Error> {
        let peer = getsockopt(&self.socket, sockopt::PeerCredentials).map(|c| c.pid());
        // Another process may have made the listening socket (socket activation).
        if peer == Ok(self.holder_pid)
            && let Ok(pidfd) = getsockopt(&self.socket, sockopt::PeerPidfd)
        {
            return Ok(pidfd);
        }
        rcd_sys::pidfd::open(self.holder_pid).map_err(|source| Error::HolderProcess {
            pid: self.holder_pid,
            source: source.into(),
        })
    }
}

/// Connects to the holder at `path` and joins its user and mount namespaces.
///
/// # Errors
/// [`Error::NoHolder`] if nobody listens: whoever manages the holder starts one and calls again.
/// [`Error::Refused`], [`Error::Version`] and [`Error::Join`] will not go away by themselves.
pub fn join(path: &Path) -> Result<Joined, Error> {
    let joined = Joined::handshake(dial(path)?, path)?;
    joined.enter()?;
    Ok(joined)
}

fn dial(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |errno: nix::Error| Error::Connect {
        path: path.to_owned(),
        source: errno.into(),
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed)?;
    let timeout = TimeVal::new(WELCOME_TIMEOUT_S, 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(failed)?;
    setsockopt(&socket, sockopt::SendTimeout, &timeout).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(failed)?;
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) => Ok(socket),
        Err(errno @ (nix::Error::ENOENT | nix::Error::ECONNREFUSED)) => Err(Error::NoHolder {
            path: path.to_owned(),
            source: errno.into(),
        }),
        Err(errno) => Err(failed(errno)),
    }
}

/// SO_RCVTIMEO reports `EAGAIN`; say what it means.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {WELCOME_TIMEOUT_S} s"),
        );
    }
    error
}
