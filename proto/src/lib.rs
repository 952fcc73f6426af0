//! The wire contract between `rc`, `rcd` and anybody else: methods, types, errors, framing.
//!
//! [`api`] is the one table of methods, made of [`types`] and [`error`]s; [`table`] is how a table
//! is called by name and described, [`idl`] prints it. [`wire`] is varlink's message format,
//! [`frame`] what an upgraded connection carries.
//!
//! Everything here is pure: no I/O, no async runtime, and nothing panics on foreign bytes.

#[macro_use]
pub mod types;

pub mod api;
pub mod error;
pub mod frame;
pub mod idl;
pub mod table;
pub mod wire;

pub use error::Error;
