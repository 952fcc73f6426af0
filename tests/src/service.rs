//! `rcd serve` without systemd, with directories of its own. The daemon starts its holder itself.

use std::{
    fs,
    os::unix::net::UnixStream,
    process::{Child, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Daemon, Environment, Sandbox,
    command::until,
    error::{Error, Result},
};

/// A daemon that does not answer by then never will.
const START_S: u64 = 30;

/// One daemon, its holder and its containers; all killed when dropped.
#[derive(Debug)]
pub struct Service {
    daemon: Option<Child>,
    sandbox: Sandbox,
}

impl Service {
    /// Starts a daemon and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(environment: &Environment) -> Result<Self> {
        Self::start_in(environment.sandbox("d")?)
    }

    /// The same in a sandbox that the caller has prepared.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn start_in(sandbox: Sandbox) -> Result<Self> {
        let mut service = Self {
            daemon: None,
            sandbox,
        };
        service.spawn()?;
        Ok(service)
    }

    /// Starts the daemon again after [`Self::stop`], and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn spawn(&mut self) -> Result<()> {
        let log = self.sandbox.home.join("rcd.log");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io(format!("open {}", log.display())))?;
        let child = self
            .sandbox
            .command_in_cgroup(&self.sandbox.bin.join("rcd"))
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(Error::io("duplicate a file"))?)
            .stderr(file)
            .spawn()
            .map_err(Error::io("start rcd"))?;
        self.daemon = Some(child);
        let socket = self.sandbox.socket();
        let answered = until(START_S, "rcd's socket", || {
            let ended = self.daemon.as_mut()?.try_wait().ok().flatten();
            match (ended, UnixStream::connect(&socket)) {
                (Some(status), _) => Some(Err(status)),
                (None, Ok(_)) => Some(Ok(())),
                (None, Err(_)) => None,
            }
        });
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(Error::Missing(format!(
                "rcd ended with {status}:\n{}",
                self.log()
            ))),
            Err(_) => Err(Error::Missing(format!(
                "rcd does not answer:\n{}",
                self.log()
            ))),
        }
    }

    /// What the daemon wrote on its standard error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.sandbox.home.join("rcd.log")).unwrap_or_default()
    }

    /// Sends the daemon a signal and waits for its end; the holder and the containers stay.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        let pid = self.daemon_pid()?;
        kill(Pid::from_raw(pid), signal).map_err(Error::io("signal rcd"))?;
        let mut child = self.daemon.take();
        until(START_S, "rcd's end", || {
            child.as_mut()?.try_wait().ok().flatten()
        })
        .map(drop)
    }

    /// Waits for the daemon to end by itself, as at a fail point; yields how it ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        let mut child = self.daemon.take();
        until(START_S, "rcd's end", || {
            child.as_mut()?.try_wait().ok().flatten()
        })
    }

    /// Variables for daemons that are started from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.sandbox.extra.insert(name.into(), value.into());
    }

    /// Takes such a variable back.
    pub fn clear_variable(&mut self, name: &str) {
        self.sandbox.extra.remove(name);
    }
}

impl Daemon for Service {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn daemon_pid(&self) -> Result<i32> {
        let child = self
            .daemon
            .as_ref()
            .ok_or(Error::Missing("rcd does not run".into()))?;
        i32::try_from(child.id()).map_err(|_| Error::Missing("rcd has no pid".into()))
    }

    fn restart(&mut self) -> Result<()> {
        self.stop(Signal::SIGTERM)?;
        self.spawn()
    }

    fn kill_daemon(&mut self) -> Result<()> {
        self.stop(Signal::SIGKILL)?;
        self.spawn()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("RCD_TEST_LOG").is_some() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                crate::harness::note(line);
            }
        }
        if self.sandbox.cgroup.is_none() {
            self.end_without_cgroup();
        }
        if let Some(mut child) = self.daemon.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Service {
    /// Without a cgroup the holder is found by the pid that the daemon reports.
    fn end_without_cgroup(&self) {
        let output = self.rc(&["info", "--format", "json"]);
        let info: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let pid = info["holderPid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.filter(|pid| *pid > 1) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
    }
}
