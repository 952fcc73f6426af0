//! What callers ask of the engine and what it shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcd_store::{Bind, ContainerRecord, ImageRecord, NetworkMode};

use crate::container::lifecycle::Phase;

/// A container's configuration as a client asks for it. What is absent comes from the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Image reference or id.
    pub image: String,
    /// Name; made up if absent.
    pub name: Option<String>,
    /// Entry point; empty clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments.
    pub command: Option<Vec<String>>,
    /// `KEY=value`, over the image's.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Terminal.
    pub tty: bool,
    /// Keep stdin open for clients.
    pub open_stdin: bool,
    /// Remove at exit.
    pub auto_remove: bool,
    /// Read-only root.
    pub read_only: bool,
    /// Bind mounts.
    pub binds: Vec<Bind>,
    /// Labels, over the image's.
    pub labels: BTreeMap<String, String>,
    /// Network; the default if absent.
    pub network: Option<NetworkMode>,
    /// Signal by name or number.
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL.
    pub stop_timeout_s: Option<u32>,
}

/// Live state of a container. Published by its driver, the only writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Phase.
    pub phase: Phase,
    /// Counts starts, so that a waiter tells one run from the next.
    pub run: u64,
    /// Host pid of the first process while it lives.
    pub pid: Option<i32>,
    /// Last start, nanoseconds since the epoch; 0 if never.
    pub started_at_ns: u64,
    /// Last end; 0 if never.
    pub finished_at_ns: u64,
    /// Exit code of the last run; none if nobody saw it.
    pub exit_code: Option<i32>,
    /// Why the last start failed, or why nobody saw the end.
    pub error: Option<String>,
}

/// A container as shown to callers.
#[derive(Debug, Clone)]
pub struct ContainerInfo {
    /// What was asked for. Its `status` is as of creation; `view` is live.
    pub record: Arc<ContainerRecord>,
    /// Live state.
    pub view: View,
}

/// An image as shown to callers.
#[derive(Debug, Clone)]
pub struct ImageInfo {
    /// The image.
    pub record: Arc<ImageRecord>,
    /// How many containers use it.
    pub containers: usize,
}

/// Files and directories of one container, for `inspect`.
#[derive(Debug, Clone)]
pub struct ContainerPaths {
    /// Layer directories, topmost first.
    pub lowers: Vec<std::path::PathBuf>,
    /// The store's directories.
    pub dirs: rcd_store::ContainerDirs,
    /// Its cgroup, if the host delegates one.
    pub cgroup: Option<std::path::PathBuf>,
    /// Ids of running execs.
    pub execs: Vec<String>,
}

/// What to run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Container name, id or prefix.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=value`, over the container's.
    pub env: Vec<String>,
    /// Working directory; the container's if absent.
    pub working_dir: Option<String>,
    /// User; the container's if absent.
    pub user: Option<String>,
    /// Terminal and its size in rows and columns.
    pub terminal: Option<(u16, u16)>,
    /// Open its stdin.
    pub stdin: bool,
    /// Keep its output for an attached client; without, it goes to /dev/null.
    pub attached: bool,
}

/// How a client attaches to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Container name, id or prefix.
    pub container: String,
    /// Start it.
    pub start: bool,
    /// Where to begin in the logs of stdout and stderr; their ends if absent.
    pub offsets: Option<(u64, u64)>,
    /// Terminal size in rows and columns.
    pub size: Option<(u16, u16)>,
}

/// What a session shows next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes of stdout or of a terminal.
    Stdout(bytes::Bytes),
    /// Bytes of stderr.
    Stderr(bytes::Bytes),
    /// The process has ended with this code; nothing follows.
    Exit(i32),
    /// The process has ended, and nobody saw how; nothing follows.
    Lost(String),
}

/// Where one layer of a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// Not begun.
    Waiting,
    /// Being fetched and unpacked.
    Pulling,
    /// Unpacked and verified.
    Done,
    /// It was here already.
    Exists,
}

/// Progress of one layer of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the compressed layer.
    pub digest: String,
    /// State.
    pub state: LayerState,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What a pull says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// First: the full reference and all layers, lowest first.
    Resolved {
        /// Full reference.
        reference: String,
        /// Layers.
        layers: Vec<LayerProgress>,
    },
    /// Layers that changed.
    Progress(Vec<LayerProgress>),
    /// Last: the image is there.
    Done {
        /// Image id.
        image_id: String,
        /// Digest of its manifest.
        manifest_digest: String,
    },
}
