//! The seams of the engine: what it needs of the machine, as three narrow traits.
//!
//! The engine decides; these do. Each has one real implementation here, over the crate that does
//! the work, and a fake in the tests. More drivers and networks are further implementations, not
//! further cases in the engine.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use rcd_runtime::{ContainerOptions, ExecOptions, Process, ProcessKey, RootfsOptions, Slot};
use rcd_store::ContainerDirs;
use rcd_store::{ContainerConfig, ContainerRecord, NetworkMode};

/// Result of a runtime call.
pub(crate) type RuntimeResult<T> = Result<T, rcd_runtime::Error>;

/// Makes processes and keeps track of them, across restarts of the daemon.
pub trait Runtime: Send + Sync + 'static {
    /// Starts a container's first process; done when it has called `execve`.
    fn spawn(&self, options: ContainerOptions) -> BoxFuture<'_, RuntimeResult<Process>>;
    /// Starts another process in a running container.
    fn exec(&self, options: ExecOptions) -> BoxFuture<'_, RuntimeResult<Process>>;
    /// All processes that live, or whose exit is not acknowledged.
    fn list(&self) -> BoxFuture<'_, RuntimeResult<Vec<Process>>>;
    /// Says that an exit is on record: the process may be forgotten.
    fn acknowledge(&self, key: ProcessKey) -> BoxFuture<'_, ()>;
    /// Closes a kept descriptor.
    fn drop_kept(&self, key: ProcessKey, slot: Slot) -> BoxFuture<'_, ()>;
    /// Removes the cgroup that a dead container has at the call, whenever the future is polled.
    fn remove_cgroup(&self, container: &str) -> BoxFuture<'static, ()>;
    /// Removes the cgroups of containers that are not in `live`, before anything is started. Returns
    /// those that are busy still.
    fn remove_stray_cgroups(&self, live: Vec<String>) -> BoxFuture<'_, Vec<String>>;
    /// The cgroup of a container, where the host delegates one.
    fn cgroup(&self, container: &str) -> Option<PathBuf>;
}

impl Runtime for rcd_runtime::Runtime {
    fn spawn(&self, options: ContainerOptions) -> BoxFuture<'_, RuntimeResult<Process>> {
        Box::pin(rcd_runtime::Runtime::spawn(self, options))
    }

    fn exec(&self, options: ExecOptions) -> BoxFuture<'_, RuntimeResult<Process>> {
        Box::pin(rcd_runtime::Runtime::exec(self, options))
    }

    fn list(&self) -> BoxFuture<'_, RuntimeResult<Vec<Process>>> {
        Box::pin(rcd_runtime::Runtime::list(self))
    }

    fn acknowledge(&self, key: ProcessKey) -> BoxFuture<'_, ()> {
        Box::pin(rcd_runtime::Runtime::acknowledge(self, key))
    }

    fn drop_kept(&self, key: ProcessKey, slot: Slot) -> BoxFuture<'_, ()> {
        Box::pin(rcd_runtime::Runtime::drop_kept(self, key, slot))
    }

    fn remove_cgroup(&self, container: &str) -> BoxFuture<'static, ()> {
        Box::pin(rcd_runtime::Runtime::remove_cgroup(self, container))
    }

    fn remove_stray_cgroups(&self, live: Vec<String>) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async move { rcd_runtime::Runtime::remove_stray_cgroups(self, &live).await })
    }

    fn cgroup(&self, container: &str) -> Option<PathBuf> {
        rcd_runtime::Runtime::cgroup_path(self, container)
    }
}

/// Which root file system driver was taken, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverChoice {
    /// Its name.
    pub driver: &'static str,
    /// The reason, for `inspect`.
    pub reason: &'static str,
}

/// Gives containers their root file system.
pub trait Rootfs: Send + Sync + 'static {
    /// The driver for a container.
    fn choose(&self, config: &ContainerConfig) -> DriverChoice;
    /// What to mount for a container whose layers (topmost first) and directories are these.
    fn prepare(
        &self,
        record: &ContainerRecord,
        lowers: Vec<PathBuf>,
        dirs: &ContainerDirs,
    ) -> RootfsOptions;
    /// Whether a container's root file system was ever mounted. Looks at the disk.
    fn was_mounted(&self, dirs: &ContainerDirs) -> bool;
}

/// The kernel's overlayfs, mounted in the user namespace.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelOverlay;

impl Rootfs for KernelOverlay {
    fn choose(&self, _config: &ContainerConfig) -> DriverChoice {
        DriverChoice {
            driver: "kernel",
            reason: "overlayfs in the user namespace does all that this container needs",
        }
    }

    fn prepare(
        &self,
        record: &ContainerRecord,
        lowers: Vec<PathBuf>,
        dirs: &ContainerDirs,
    ) -> RootfsOptions {
        RootfsOptions {
            lowers,
            upper: dirs.upper.clone(),
            work: dirs.work.clone(),
            // An upper that dies with its container needs no sync at unmount. `volatile` leaves a
            // mark that forbids another mount, so nothing else may have it.
            volatile: record.config.auto_remove,
        }
    }

    fn was_mounted(&self, dirs: &ContainerDirs) -> bool {
        // The first mount makes it.
        dirs.work.join("work").exists()
    }
}

/// Gives containers their network.
pub trait Network: Send + Sync + 'static {
    /// What the runtime has to set up.
    fn plan(&self, mode: NetworkMode) -> rcd_runtime::Network;
    /// Whether the container uses the host's name servers as they are.
    fn shares_resolver(&self, mode: NetworkMode) -> bool;
}

/// The networks that need no help from user space: the host's, and none.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainNetwork;

impl Network for PlainNetwork {
    fn plan(&self, mode: NetworkMode) -> rcd_runtime::Network {
        match mode {
            NetworkMode::None => rcd_runtime::Network::None,
            NetworkMode::Host => rcd_runtime::Network::Host,
        }
    }

    fn shares_resolver(&self, mode: NetworkMode) -> bool {
        mode == NetworkMode::Host
    }
}
