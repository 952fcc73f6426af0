//! The holder's log: a few lines about what is wrong, to a file or the journal, never waiting.
//!
//! Nothing that happens to the log (reader gone, disk full, journald stopped) is of any consequence:
//! lines are lost. The holder's stdio is `/dev/null` otherwise, so nobody who piped the output of
//! what started it waits for an end of file that never comes.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, write};

use super::LOG_BYTES_MAX;
use crate::Error;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
}

impl Log {
    /// Opens the file, or takes over stderr if it leads to the journal (`JOURNAL_STREAM`,
    /// systemd.exec(5)).
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let file = match path {
            Some(path) => Some(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
                    .open(path)
                    .map_err(Error::io("open the log file", path))?,
            ),
            None if stderr_is_journal() => nix::unistd::dup(std::io::stderr()).ok().map(File::from),
            None => None,
        };
        Ok(Self { file })
    }

    /// Points 0 and 1 to `/dev/null`, and 2 to the log, for a panic's last words.
    pub(super) fn take_stdio(&self) -> Result<(), Error> {
        let path = Path::new("/dev/null");
        let null = OpenOptions::new().read(true).write(true).open(path);
        let null = null.map_err(Error::io("open", path))?;
        let stderr = self.file.as_ref().unwrap_or(&null);
        dup2_stdin(&null)
            .and_then(|()| dup2_stdout(&null))
            .and_then(|()| dup2_stderr(stderr))
            .map_err(Error::call("redirect stdio"))
    }

    /// Writes one line, or loses it.
    pub(super) fn line(&self, text: impl std::fmt::Display) {
        let Some(file) = &self.file else { return };
        let line = format!("rcd-init: {text}\n");
        // MSG_DONTWAIT rather than O_NONBLOCK: the journal's socket is shared with others.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if send(file.as_raw_fd(), line.as_bytes(), flags) == Err(Errno::ENOTSOCK) {
            if fstat(file).is_ok_and(|stat| stat.st_size as u64 > LOG_BYTES_MAX) {
                let _ = file.set_len(0);
            }
            let _ = write(file, line.as_bytes());
        }
    }
}

fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    fstat(std::io::stderr())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

/// The mode of every file that the holder makes.
pub(super) fn private() -> Mode {
    Mode::from_bits_truncate(0o600)
}
