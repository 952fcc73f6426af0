//! A real `systemd --user` with directories of its own and rcd's units installed.
//!
//! The manager is the one that a login starts, only started by us: units, socket activation,
//! Type=notify, Delegate=yes and the watchdog are real. It needs a delegated cgroup.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Daemon, Environment, Output, Sandbox,
    command::{self, until},
    error::{Error, Result},
    units,
};

/// Where distributions keep the manager.
const MANAGERS: [&str; 2] = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];
/// A manager that is not up by then never will be.
const START_S: u64 = 30;

/// A user manager; ended with everything in it when dropped.
#[derive(Debug)]
pub struct Session {
    manager: Child,
    sandbox: Sandbox,
}

impl Session {
    /// Starts a manager and installs the units, not yet started.
    ///
    /// # Errors
    /// When there is no delegated cgroup or no systemd, or it does not come up.
    pub fn start(environment: &Environment) -> Result<Self> {
        let session = Self::start_bare(environment)?;
        let bin = session.sandbox.bin.clone();
        units::install_units(&session.units(), &bin)?;
        session.systemctl(&["daemon-reload"])?;
        Ok(session)
    }

    /// Starts a manager without any of rcd's units.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_bare(environment: &Environment) -> Result<Self> {
        let sandbox = environment.sandbox("s")?;
        if sandbox.cgroup.is_none() {
            let text = "no delegated cgroup: a user manager cannot run here";
            return Err(Error::Missing(text.into()));
        }
        let program = MANAGERS.iter().map(Path::new).find(|path| path.exists());
        let program = program.ok_or_else(|| Error::Missing("systemd is not installed".into()))?;
        let log = sandbox.home.join("manager.log");
        let log_file =
            fs::File::create(&log).map_err(Error::io(format!("make {}", log.display())))?;
        let manager = sandbox
            .command_in_cgroup(program)
            .args(["--user", "--log-target=console", "--log-level=info"])
            .env("XDG_DATA_DIRS", "/usr/share")
            .stdin(Stdio::null())
            .stdout(
                log_file
                    .try_clone()
                    .map_err(Error::io("duplicate a file"))?,
            )
            .stderr(log_file)
            .spawn()
            .map_err(Error::io("start systemd --user"))?;
        let session = Self { manager, sandbox };
        until(START_S, "systemd --user to answer", || {
            let private = session.sandbox.runtime.join("systemd/private");
            (private.exists()
                && session
                    .systemctl(&["is-system-running"])
                    .is_ok_and(|_| true)
                || session.is_degraded(&private))
            .then_some(())
        })
        .map_err(|_| Error::Missing(format!("systemd --user: {}", session.manager_log())))?;
        Ok(session)
    }

    /// A manager some of whose stock units failed (no D-Bus, for instance) is up all the same.
    fn is_degraded(&self, private: &Path) -> bool {
        private.exists()
            && command::run(self.systemctl_command().arg("is-system-running"))
                .is_ok_and(|output| output.stdout.trim() == "degraded")
    }

    /// Folder of the units.
    #[must_use]
    pub fn units(&self) -> PathBuf {
        self.sandbox.home.join(".config/systemd/user")
    }

    /// What the manager and its services wrote.
    #[must_use]
    pub fn manager_log(&self) -> String {
        fs::read_to_string(self.sandbox.home.join("manager.log")).unwrap_or_default()
    }

    fn systemctl_command(&self) -> std::process::Command {
        let mut command = self.sandbox.command("systemctl");
        command.args(["--user", "--no-pager"]);
        command
    }

    /// `systemctl --user` with these arguments; yields its trimmed stdout.
    ///
    /// # Errors
    /// When it exits otherwise than with 0.
    pub fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        command::check(self.systemctl_command().args(arguments))
    }

    /// `systemctl --user`, however it ends.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn systemctl_output(&self, arguments: &[&str]) -> Result<Output> {
        command::run(self.systemctl_command().args(arguments))
    }

    /// One property of a unit.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.systemctl(&["show", "--value", "--property", name, unit])
    }

    /// Main pid of a unit, if it runs.
    ///
    /// # Errors
    /// When it has none.
    pub fn main_pid(&self, unit: &str) -> Result<i32> {
        let pid = self.property(unit, "MainPID")?.parse().unwrap_or(0);
        if pid > 0 {
            Ok(pid)
        } else {
            Err(Error::Missing(format!("{unit} does not run")))
        }
    }
}

impl Daemon for Session {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn daemon_pid(&self) -> Result<i32> {
        self.main_pid("rcd.service")
    }

    fn restart(&mut self) -> Result<()> {
        self.systemctl(&["restart", "rcd.service"]).map(drop)
    }

    fn kill_daemon(&mut self) -> Result<()> {
        let old = self.daemon_pid()?;
        kill(Pid::from_raw(old), Signal::SIGKILL).map_err(Error::io("kill rcd"))?;
        until(START_S, "the next rcd", || {
            let active = self.property("rcd.service", "ActiveState").ok()? == "active";
            (active && self.daemon_pid().ok()? != old).then_some(())
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("RCD_TEST_LOG").is_some() {
            let log = self.manager_log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            for line in tail.iter().rev() {
                crate::harness::note(line);
            }
        }
        self.systemctl(&["exit"]).ok();
        until(20, "the manager's end", || {
            self.manager.try_wait().ok().flatten()
        })
        .ok();
        self.manager.kill().ok();
        self.manager.wait().ok();
    }
}
