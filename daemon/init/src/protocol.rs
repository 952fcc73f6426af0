//! The holder's protocol: messages over a SOCK_SEQPACKET socket, one message a packet.
//!
//! A packet is one postcard-encoded [`Request`] (daemon to holder) or [`Reply`] (holder to daemon)
//! of at most [`PACKET_BYTES_MAX`] bytes, with file descriptors in SCM_RIGHTS. Descriptors have no
//! place in the encoding: a message that carries some names the role of each, in order, and a count
//! that differs is a protocol error which costs the connection, never the holder.
//!
//! The daemon speaks first with [`Request::Hello`]. Replies to numbered requests carry the
//! request's `seq`; exits come unasked, once per connection and process, until acknowledged.

use std::os::fd::OwnedFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The version that this holder speaks. Daemon N speaks holder protocols N and N-1.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest packet. Plans travel in memfds, so messages are small.
pub const PACKET_BYTES_MAX: usize = 16 << 10;

/// The most descriptors in one packet. The kernel's own limit is 253 (`SCM_MAX_FD`).
pub const PACKET_FDS_MAX: usize = 16;

/// Which process: a container's init, or one exec in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Container id: 1 to 64 characters of `[0-9a-z]`.
    pub container: String,
    /// Exec id of the same form; none for the init.
    pub exec: Option<String>,
}

/// What a passed descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FdRole {
    /// Sealed memfd with the encoded plan.
    Plan,
    /// The cgroup directory that the child is cloned into. Absent: the holder's own cgroup.
    Cgroup,
    /// A network namespace that the child joins.
    NetNs,
    /// The child's descriptor 0. Absent 0, 1, 2 are `/dev/null`, or the terminal if there is one.
    Stdin,
    /// The child's descriptor 1.
    Stdout,
    /// The child's descriptor 2.
    Stderr,
    /// A descriptor that the holder keeps for the daemon's successor, under this slot.
    Keep(Slot),
    /// (Replies) the process's pidfd.
    Pidfd,
}

/// Slots of descriptors that outlive the daemon, per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// Write end of the stdin pipe.
    Stdin,
    /// Read end of the stdout pipe.
    Stdout,
    /// Read end of the stderr pipe.
    Stderr,
    /// Pseudo-terminal master; made by the child, kept by the holder unasked.
    Pty,
    /// Read end of the pipe between terminal and log.
    RelayRead,
    /// Write end of the same.
    RelayWrite,
}

/// Daemon to holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First message: the newest protocol that the daemon speaks.
    Hello {
        /// Version.
        version: u32,
    },
    /// Start a container's init or an exec. Fds as `fds` says.
    Spawn(Spawn),
    /// List every process that lives or whose exit is not acknowledged.
    List {
        /// Number of this request.
        seq: u64,
    },
    /// The exit is on record: forget the process and close what was kept for it.
    Acknowledge {
        /// Which.
        key: ProcessKey,
    },
    /// Close one kept descriptor (end of input on stdin, for one).
    Drop {
        /// Which process.
        key: ProcessKey,
        /// Which descriptor.
        slot: Slot,
    },
}

/// Start of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// Number of this request.
    pub seq: u64,
    /// The new process. With `exec` set, the container's init must be running.
    pub key: ProcessKey,
    /// `CLONE_NEW*` flags for a new init; ignored for an exec, which joins all of the init's.
    pub namespaces: u64,
    /// Signal that asks the init to stop when the holder is stopped.
    pub stop_signal: i32,
    /// How long the holder then waits before SIGKILL.
    pub stop_timeout_ms: u32,
    /// Roles of the passed descriptors, in order.
    pub fds: Vec<FdRole>,
}

/// Holder to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to Hello.
    Welcome {
        /// The version that both speak from here on.
        version: u32,
        /// The holder's pid as the host sees it.
        pid: i32,
        /// Cgroup directory of the holder's unit under `/sys/fs/cgroup`, if it is delegated and
        /// writable: containers get children of it.
        cgroup: Option<String>,
    },
    /// The process has called `execve` successfully. Fds: pidfd, then what was kept.
    Spawned {
        /// The request's number.
        seq: u64,
        /// Host pid.
        pid: i32,
        /// Start, nanoseconds since the epoch; List says the same.
        started_at_ns: u64,
        /// Roles of the passed descriptors.
        fds: Vec<FdRole>,
    },
    /// The process did not come to be; nothing of it is left.
    SpawnFailed {
        /// The request's number.
        seq: u64,
        /// What failed.
        failure: Failure,
    },
    /// One element of the answer to List.
    Process {
        /// The request's number.
        seq: u64,
        /// Which process.
        key: ProcessKey,
        /// Host pid.
        pid: i32,
        /// Start, nanoseconds since the epoch.
        started_at_ns: u64,
        /// Set if it has ended.
        exit: Option<Exit>,
        /// Roles of the passed descriptors: pidfd (if it lives), then what was kept.
        fds: Vec<FdRole>,
    },
    /// End of the answer to List.
    ListEnd {
        /// The request's number.
        seq: u64,
    },
    /// A process has ended. Repeated on each new connection until acknowledged.
    Exited {
        /// Which process.
        key: ProcessKey,
        /// How.
        exit: Exit,
    },
    /// The holder is stopping on request (SIGTERM) and is ending the containers.
    Stopping,
    /// The connection is refused and closed: what was wrong.
    Refused {
        /// Why, for a log.
        reason: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Signal that ended it, or 0.
    pub signal: i32,
    /// When, nanoseconds since the epoch.
    pub at_ns: u64,
}

/// Why a child did not reach its program: the step, its object, the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done.
    pub step: Step,
    /// To what: a path, a user, a setting. At most 4 KiB; may be empty.
    pub object: String,
    /// Errno, or 0 where the kernel was not asked.
    pub errno: i32,
    /// More words where errno does not say it, e.g. "resolves outside the container's root".
    pub detail: String,
}

/// Steps of a child on its way to `execve`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Admission in the holder: unknown container, duplicate key, bad fds, table full.
    Admit,
    /// `clone3`.
    Clone,
    /// Joining namespaces.
    Join,
    /// Reading the plan.
    Plan,
    /// Mounting the root file system.
    Rootfs,
    /// A mount inside it.
    Mount,
    /// A device node.
    Device,
    /// Masking or making read-only.
    Mask,
    /// `pivot_root`.
    PivotRoot,
    /// Host name.
    Hostname,
    /// A sysctl.
    Sysctl,
    /// Pseudo-terminal.
    Terminal,
    /// Looking the user or a group up, or becoming it.
    User,
    /// Resource limit.
    Rlimit,
    /// Capabilities.
    Capabilities,
    /// Seccomp filter.
    Seccomp,
    /// Working directory.
    WorkingDirectory,
    /// Finding or executing the program: ENOENT is exit code 127, all else 126.
    Exec,
}

/// The longest id of a container or exec.
pub const ID_BYTES_MAX: usize = 64;

impl ProcessKey {
    /// Whether both ids have the form that the fields document.
    pub fn is_valid(&self) -> bool {
        let valid = |id: &str| {
            (1..=ID_BYTES_MAX).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        };
        valid(&self.container) && self.exec.as_deref().is_none_or(valid)
    }
}

impl Request {
    /// Roles of the descriptors that must come with this request.
    pub fn roles(&self) -> &[FdRole] {
        match self {
            Self::Spawn(spawn) => &spawn.fds,
            _ => &[],
        }
    }
}

impl Reply {
    /// Roles of the descriptors that must come with this reply.
    pub fn roles(&self) -> &[FdRole] {
        match self {
            Self::Spawned { fds, .. } | Self::Process { fds, .. } => fds,
            _ => &[],
        }
    }
}

/// Encodes a [`Request`], a [`Reply`] or a [`Failure`].
///
/// # Errors
///
/// [`Error::PacketTooLarge`] beyond [`PACKET_BYTES_MAX`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let bytes = postcard::to_stdvec(message).map_err(|source| Error::Encode { source })?;
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(Error::PacketTooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes one packet. Total: any bytes give a value or an error.
///
/// # Errors
///
/// [`Error::Decode`] for what is no message, [`Error::TrailingBytes`] for more than one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(Error::PacketTooLarge { bytes: bytes.len() });
    }
    let (message, rest) =
        postcard::take_from_bytes(bytes).map_err(|source| Error::Decode { source })?;
    if !rest.is_empty() {
        return Err(Error::TrailingBytes { bytes: rest.len() });
    }
    Ok(message)
}

/// Gives each received descriptor its role.
///
/// # Errors
///
/// [`Error::FdCount`] if there are more or fewer than roles, [`Error::FdRole`] if a role occurs
/// twice. The descriptors are then closed.
pub fn assign(roles: &[FdRole], fds: Vec<OwnedFd>) -> Result<Vec<(FdRole, OwnedFd)>, Error> {
    if roles.len() != fds.len() {
        return Err(Error::FdCount {
            expected: roles.len(),
            received: fds.len(),
        });
    }
    if let Some(&role) = roles.iter().enumerate().find_map(|(index, role)| {
        roles
            .iter()
            .take(index)
            .any(|earlier| earlier == role)
            .then_some(role)
    }) {
        return Err(Error::FdRole { role });
    }
    Ok(roles.iter().copied().zip(fds).collect())
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
