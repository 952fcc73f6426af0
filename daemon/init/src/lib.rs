//! placeholder
pub mod plan;
pub mod protocol;
