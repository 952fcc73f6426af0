//! Parameters and replies of the API's methods, by noun.
//!
//! Plain data: camelCase on the wire, absent means null, times in nanoseconds since the epoch.

pub mod container;
pub mod exec;
pub mod image;
pub mod system;
