//! The engine: what rcd knows and decides about containers and images.
//!
//! ```text
//!   API ──► Engine ──► tables (in memory)        who is there
//!             │  └───► Container ──► driver      one task each, sole writer of its state
//!             │                        │
//!             ▼                        ▼
//!           Store                   Runtime      (traits in `platform.rs`; the holder behind it)
//!   rows, layers, files         processes, exits
//! ```
//!
//! Reading order: `types` (what callers see), `engine` (the handle), `container` (one container and
//! its driver), `reconcile` (what happens at start), `image`.
//!
//! Rules that hold everywhere: a request that returned success is on record in the class that
//! `rcd_store::Durability` names for it; a container's state is changed by its driver alone; nothing
//! here blocks a thread of the runtime; dropping a future that is not documented otherwise leaves
//! nothing half-done.
//!
//! The engine makes no system calls of its own besides reading and writing descriptors it was
//! given, and knows no wire format.

mod container;
mod create;
mod engine;
mod error;
mod execs;
mod image;
mod names;
mod platform;
mod readiness;
mod reconcile;
mod recorder;
mod tables;
mod types;

pub use container::attach::{AttachSession, Input};
pub use container::exec::ExecSession;
pub use container::lifecycle::Phase;
pub use container::log::{Chunk, Position, Reader, Stream};
pub use engine::{Engine, Parts};
pub use error::{Error, Result, chain};
pub use image::import::ImportSession;
pub use image::pull::PullSession;
pub use image::remove::ImageRemoval;
pub use names::short_id;
pub use platform::{DriverChoice, KernelOverlay, Network, PlainNetwork, Rootfs, Runtime};
pub use types::{
    AttachRequest, ContainerInfo, ContainerPaths, ContainerRequest, ExecRequest, ImageInfo,
    LayerProgress, LayerState, Output, PullEvent, View,
};

#[cfg(test)]
mod tests;
