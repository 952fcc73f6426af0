//! Containers as the kernel sees them: runtime specs, id maps, cgroups, network namespaces, and
//! the conversation with the holder, which alone makes processes.
//!
//! ```text
//!   ContainerOptions ─ spec ─► oci_spec::runtime::Spec ─ plan ─► rcd_init::plan::Plan
//!                                                                      │ sealed memfd
//!   engine ─► Runtime ─► prepare (blocking) ─► client task ─► holder ──► child ──► execve
//! ```
//!
//! [`join`] goes first, while the process has one thread; [`Runtime::start`] takes what it gives.
//! Nothing here forks, keeps state on disk, or decides whether a container should run.

pub mod caps;
mod cgroup;
mod client;
mod error;
mod idmap;
mod join;
mod netns;
mod options;
pub mod plan;
mod prepare;
mod runtime;
pub mod seccomp;
pub mod spec;
#[cfg(test)]
mod testing;
mod wire;

pub use error::Error;
pub use idmap::{IdMaps, Range};
pub use join::{Joined, join};
pub use options::{
    BindOptions, ContainerOptions, EtcFiles, Event, ExecOptions, Network, Process, ProcessOptions,
    RootfsOptions, Stdio,
};
pub use rcd_init::protocol::{Exit, Failure, ProcessKey, Slot, Step};
pub use runtime::{NETNS_POOL_LEN, Runtime, Settings};
pub use spec::spec;
