//! The user's terminal: raw mode and size.
//!
//! Raw mode is a guard: whatever way the command ends (return, error, signal, panic) the terminal
//! gets its modes back when the guard is dropped. Signals do not end the process meanwhile, they are
//! read from a signalfd (see [`crate::signals`]). Only SIGKILL leaves a raw terminal behind.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::Error;

/// A terminal in raw mode until dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: File,
    before: Termios,
}

impl RawMode {
    /// Puts the terminal behind a descriptor into raw mode.
    ///
    /// # Errors
    /// It is no terminal, or no descriptor is left.
    pub fn enter(fd: impl AsFd) -> Result<RawMode, Error> {
        let failed = |source: io::Error| Error::Io {
            operation: "set the terminal to raw mode",
            source,
        };
        let terminal = File::from(fd.as_fd().try_clone_to_owned().map_err(failed)?);
        let before = tcgetattr(&terminal).map_err(|errno| failed(errno.into()))?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).map_err(|errno| failed(errno.into()))?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // TCSADRAIN: what the container wrote last is still shown as it meant it.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Size of the terminal behind a descriptor, if it is one.
pub fn size(fd: impl AsFd) -> Option<Size> {
    let (terminal_size::Width(columns), terminal_size::Height(rows)) =
        terminal_size::terminal_size_of(fd)?;
    Some(Size { rows, columns })
}

#[cfg(test)]
mod tests {
    use nix::pty::{OpenptyResult, openpty};
    use nix::sys::termios::LocalFlags;

    use super::*;

    #[test]
    fn raw_mode_ends_with_its_guard_even_in_a_panic() {
        let window = nix::libc::winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult {
            master: _master,
            slave,
        } = openpty(Some(&window), None).unwrap();
        let cooked = |fd: &std::os::fd::OwnedFd| {
            tcgetattr(fd)
                .unwrap()
                .local_flags
                .contains(LocalFlags::ICANON | LocalFlags::ECHO)
        };
        assert!(cooked(&slave));
        let result = std::panic::catch_unwind(|| {
            let _guard = RawMode::enter(&slave).unwrap();
            assert!(!cooked(&slave));
            panic!("on purpose");
        });
        assert!(result.is_err());
        assert!(cooked(&slave));
        assert_eq!(
            size(&slave),
            Some(Size {
                rows: 30,
                columns: 100
            })
        );
    }
}
