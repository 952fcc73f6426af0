//! A pseudo-terminal with a program on it, for tests of `-it`.

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{pty::openpty, unistd::ttyname};

use crate::{
    command::{self, check, exit_code, until},
    error::{Error, Result},
};

/// Output that has not come by then never will.
const EXPECT_S: u64 = 20;

/// A program whose controlling terminal is ours.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    name: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
    read: usize,
}

impl Terminal {
    /// Starts a command on a terminal of 24 lines and 80 columns.
    ///
    /// # Errors
    /// When there is no terminal or the command cannot be started.
    pub fn start(command: &Command) -> Result<Self> {
        let pair = openpty(None, None).map_err(Error::io("open a terminal"))?;
        let name = ttyname(&pair.slave).map_err(Error::io("name a terminal"))?;
        let slave = File::from(pair.slave);
        let duplicate = || slave.try_clone().map_err(Error::io("duplicate a terminal"));
        // util-linux makes it the controlling terminal, which std has no safe way for.
        let mut wrapped = Command::new("setsid");
        wrapped
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        wrapped.env_clear();
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(key, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
            .stdin(duplicate()?)
            .stdout(duplicate()?)
            .stderr(duplicate()?);
        let child = wrapped.spawn().map_err(Error::io("start setsid"))?;
        let master = File::from(pair.master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (
            master
                .try_clone()
                .map_err(Error::io("duplicate a terminal"))?,
            Arc::clone(&seen),
        );
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(bytes);
            }
        });
        let mut terminal = Self {
            child,
            master,
            name,
            seen,
            read: 0,
        };
        terminal.resize(24, 80)?;
        Ok(terminal)
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.master
            .write_all(text.as_bytes())
            .map_err(Error::io("type on a terminal"))
    }

    /// Waits until the output since the last call has this text, and forgets it up to there.
    ///
    /// # Errors
    /// With what came instead.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let found = until(EXPECT_S, text, || {
            let output = self.unread();
            output
                .find(text)
                .map(|at| output.get(..at + text.len()).unwrap_or("").to_owned())
        });
        match found {
            Ok(output) => {
                self.read += output.len();
                Ok(output)
            }
            Err(_) => Err(Error::Missing(format!(
                "no {text:?} on the terminal: {:?}",
                self.unread()
            ))),
        }
    }

    fn unread(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Tests print ASCII only, so lossy decoding keeps offsets.
        String::from_utf8_lossy(seen.get(self.read..).unwrap_or_default()).into_owned()
    }

    /// Changes the terminal's size; its foreground process gets SIGWINCH.
    ///
    /// # Errors
    /// When stty fails.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(&self.name);
        check(stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()])).map(drop)
    }

    /// Waits for the program's end; yields its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&mut self) -> Result<i32> {
        command::wait(&mut self.child, "a program on a terminal").map(exit_code)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
