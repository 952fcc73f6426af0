//! The holder: theory of operation.
//!
//! One process per user, one thread, no unsafe code of its own. It owns the user namespace that all
//! containers share and is the parent of every one, so that the daemon above may crash, be killed
//! or upgraded while containers run. It knows processes and descriptors, nothing else: what a
//! container *is* stands in a sealed plan that only the cloned child reads.
//!
//! **Start** (`start`, in this order, each step before the first that would defeat it):
//! ```text
//!  not root ─► re-exec from a sealed memfd (nobody can write the program that containers' first
//!  instants run, CVE-2019-5736) ─► setsid ─► private directory, lock, nobody answers
//!  ─► move into the leaf `holder` of a delegated cgroup ─► fork the id map helper
//!  ─► unshare(NEWUSER), maps, become 0, no groups ─► unshare(NEWNS), `/` slave
//!  ─► subreaper ─► listen ─► stdio away ─► cleaner ─► READY=1
//! ```
//! It unshares nothing else, so that a container may still be given the host's network or ipc.
//!
//! **Loop** (`server`, `children`). epoll over: signals (TERM, INT, CHLD as a descriptor), the listening socket,
//! connections, and a status socket for each child on its way to its program. Nothing in the loop
//! waits: sockets are used with MSG_DONTWAIT, children are reaped with WNOHANG, what is slow to
//! close goes to the cleaner (`crate::cleaner`). Events carry a kind and a number that is never
//! reused; one whose object is gone is ignored, since children share our open files until execve and
//! stale events are normal.
//!
//! **Who may speak.** The socket is 0600 in a 0700 directory, and SO_PEERCRED must say uid 0, which
//! inside the namespace is exactly the holder's own user. One connection is *the* daemon: the last
//! that said Hello. A packet that is malformed, oversized, unsolicited, or whose descriptors do
//! not match their roles costs its connection ([`Reply::Refused`]) and nothing else. A request that
//! is well-formed but impossible is answered with [`Step::Admit`].
//!
//! **Life of a process** (`table`).
//! ```text
//!            status "F", or it ends        ┌─► gone (SpawnFailed after it is reaped)
//!  Starting ───────────────────────────────┘
//!     │ status EOF and the kernel says that it has executed
//!     ▼
//!  Running ──► Ended (Exited to each new daemon) ──► gone (Acknowledge)
//! ```
//! EOF alone does not mean success: a child killed on its way gives one too. PF_FORKNOEXEC in
//! `/proc/PID/stat`, which a zombie still shows, decides, so the order in which EOF and the child's
//! end are noticed does not matter. A daemon that goes away while something is Starting never learnt
//! of it; it is killed and forgotten, so what the successor lists is complete.
//!
//! **What a child inherits.** Nothing but its own descriptors: all others are closed before any of
//! the stage's code runs. Its signal mask and RLIMIT_NOFILE are the user's own again.
//!
//! **Ends.** SIGTERM: each init gets its stop signal, after its timeout SIGKILL, then the holder
//! exits 0; a second SIGTERM shortens that to SIGKILL. Should the holder itself be SIGKILLed, its
//! containers die too (PR_SET_PDEATHSIG; the unit's cgroup where a program's set-user-id bit has
//! cleared it): without their parent nobody could know their exit codes, and the next holder's user
//! namespace is another, so they could be neither managed nor told from dead ones.
//!
//! **Bounds.** [`PROCESSES_MAX`], [`QUEUE_PACKETS_MAX`], [`STRANGERS_MAX`], [`FDS_RESERVE`],
//! [`BATCH_MAX`], [`LOG_BYTES_MAX`]. List and Exited are generated from the table as the socket takes
//! them, so a slow reader costs no memory; one that lets answers pile up loses its connection,
//! never its processes.
//!
//! [`Reply::Refused`]: crate::protocol::Reply::Refused
//! [`Step::Admit`]: crate::protocol::Step::Admit

mod cgroup;
mod children;
mod log;
mod notify;
mod peer;
mod server;
mod spawn;
mod start;
mod stop;
mod table;

use std::path::PathBuf;

use crate::Error;

/// Processes in the table: living, or ended and not acknowledged.
pub const PROCESSES_MAX: usize = 4096;

/// Answers that wait for a daemon to read them.
pub const QUEUE_PACKETS_MAX: usize = 512;

/// Connections that have not said Hello. The oldest gives way.
pub const STRANGERS_MAX: usize = 8;

/// Descriptors that starts leave free, for connections, the next child's sockets and clean-up.
pub const FDS_RESERVE: u64 = 128;

/// Events or packets handled before the loop looks at everything else again.
pub const BATCH_MAX: usize = 64;

/// Length at which a log file given with `--log` starts anew.
pub const LOG_BYTES_MAX: u64 = 1 << 20;

/// How long a stopping holder waits for processes that it has sent SIGKILL (one may be stuck in the
/// kernel) before it gives up.
pub const KILL_GRACE_MS: u64 = 10_000;

/// How the holder is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its socket. `rootfs/`, the mount point of all containers, is made beside it.
    pub socket: PathBuf,
    /// Where it writes what it has to say; else the journal if that is its stderr, else nowhere.
    pub log: Option<PathBuf>,
}

/// Runs the holder until it is stopped.
///
/// # Errors
///
/// What keeps it from starting, see [`Error`], or its event loop from working.
pub fn run(options: &Options) -> Result<(), Error> {
    let parts = start::start(options)?;
    server::Server::new(parts)?.run()
}
