//! The API: adapters between the wire and the engine, nothing more.

pub mod connection;
pub mod server;
