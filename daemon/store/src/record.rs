//! What is kept: one record per container and per image.
//!
//! Records are the on-disk types. Each row of the index is an envelope of a schema version and one
//! of these, so that a newer daemon can migrate what an older one wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A container: what was asked for, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Creation, nanoseconds since the epoch.
    pub created_at_ns: u64,
    /// Image as it was asked for.
    pub image: String,
    /// Image id (`sha256:…` of its configuration).
    pub image_id: String,
    /// Uncompressed layer digests, lowest first.
    pub layers: Vec<String>,
    /// Effective configuration. Never changes after create.
    pub config: ContainerConfig,
    /// What has become of it.
    pub status: ContainerStatus,
}

/// Effective configuration: the image's, overridden by what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Entry point.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub command: Vec<String>,
    /// Environment, `KEY=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// The working directory is the image's own and is made if missing.
    pub create_working_dir: bool,
    /// User as given.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Terminal.
    pub tty: bool,
    /// Stdin is kept open for clients.
    pub open_stdin: bool,
    /// Remove at exit. Such a container is not promised to survive a power cut.
    pub auto_remove: bool,
    /// Read-only root.
    pub read_only: bool,
    /// Bind mounts.
    pub binds: Vec<Bind>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Network.
    pub network: NetworkMode,
    /// Stop signal.
    pub stop_signal: i32,
    /// Seconds between that and SIGKILL.
    pub stop_timeout_s: u32,
}

/// One bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Host path.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Take submounts along.
    pub recursive: bool,
}

/// Network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// A namespace with loopback only.
    #[default]
    None,
    /// The host's namespace.
    Host,
}

/// What has become of a container, as far as it is on record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerStatus {
    /// Never started.
    #[default]
    Created,
    /// A start was begun; whether it lives only the holder knows.
    Running {
        /// Start, nanoseconds since the epoch.
        started_at_ns: u64,
    },
    /// Ended.
    Exited {
        /// Start; 0 if the program never ran.
        started_at_ns: u64,
        /// End.
        finished_at_ns: u64,
        /// Exit code; none if nobody saw it (the machine went down).
        code: Option<i32>,
        /// Why the last start failed, if it did.
        error: Option<String>,
    },
}

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:…` of the configuration blob.
    pub id: String,
    /// `sha256:…` of the manifest blob.
    pub manifest_digest: String,
    /// Full references that name it, sorted.
    pub references: Vec<String>,
    /// Build time, nanoseconds since the epoch; 0 if the image does not say.
    pub created_at_ns: u64,
    /// Bytes of its layers, unpacked.
    pub size_bytes: u64,
    /// `os`.
    pub os: String,
    /// `architecture[/variant]`.
    pub architecture: String,
    /// Author.
    pub author: Option<String>,
    /// Uncompressed layer digests, lowest first.
    pub diff_ids: Vec<String>,
    /// Entry point.
    pub entrypoint: Vec<String>,
    /// Command.
    pub command: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User.
    pub user: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Exposed ports.
    pub exposed_ports: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// Stop signal, as the image says it.
    pub stop_signal: Option<String>,
}
