//! The child stage on a busybox root, in a real user namespace with a range of ids.
//!
//! One test binary plays three parts, chosen by [`PART`]: the test itself; under unshare(1) the
//! *keeper*, which makes the remaining namespaces, spawns and reports like a small holder; and the
//! *child*, which calls `enter`. They meet in a directory of files. Descriptor 0 of the child is its
//! status socket, so that nothing needs unsafe code.
//!
//! The tests skip, with the reason, where there is no busybox or no range of subordinate ids.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says aloud why it skips"
)]

mod container;
mod harness;
mod hostile;
mod process;

use std::path::PathBuf;

use harness::{DIR, PART, child, keep};

/// Not a test of its own: the other parts' way in. Without a part it does nothing.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    match part.as_str() {
        "keeper" => keep(&dir),
        plan => child(&dir, plan),
    }
}
