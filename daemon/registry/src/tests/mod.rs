//! The client against a hostile registry, and against a real one.

mod hostile;
mod real;
mod server;
