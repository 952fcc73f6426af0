//! What can go wrong in the holder before it serves, and with a packet while it does.

use std::path::PathBuf;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::protocol::FdRole;

/// An operation of the holder that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The holder was started by root.
    #[error("the holder never runs as root; start it as the user whose containers it is to hold")]
    Root,
    /// Another holder has the socket.
    #[error("another holder answers at {}", socket.display())]
    AlreadyRunning {
        /// Its socket.
        socket: PathBuf,
    },
    /// The directory of the socket is not private.
    #[error("{} {problem}; it must be a directory of this user's own with mode 0700", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A system call without a file failed.
    #[error("cannot {action}")]
    Call {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// This user may not have user namespaces, or not use them.
    #[error("cannot {action}: {reason}")]
    Forbidden {
        /// What was tried.
        action: &'static str,
        /// Which setting forbids it, and what an administrator can do.
        reason: &'static str,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The user's ids could not be mapped.
    #[error(transparent)]
    IdMap(#[from] IdMapError),
    /// A message could not be encoded.
    #[error("cannot encode a message")]
    Encode {
        /// The encoder's answer.
        #[source]
        source: postcard::Error,
    },
    /// Bytes that are no message.
    #[error("the packet is no message of this protocol")]
    Decode {
        /// The decoder's answer.
        #[source]
        source: postcard::Error,
    },
    /// A message and more.
    #[error("the packet has {bytes} bytes after its message")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A packet beyond the limit.
    #[error("a packet of {bytes} bytes is too large")]
    PacketTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Descriptors do not match the roles.
    #[error("the packet names {expected} descriptors and carries {received}")]
    FdCount {
        /// Roles named.
        expected: usize,
        /// Descriptors received.
        received: usize,
    },
    /// A role that may not be here, or is here twice.
    #[error("the packet has a descriptor for {role:?} that it may not have")]
    FdRole {
        /// The role.
        role: FdRole,
    },
}

/// Why the user's ids could not be mapped. It crosses from the helper process to the holder, so it
/// is plain data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum IdMapError {
    /// The user has too few subordinate ids.
    #[error(
        "user {user} has {have} subordinate {kind} ids, 65536 are needed; an administrator gives \
         them with: usermod --add-sub{kind}s {free}-{} {user}", free + 65535
    )]
    NoRange {
        /// User name, or uid if there is no name.
        user: String,
        /// `uid` or `gid`.
        kind: String,
        /// How many there are.
        have: u64,
        /// First id behind all ranges of the file: a free range starts here.
        free: u64,
    },
    /// A program is missing.
    #[error("{program} is not installed (Debian and Ubuntu: package uidmap; Fedora: shadow-utils)")]
    Missing {
        /// Its name.
        program: String,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Its name and arguments.
        program: String,
        /// Its exit status.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// The helper process ended without an answer.
    #[error("the helper process for id maps ended without an answer")]
    Silent,
}

impl Error {
    /// For `map_err` on a call without a file.
    pub(crate) fn call(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Call { action, source }
    }

    /// For `map_err` on a file operation of nix or rcd-sys.
    pub(crate) fn file<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(Errno) -> Self + 'a {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The same for one of the standard library.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |error| Self::File {
            action,
            path: path.to_owned(),
            source: io_errno(&error),
        }
    }
}

/// The number in an error of the standard library; EIO where it made the error itself.
pub(crate) fn io_errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
