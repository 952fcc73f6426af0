//! Where tests run: staged binaries, a work folder, a runtime folder, a delegated cgroup.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    command::{self, Output},
    error::{Error, Result},
};

/// Folder with `rc`, `rcd` and `rcd-init`.
pub const BIN_VARIABLE: &str = "RCD_TEST_BIN";
/// Cgroup (a path under /sys/fs/cgroup) that the user owns; absent where none is delegated.
pub const CGROUP_VARIABLE: &str = "RCD_TEST_CGROUP";
/// Folder for data, on a file system that can be an overlay's upper layer.
pub const WORK_VARIABLE: &str = "RCD_TEST_WORK";
/// Folder for made images; kept between runs.
pub const CACHE_VARIABLE: &str = "RCD_TEST_CACHE";

/// The prepared place.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Folder with `rc`, `rcd` and `rcd-init`.
    pub bin: PathBuf,
    /// Folder for data of this run.
    pub work: PathBuf,
    /// Folder for made images.
    pub cache: PathBuf,
    /// The user's own runtime directory.
    pub runtime: PathBuf,
    /// Delegated cgroup of this run.
    pub cgroup: Option<PathBuf>,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Environment {
    /// Takes the place up that `xtask` prepared; `None` outside of one.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let path = |name: &str| env::var_os(name).map(PathBuf::from);
        Some(Self {
            bin: path(BIN_VARIABLE)?,
            work: path(WORK_VARIABLE)?,
            cache: path(CACHE_VARIABLE)?,
            runtime: path("XDG_RUNTIME_DIR")?,
            cgroup: path(CGROUP_VARIABLE),
        })
    }

    /// Makes a set of directories for one daemon, and a cgroup to put it in.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn sandbox(&self, name: &str) -> Result<Sandbox> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let home = self.work.join(&name);
        // Short, for a socket's path may have 107 bytes.
        let runtime = self.runtime.join(&name);
        let cgroup = self.cgroup.as_ref().map(|parent| parent.join(&name));
        for directory in [&home, &runtime] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(Error::io(format!("make {}", directory.display())))?;
        }
        if let Some(cgroup) = &cgroup {
            fs::create_dir(cgroup).map_err(Error::io(format!("make {}", cgroup.display())))?;
        }
        Ok(Sandbox {
            bin: self.bin.clone(),
            home,
            runtime,
            cgroup,
            extra: BTreeMap::new(),
        })
    }
}

/// Directories and variables of one daemon and its clients. Removed, with every process in its
/// cgroup killed, when dropped.
#[derive(Debug)]
pub struct Sandbox {
    /// Folder with `rc`, `rcd` and `rcd-init`.
    pub bin: PathBuf,
    /// HOME; XDG data, config and cache directories lie in it.
    pub home: PathBuf,
    /// XDG_RUNTIME_DIR.
    pub runtime: PathBuf,
    /// Cgroup of everything in this sandbox.
    pub cgroup: Option<PathBuf>,
    /// More environment variables, for instance fail points.
    pub extra: BTreeMap<String, String>,
}

impl Sandbox {
    /// The data directory of the daemon in here.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.join(".local/share/rcd")
    }

    /// The API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("rcd/varlink.sock")
    }

    /// Environment variables of every process in here, and nothing else.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let system = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
        let mut all = BTreeMap::from([
            ("HOME".into(), text(&self.home)),
            ("XDG_RUNTIME_DIR".into(), text(&self.runtime)),
            (
                "XDG_DATA_HOME".into(),
                text(&self.home.join(".local/share")),
            ),
            ("XDG_CONFIG_HOME".into(), text(&self.home.join(".config"))),
            ("XDG_CACHE_HOME".into(), text(&self.home.join(".cache"))),
            (
                "XDG_STATE_HOME".into(),
                text(&self.home.join(".local/state")),
            ),
            (
                "DBUS_SESSION_BUS_ADDRESS".into(),
                format!("unix:path={}/bus", self.runtime.display()),
            ),
            ("PATH".into(), format!("{}:{system}", self.bin.display())),
            ("LANG".into(), "C.UTF-8".into()),
            ("TERM".into(), "xterm".into()),
        ]);
        for name in ["USER", "LOGNAME", "RCD_LOG", "RUST_BACKTRACE"] {
            if let Ok(value) = env::var(name) {
                all.insert(name.into(), value);
            }
        }
        all.extend(self.extra.clone());
        all
    }

    /// A command with the sandbox's variables and HOME as working directory.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .envs(self.variables())
            .current_dir(&self.home);
        command
    }

    /// A command that first puts itself into the sandbox's cgroup.
    #[must_use]
    pub fn command_in_cgroup(&self, program: &Path) -> Command {
        let Some(cgroup) = &self.cgroup else {
            return self.command(program);
        };
        let mut command = self.command("/bin/sh");
        command
            .arg("-c")
            .arg("echo $$ >\"$0\" && exec \"$@\"")
            .arg(cgroup.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// The command `rc` with these arguments.
    #[must_use]
    pub fn rc_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(self.bin.join("rc"));
        command.args(arguments);
        command
    }

    /// Runs `rc`. Problems with running it at all are reported as exit code -1.
    #[must_use]
    pub fn rc(&self, arguments: &[&str]) -> Output {
        self.rc_with_input(arguments, b"")
    }

    /// Runs `rc` with these bytes as its input.
    #[must_use]
    pub fn rc_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut rc = self.rc_command(arguments);
        command::run_with_input(&mut rc, input).unwrap_or_else(|error| Output {
            command: command::describe(&rc),
            code: -1,
            stdout: String::new(),
            stderr: error.chain(),
        })
    }

    /// Pids in the sandbox's cgroup and below it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        self.cgroup.as_deref().map(pids_below).unwrap_or_default()
    }

    /// Writes a file of the configuration directory, for instance `rcd/rcd.toml`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, name: &str, content: &str) -> Result<()> {
        let path = self.home.join(".config").join(name);
        write(&path, content)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            end_cgroup(cgroup);
        }
        if env::var_os("RCD_TEST_KEEP").is_none() {
            remove_owned_by_range(&[&self.home, &self.runtime]);
        }
    }
}

/// Writes a file and the directories above it.
///
/// # Errors
/// When one of them cannot be made.
pub fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io(format!("make {}", parent.display())))?;
    }
    fs::write(path, content).map_err(Error::io(format!("write {}", path.display())))
}

/// Kills everything in a cgroup and removes it with all below it.
pub fn end_cgroup(cgroup: &Path) {
    if !cgroup.exists() {
        return;
    }
    fs::write(cgroup.join("cgroup.kill"), "1").ok();
    command::until(10, "an empty cgroup", || {
        pids_below(cgroup).is_empty().then_some(())
    })
    .ok();
    // A killed process is gone from cgroup.procs slightly before its cgroup may be removed.
    command::until(5, "the cgroup's removal", || {
        remove_cgroups(cgroup);
        (!cgroup.exists()).then_some(())
    })
    .ok();
}

fn remove_cgroups(cgroup: &Path) {
    for child in subdirectories(cgroup) {
        remove_cgroups(&child);
    }
    fs::remove_dir(cgroup).ok();
}

fn pids_below(cgroup: &Path) -> Vec<i32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in subdirectories(cgroup) {
        pids.extend(pids_below(&child));
    }
    pids
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Removes directories that hold files of subordinate ids: only root of a user namespace with the
/// same range may delete them.
pub fn remove_owned_by_range(directories: &[&Path]) {
    let existing: Vec<_> = directories.iter().filter(|path| path.exists()).collect();
    if existing.is_empty() {
        return;
    }
    let simple = existing.iter().all(|path| fs::remove_dir_all(path).is_ok());
    if !simple {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"]);
        command::run(command.args(existing)).ok();
    }
}

/// Whether a path is a file that somebody may execute.
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
