//! The daemon of rcd: wiring between the API and the engine.

pub mod api;
