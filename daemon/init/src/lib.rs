//! `rcd-init`: the holder, and what runs between `clone3` and `execve`.
//!
//! - [`hold`]: the long-lived process that owns the user namespace and is every container's parent.
//!   Its module documentation is the theory of operation.
//! - [`stage`]: the child that sets a container up and becomes its program.
//! - [`plan`]: what the daemon tells the child. [`protocol`]: what daemon and holder tell each other.
//!
//! The crate decides nothing about containers: no image, name, policy or state is known here. It
//! has no threads and no async runtime, so it may fork.

mod cleaner;
mod error;
pub mod hold;
mod idmap;
pub mod plan;
pub mod protocol;
pub mod stage;

pub use error::{Error, IdMapError};
