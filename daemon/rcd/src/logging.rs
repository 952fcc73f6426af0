//! Where the daemon's log goes, and which levels.
//!
//! Under systemd it goes to the journal with its fields (`JOURNAL_STREAM` names the very stream
//! that stderr is, so that output redirected elsewhere is noticed); else to stderr as text.

use std::os::fd::AsFd;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::error::Error;

/// The variable that sets levels; it wins over the configuration.
const VARIABLE: &str = "RCD_LOG";

/// Starts logging.
///
/// # Errors
///
/// [`Error::LogLevel`].
pub fn start(configured: &str) -> Result<(), Error> {
    let from_environment = std::env::var(VARIABLE)
        .ok()
        .filter(|level| !level.is_empty());
    let (level, origin) = match &from_environment {
        Some(level) => (level.as_str(), VARIABLE),
        None => (configured, "log.level in rcd.toml"),
    };
    let filter = EnvFilter::try_new(level).map_err(|source| Error::LogLevel {
        level: level.to_owned(),
        origin: origin.to_owned(),
        source,
    })?;
    let journal = is_journal()
        .then(tracing_journald::layer)
        .and_then(Result::ok);
    let text = journal
        .is_none()
        .then(|| fmt::layer().with_writer(std::io::stderr));
    // Fails only if a subscriber is set already, as in tests.
    let _ = registry().with(filter).with(journal).with(text).try_init();
    Ok(())
}

/// Whether stderr is the journal.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::io::stderr();
    nix::sys::stat::fstat(stderr.as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
