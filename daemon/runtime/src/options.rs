//! What the engine asks for: containers, processes and what comes back of them.
//!
//! These are plain values. Nothing here is checked beyond its type; [`crate::spec`] turns them
//! into an OCI runtime spec and [`crate::plan`] refuses what cannot be done.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rcd_init::protocol::{Exit, ProcessKey};

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerOptions {
    /// Id: 1 to 64 characters of `[0-9a-z]`. Names the cgroup and the holder's entry.
    pub id: String,
    /// Host name inside.
    pub hostname: String,
    /// Where `/` comes from.
    pub rootfs: RootfsOptions,
    /// Whether `/` is read-only.
    pub readonly_root: bool,
    /// The first process.
    pub process: ProcessOptions,
    /// Files and directories of the host made visible inside.
    pub binds: Vec<BindOptions>,
    /// Files of `/etc` that the engine writes.
    pub files: EtcFiles,
    /// Network.
    pub network: Network,
    /// Give the process a stdin pipe; otherwise it reads `/dev/null`. No meaning with a terminal.
    pub open_stdin: bool,
    /// Signal that asks the container to stop when the holder itself is stopped.
    pub stop_signal: i32,
    /// How long the holder then waits before SIGKILL. Rounded down to milliseconds, at most 49 days.
    pub stop_timeout: Duration,
}

/// Layers of a container's root, as kernel overlayfs takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsOptions {
    /// Lower directories, topmost first; at least one.
    pub lowers: Vec<PathBuf>,
    /// Upper directory.
    pub upper: PathBuf,
    /// Work directory, on the file system of `upper`.
    pub work: PathBuf,
    /// No sync at unmount: only for an upper that is thrown away.
    pub volatile: bool,
}

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Program and arguments; at least one.
    pub argv: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: PathBuf,
    /// Make `cwd` if it is missing.
    pub create_cwd: bool,
    /// `""` (root), `user`, `uid`, `user:group`, `uid:gid` …
    pub user: String,
    /// Additional groups by name or number.
    pub groups: Vec<String>,
    /// Allocate a terminal of (rows, columns); zero leaves the kernel's size.
    pub terminal: Option<(u16, u16)>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindOptions {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Read-only, submounts included.
    pub read_only: bool,
    /// Take the source's submounts along.
    pub recursive: bool,
}

/// Files of the host that appear in the container's `/etc`, unless a bind covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcFiles {
    /// For `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// For `/etc/hostname`.
    pub hostname: PathBuf,
    /// For `/etc/hosts`.
    pub hosts: PathBuf,
}

/// Network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own with only `lo`.
    None,
    /// The host's.
    Host,
}

/// Another process in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOptions {
    /// Which container.
    pub container: String,
    /// Id of this exec, of the form of a container id, unique within the container.
    pub exec_id: String,
    /// The process.
    pub process: ProcessOptions,
    /// Give it a stdin pipe.
    pub stdin: bool,
}

/// A process that runs, or whose exit is not acknowledged.
#[derive(Debug)]
pub struct Process {
    /// Which.
    pub key: ProcessKey,
    /// Host pid.
    pub pid: i32,
    /// Start, nanoseconds since the epoch.
    pub started_at_ns: u64,
    /// Set if it has ended.
    pub exit: Option<Exit>,
    /// Its pidfd, if it lives.
    pub pidfd: Option<OwnedFd>,
    /// The daemon's ends of its stdio.
    pub stdio: Stdio,
}

/// The daemon's ends of a process's stdio, all close-on-exec and nonblocking. The holder keeps a
/// duplicate of each for the daemon's successor: dropping one here closes nothing for the process
/// until [`crate::Runtime::drop_kept`] is called for it too.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Write end of its stdin.
    pub stdin: Option<OwnedFd>,
    /// Read end of its stdout.
    pub stdout: Option<OwnedFd>,
    /// Read end of its stderr.
    pub stderr: Option<OwnedFd>,
    /// Master of its terminal, in place of the three.
    pub pty: Option<OwnedFd>,
    /// With a terminal, a pipe (read, write) through which its output is spliced into the log: what
    /// is in it when the daemon dies is not lost.
    pub relay: Option<(OwnedFd, OwnedFd)>,
}

/// What the holder reports unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process has ended. Repeated after each reconnect until acknowledged. It may be received
    /// *before* the `spawn` or `exec` that started the process has returned: keep it by key.
    Exited {
        /// Which.
        key: ProcessKey,
        /// How.
        exit: Exit,
    },
    /// The holder is ending all containers, because it was asked to stop.
    HolderStopping,
    /// The connection to the holder is gone; the last event.
    HolderGone,
}
