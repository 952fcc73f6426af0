//! `rcd`, the daemon: wiring between the API and the engine, no decisions about containers.
//!
//! ```text
//!   main: arguments, not root, paths, configuration, log, sockets
//!     └ holder::join          into the holder's namespaces; the last thing with one thread
//!         └ supervisor::run   tokio: store, runtime, engine, API, watchdog; then the reverse
//! ```
//!
//! A library beside the binary, so that its parts can be tested.

pub mod activation;
pub mod api;
pub mod args;
pub mod config;
pub mod error;
pub mod holder;
pub mod logging;
pub mod paths;
pub mod supervisor;
pub mod systemd;
