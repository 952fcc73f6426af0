//! placeholder: being written
pub mod frame;
pub mod types;
