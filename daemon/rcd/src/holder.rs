//! Makes sure that a holder answers, and joins it.
//!
//! Under systemd the holder is a unit that starts before the daemon. Without, the daemon starts
//! `rcd-init hold`, which lies beside its own executable, in a process group of its own; the holder
//! then lives on by itself. What a holder that fails to start writes to its log (no subordinate
//! ids, user namespaces forbidden, …) becomes part of the error, so that it reaches the user.
//!
//! Everything here runs before the async runtime: joining needs a single-threaded process.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcd_runtime::Joined;

use crate::error::Error;
use crate::paths::Paths;

/// How long a holder may take to answer. It needs 20 to 45 ms, of which newuidmap and newgidmap are
/// the most, and more on a machine under load.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a managed holder may be missing: its unit was started first, so only one that is being
/// restarted is worth waiting for.
const MANAGED_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

/// How much of the end of the holder's log goes into an error.
const LOG_TAIL_BYTES: u64 = 2048;

/// A holder that this process started.
#[derive(Debug)]
pub struct Started(Child);

impl Started {
    /// Ends it, for a daemon that cannot serve: nothing that it started is left behind.
    pub fn stop(mut self) {
        let id = i32::try_from(self.0.id()).unwrap_or_default();
        if id > 0 && kill(Pid::from_raw(id), Signal::SIGTERM).is_ok() {
            let _ = self.0.wait();
        }
    }
}

/// Joins the holder's namespaces, starting a holder first if nobody `managed` did.
///
/// # Errors
///
/// [`Error::Holder`] with what the holder said; [`Error::StartHolder`]; [`Error::Join`].
pub fn join(paths: &Paths, managed: bool) -> Result<(Joined, Option<Started>), Error> {
    let socket = paths.holder_socket();
    let mut started = match rcd_runtime::join(&socket) {
        Err(rcd_runtime::Error::NoHolder { .. }) if managed => None,
        Err(rcd_runtime::Error::NoHolder { .. }) => Some(start(paths)?),
        joined => return joined.map(|joined| (joined, None)).map_err(Error::Join),
    };
    let patience = if managed {
        MANAGED_PATIENCE
    } else {
        ANSWER_PATIENCE
    };
    let deadline = Instant::now() + patience;
    loop {
        match rcd_runtime::join(&socket) {
            Err(rcd_runtime::Error::NoHolder { .. }) => {}
            joined => {
                return joined
                    .map(|joined| (joined, started.map(Started)))
                    .map_err(Error::Join);
            }
        }
        if let Some(ended) = started.as_mut().and_then(has_ended) {
            let what = format!("did not start ({ended})");
            return Err(Error::Holder {
                what,
                log: said(&paths.holder_log(), managed),
            });
        }
        if Instant::now() > deadline {
            let what = format!("does not answer at {}", socket.display());
            return Err(Error::Holder {
                what,
                log: said(&paths.holder_log(), managed),
            });
        }
        std::thread::sleep(ATTEMPT_PAUSE);
    }
}

fn start(paths: &Paths) -> Result<Child, Error> {
    let program = beside_us().unwrap_or_else(|| PathBuf::from("rcd-init"));
    let log = paths.holder_log();
    let failed = |source| Error::StartHolder {
        program: program.clone(),
        source,
    };
    let stderr = File::create(&log).map_err(failed)?;
    Command::new(&program)
        .arg("hold")
        .arg("--socket")
        .arg(paths.holder_socket())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        // No signal for the daemon's terminal reaches the holder.
        .process_group(0)
        .spawn()
        .map_err(failed)
}

fn beside_us() -> Option<PathBuf> {
    let ours = std::env::current_exe().ok()?;
    Some(ours.parent()?.join("rcd-init"))
}

fn has_ended(child: &mut Child) -> Option<String> {
    child
        .try_wait()
        .ok()
        .flatten()
        .filter(|status| !status.success())
        .map(|status| status.to_string())
}

/// The end of the holder's log as the tail of an error message.
fn said(log: &Path, managed: bool) -> String {
    match tail(log).unwrap_or_default().trim() {
        "" if managed => "; see: journalctl --user --unit rcd-holder".to_owned(),
        "" => String::new(),
        text => format!(": {text}"),
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(said(file.path(), false), "");
        assert!(said(file.path(), true).contains("journalctl"));
        std::fs::write(
            file.path(),
            format!("{}\nno subordinate ids\n", "x".repeat(5000)),
        )
        .unwrap();
        let text = said(file.path(), true);
        assert!(
            text.starts_with(": x") && text.ends_with("no subordinate ids"),
            "{text}"
        );
        assert!(text.len() <= LOG_TAIL_BYTES as usize + 2);
    }
}
