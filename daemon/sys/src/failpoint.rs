//! Places at which a test may kill the daemon: between any two effects that must hold together.
//!
//! A debug build looks at the file that `RCD_KILL_AT` names. If it holds the name of the step that
//! is reached, the file is deleted and the process kills itself with SIGKILL, so that its successor
//! lives. A release build does nothing here. It stands in this crate because every part of the
//! daemon has such places.

/// Says that `step` is reached: what comes before it has happened, what comes after has not.
#[cfg(debug_assertions)]
pub fn reach(step: &str) {
    use std::sync::OnceLock;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("RCD_KILL_AT").map(Into::into));
    let Some(file) = file else { return };
    let wanted = std::fs::read_to_string(file).unwrap_or_default();
    if wanted.trim() == step && std::fs::remove_file(file).is_ok() {
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// Says that `step` is reached.
#[cfg(not(debug_assertions))]
#[inline]
pub fn reach(_step: &str) {}
