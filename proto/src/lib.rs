//! The wire contract between `rc`, `rcd` and anybody else: methods, types, errors, framing.
//!
//! Everything here is pure: no I/O, no runtime.

pub mod error;
pub mod frame;
pub mod types;
pub mod wire;

pub use error::Error;
