//! `io.rcd.Container`.

use std::collections::BTreeMap;

types! {
    /// A container's configuration, as a client asks for it. Absent values come from the image.
    #[derive(Default)]
    pub struct ContainerConfig {
        /// Image reference or id.
        pub image: String,
        /// Name; a readable pair of words is made up if absent.
        pub name: Option<String>,
        /// Entry point; an empty list clears the image's.
        pub entrypoint: Option<Vec<String>>,
        /// Arguments; replaces the image's command.
        pub command: Option<Vec<String>>,
        /// `KEY=value`; added to the image's.
        #[serde(default)]
        pub env: Vec<String>,
        /// Working directory.
        pub working_dir: Option<String>,
        /// `user[:group]` by name or number.
        pub user: Option<String>,
        /// Host name; the short id if absent.
        pub hostname: Option<String>,
        /// Allocate a terminal.
        #[serde(default)]
        pub tty: bool,
        /// Keep stdin open for attached clients.
        #[serde(default)]
        pub open_stdin: bool,
        /// Remove the container when it has ended.
        #[serde(default)]
        pub auto_remove: bool,
        /// Make the root file system read-only.
        #[serde(default)]
        pub read_only: bool,
        /// Bind mounts.
        #[serde(default)]
        pub binds: Vec<Bind>,
        /// Labels; added to the image's.
        #[serde(default)]
        pub labels: BTreeMap<String, String>,
        /// `none` or `host`; the default network if absent.
        pub network: Option<String>,
        /// Signal for stop, by name or number.
        pub stop_signal: Option<String>,
        /// Seconds between that signal and SIGKILL.
        pub stop_timeout_s: Option<u32>,
    }

    /// One bind mount.
    #[derive(Default)]
    pub struct Bind {
        /// Host path, absolute; it must exist.
        pub source: String,
        /// Path in the container, absolute.
        pub target: String,
        /// Mount it read-only.
        #[serde(default)]
        pub read_only: bool,
        /// Take submounts along.
        #[serde(default)]
        pub recursive: bool,
    }

    /// Where a container is in its life.
    #[derive(Copy)]
    pub enum ContainerState {
        /// Made, never started.
        Created,
        /// Its first process is being made.
        Starting,
        /// Its first process runs.
        Running,
        /// It was asked to stop and has not ended yet.
        Stopping,
        /// Its first process has ended.
        Exited,
        /// It is being removed.
        Removing,
    }

    /// A line of `List`.
    pub struct ContainerSummary {
        /// Full id: 64 hexadecimal digits.
        pub id: String,
        /// Name.
        pub name: String,
        /// Image as it was asked for.
        pub image: String,
        /// Image id.
        pub image_id: String,
        /// Program and arguments.
        pub command: Vec<String>,
        /// State.
        pub state: ContainerState,
        /// When it was created.
        pub created_at_ns: i64,
        /// Last start.
        pub started_at_ns: Option<i64>,
        /// Last end.
        pub finished_at_ns: Option<i64>,
        /// Exit code of the last run.
        pub exit_code: Option<i64>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Network mode.
        pub network: String,
    }

    /// Everything about one container: static configuration apart from live state.
    pub struct ContainerDetail {
        /// What List says.
        pub summary: ContainerSummary,
        /// Effective configuration: the image's merged with what was asked.
        pub config: EffectiveConfig,
        /// Host pid of the first process while it lives.
        pub pid: Option<i64>,
        /// Why the last start failed.
        pub error: Option<String>,
        /// Root file system driver: `kernel` or `fuse`.
        pub rootfs_driver: String,
        /// Why that driver was taken.
        pub rootfs_driver_reason: String,
        /// Layer directories, topmost first.
        pub lower_dirs: Vec<String>,
        /// Upper directory.
        pub upper_dir: String,
        /// Work directory.
        pub work_dir: String,
        /// Directory of the log files.
        pub log_path: String,
        /// Host files behind /etc/resolv.conf, /etc/hostname, /etc/hosts.
        pub resolv_conf_path: String,
        /// See above.
        pub hostname_path: String,
        /// See above.
        pub hosts_path: String,
        /// Cgroup of the container, if one could be made.
        pub cgroup_path: Option<String>,
        /// Ids of running execs.
        pub exec_ids: Vec<String>,
    }

    /// Configuration after defaults.
    #[derive(Default)]
    #[serde(default)]
    pub struct EffectiveConfig {
        /// Entry point.
        pub entrypoint: Vec<String>,
        /// Arguments.
        pub command: Vec<String>,
        /// Environment.
        pub env: Vec<String>,
        /// Working directory.
        pub working_dir: String,
        /// User as given.
        pub user: String,
        /// Host name.
        pub hostname: String,
        /// Terminal.
        pub tty: bool,
        /// Stdin is kept open.
        pub open_stdin: bool,
        /// Remove at exit.
        pub auto_remove: bool,
        /// Read-only root.
        pub read_only: bool,
        /// Bind mounts.
        pub binds: Vec<Bind>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Network mode.
        pub network: String,
        /// Stop signal by name.
        pub stop_signal: String,
        /// Stop timeout in seconds.
        pub stop_timeout_s: u32,
    }

    /// `List` parameters.
    #[derive(Default)]
    #[serde(default)]
    pub struct ListParams {
        /// Ended ones too.
        pub all: bool,
    }

    /// `List` reply.
    pub struct ListReply {
        /// Newest first.
        pub containers: Vec<ContainerSummary>,
    }

    /// Names one container: a name, an id, or an unambiguous prefix of an id.
    #[derive(Default)]
    pub struct ContainerId {
        /// Name, id or prefix.
        pub id: String,
    }

    /// `Create` parameters.
    #[derive(Default)]
    pub struct CreateParams {
        /// What to make.
        pub config: ContainerConfig,
    }

    /// `Create` reply.
    pub struct CreateReply {
        /// Full id.
        pub id: String,
        /// Name, given or made up.
        pub name: String,
        /// Things the user should know.
        pub warnings: Vec<String>,
    }

    /// `Stop` parameters.
    #[derive(Default)]
    pub struct StopParams {
        /// Which container.
        pub id: String,
        /// Seconds before SIGKILL; the container's own if absent.
        pub timeout_s: Option<u32>,
    }

    /// `Kill` parameters.
    #[derive(Default)]
    pub struct KillParams {
        /// Which container.
        pub id: String,
        /// Signal by name or number; SIGKILL if absent.
        pub signal: Option<String>,
    }

    /// `Remove` parameters.
    #[derive(Default)]
    pub struct RemoveParams {
        /// Which container.
        pub id: String,
        /// Kill it first if it runs.
        #[serde(default)]
        pub force: bool,
    }

    /// `Wait` reply.
    pub struct WaitReply {
        /// Exit code, or 128 + signal.
        pub exit_code: i64,
    }

    /// `Inspect` reply.
    pub struct InspectReply {
        /// The container.
        pub container: ContainerDetail,
    }

    /// `Attach` parameters. The connection is upgraded: frames of [`crate::frame`] in both directions.
    #[derive(Default)]
    pub struct AttachParams {
        /// Which container.
        pub id: String,
        /// Start it once attached, so that no output is missed.
        #[serde(default)]
        pub start: bool,
        /// Feed its stdin from Stdin frames.
        #[serde(default)]
        pub stdin: bool,
        /// Send its stdout (with a terminal: all its output).
        #[serde(default)]
        pub stdout: bool,
        /// Send its stderr.
        #[serde(default)]
        pub stderr: bool,
        /// Where to begin in the log of stdout, in bytes; its end if absent. A client whose connection
        /// broke (a restart of the daemon) takes its stream up again with this.
        pub stdout_offset: Option<i64>,
        /// The same for stderr.
        pub stderr_offset: Option<i64>,
        /// Terminal size to set at once.
        pub rows: Option<i64>,
        /// See rows.
        pub columns: Option<i64>,
    }

    /// `Attach` reply, before the upgrade.
    pub struct AttachReply {
        /// Full id.
        pub id: String,
        /// The container has a terminal.
        pub tty: bool,
        /// Where the stdout stream begins in the log.
        pub stdout_offset: i64,
        /// The same for stderr.
        pub stderr_offset: i64,
    }

    /// `Logs` parameters. The connection is upgraded; the server sends Stdout and Stderr frames, then
    /// End.
    #[derive(Default)]
    pub struct LogsParams {
        /// Which container.
        pub id: String,
        /// Go on until the container ends.
        #[serde(default)]
        pub follow: bool,
        /// Only the last lines; all if absent.
        pub tail: Option<i64>,
    }

    /// `Logs` reply, before the upgrade.
    pub struct LogsReply {
        /// Where the shown part of stdout begins in the log: with `Attach` at these offsets, a client
        /// whose connection broke goes on where it was.
        pub stdout_offset: i64,
        /// The same for stderr.
        pub stderr_offset: i64,
    }

    /// `Resize` parameters.
    #[derive(Default)]
    pub struct ResizeParams {
        /// Which container.
        pub id: String,
        /// Lines.
        pub rows: i64,
        /// Columns.
        pub columns: i64,
    }
}
