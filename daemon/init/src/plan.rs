//! What a child process does between `clone3` and `execve`, as data.
//!
//! The daemon compiles an OCI runtime spec into a [`Plan`] and seals it into a memfd. The
//! holder passes that memfd on unread; only the child it concerns decodes it, after the clone, so
//! that a bad plan can end nothing but its own container. Encoding is postcard, bounded by
//! [`PLAN_BYTES_MAX`].
//!
//! All paths named `target` are inside the container and are resolved beneath its root, never
//! through the host. All paths named `source` are the host's.

use serde::{Deserialize, Serialize};

/// The largest encoded plan. Arguments and environment of one `execve` are limited to 6 MiB by the
/// kernel (`fs/exec.c`, three quarters of `_STK_LIM`); the rest is mounts and filter.
pub const PLAN_BYTES_MAX: usize = 8 << 20;

/// The work of one child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// First process of a new container.
    Init(Box<InitPlan>),
    /// Another process in a running container.
    Exec(Box<ProcessPlan>),
}

/// Set-up of a container: its root, its mounts, then its first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitPlan {
    /// Host name, set when the child has a UTS namespace of its own.
    pub hostname: Option<String>,
    /// Where `/` comes from.
    pub rootfs: Rootfs,
    /// Whether `/` ends read-only.
    pub readonly_root: bool,
    /// Mounts in order. A later one may cover an earlier one.
    pub mounts: Vec<Mount>,
    /// Device nodes of the host that are bound into the container, e.g. `/dev/null`. Each is
    /// checked to be a character or block device on both sides.
    pub devices: Vec<String>,
    /// Paths that are hidden: directories under an empty read-only tmpfs, files under `/dev/null`.
    /// A missing one is skipped.
    pub masked_paths: Vec<String>,
    /// Paths that are remounted read-only. A missing one is skipped.
    pub readonly_paths: Vec<String>,
    /// `kernel.*`, `net.*` settings as (dotted key, value), for namespaces of the container's own.
    pub sysctls: Vec<(String, String)>,
    /// The first process.
    pub process: ProcessPlan,
}

/// Source of a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// Kernel overlayfs with the `userxattr` option.
    Overlay {
        /// Lower directories, topmost layer first; at least one.
        lowers: Vec<String>,
        /// Upper directory.
        upper: String,
        /// Work directory, on the same file system as `upper`.
        work: String,
        /// Mount with `volatile`: no sync at unmount. Only for an upper that is thrown away,
        /// since it leaves `work/incompat/volatile`, which refuses the next mount.
        volatile: bool,
    },
    /// A directory of the host, bound recursively.
    Directory {
        /// The directory.
        source: String,
    },
}

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container. Made if missing (a file for a file's bind mount).
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Restrictions.
    pub flags: MountFlags,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host, with `rprivate` propagation.
    Bind {
        /// Host path.
        source: String,
        /// Take submounts along.
        recursive: bool,
    },
    /// A new instance of a kernel file system: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`,
    /// `cgroup2`.
    Filesystem {
        /// Its type.
        fstype: String,
        /// Its options as (key, value); an empty value is a flag.
        options: Vec<(String, String)>,
    },
}

/// Per-mount restrictions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are the kernel's MS_* bits by name"
)]
pub struct MountFlags {
    /// `ro`
    pub readonly: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
}

/// One process: who it is, what it may do, what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments; the program is looked up in the `PATH` of `env` if it has no slash.
    pub argv: Vec<String>,
    /// `KEY=value`. `HOME` is added from the image's passwd file if absent.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Make `cwd` if it is missing (an image's own `WORKDIR`); otherwise a missing one is an error.
    pub create_cwd: bool,
    /// `""`, `user`, `uid`, `user:group`, `uid:gid` …, resolved with the image's `/etc/passwd` and
    /// `/etc/group` as Docker does. Empty is root.
    pub user: String,
    /// Additional groups by name or number.
    pub groups: Vec<String>,
    /// Allocate a pseudo-terminal in the container's devpts and make it the controlling terminal.
    pub terminal: Option<TerminalSize>,
    /// Capability sets as bit masks.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Set `no_new_privs`.
    pub no_new_privs: bool,
    /// Seccomp filter as an array of `struct sock_filter` in native byte order; empty is none.
    pub seccomp: Vec<u8>,
    /// `/proc/self/oom_score_adj`, where given.
    pub oom_score_adj: Option<i32>,
}

/// Size of a terminal in characters. Zero leaves the kernel's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Capability sets, bit n for capability n (`linux/capability.h`). For a user other than root
/// only `bounding`, `inheritable` and `ambient` hold after exec, as the kernel's rules give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Upper bound for this process and its children.
    pub bounding: u64,
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Ambient.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}
