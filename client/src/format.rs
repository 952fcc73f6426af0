//! How results look: tables, Go-like templates, times and sizes, Docker's JSON shapes.
//!
//! Pure functions from replies to text; nothing here talks to the daemon or the terminal.

pub mod docker;
pub mod list;
pub mod progress;
pub mod table;
pub mod template;
pub mod units;
