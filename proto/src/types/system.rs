//! `io.rcd.System`.

types! {
    /// `GetVersion` reply.
    #[derive(Default)]
    #[serde(default)]
    pub struct VersionReply {
        /// Version of rcd.
        pub version: String,
        /// Version of the API: `major.minor`.
        pub api_version: String,
        /// Version of the holder's protocol in use.
        pub holder_protocol: i64,
        /// `linux`.
        pub os: String,
        /// Architecture as Go names it: `amd64`.
        pub arch: String,
        /// Kernel release.
        pub kernel: String,
    }

    /// One thing that this host lacks.
    #[derive(Default)]
    #[serde(default)]
    pub struct Shortcoming {
        /// What is missing.
        pub what: String,
        /// What does not work without it.
        pub effect: String,
        /// What an administrator or the user can do.
        pub cure: String,
    }

    /// An id range of the user namespace.
    #[derive(Default)]
    #[serde(default)]
    pub struct IdRange {
        /// First id inside.
        pub container_id: i64,
        /// First id on the host.
        pub host_id: i64,
        /// How many.
        pub size: i64,
    }

    /// `GetInfo` reply.
    #[derive(Default)]
    #[serde(default)]
    pub struct InfoReply {
        /// Versions.
        pub version: VersionReply,
        /// Containers by state.
        pub containers_running: i64,
        /// See above.
        pub containers_stopped: i64,
        /// Images.
        pub images: i64,
        /// Data directory.
        pub data_root: String,
        /// Runtime directory.
        pub run_root: String,
        /// Root file system driver that `auto` takes.
        pub rootfs_driver: String,
        /// Why.
        pub rootfs_driver_reason: String,
        /// `none` or a path under /sys/fs/cgroup.
        pub cgroup: Option<String>,
        /// Cgroup controllers that are delegated.
        pub cgroup_controllers: Vec<String>,
        /// Uid map.
        pub uid_map: Vec<IdRange>,
        /// Gid map.
        pub gid_map: Vec<IdRange>,
        /// Processors.
        pub cpus: i64,
        /// Memory of the machine.
        pub memory_bytes: i64,
        /// Pid of the daemon and of the holder on the host.
        pub daemon_pid: i64,
        /// See above.
        pub holder_pid: i64,
        /// The service manager is `systemd` or `none`.
        pub service_manager: String,
        /// What is missing on this host.
        pub shortcomings: Vec<Shortcoming>,
    }
}
