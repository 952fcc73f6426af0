//! Everything before the event loop, in the order that the module above explains.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg};
use nix::libc;
use nix::mount::MsFlags;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};
use rcd_sys::{memfd, process, scm, userns};

use super::log::{self, Log};
use super::{Options, cgroup, notify};
use crate::Error;
use crate::cleaner::Cleaner;
use crate::idmap::Helper;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// What the event loop starts with.
#[derive(Debug)]
pub(super) struct Parts {
    /// Listening socket.
    pub(super) listener: OwnedFd,
    /// Its path, removed at the end.
    pub(super) socket: PathBuf,
    /// Held as long as the holder lives.
    pub(super) lock: Flock<File>,
    /// The mount point that all containers use, each in its own mount namespace.
    pub(super) mount_point: PathBuf,
    /// Parent cgroup of containers.
    pub(super) cgroup: Option<PathBuf>,
    /// Signals blocked for the signal descriptor.
    pub(super) signals: SigSet,
    /// RLIMIT_NOFILE as it was, for children: soft and hard.
    pub(super) nofile: (rlim_t, rlim_t),
    /// Closes what is slow to close.
    pub(super) cleaner: Cleaner,
    /// Where lines go.
    pub(super) log: Log,
}

pub(super) fn start(options: &Options) -> Result<Parts, Error> {
    if Uid::effective().is_root() || Uid::current().is_root() {
        return Err(Error::Root);
    }
    run_from_sealed_copy()?;
    // It fails only for a process group leader, as under a shell with job control; such a holder
    // stays in its session, which systemd and the daemon never let happen.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"rcd-init");
    let (mount_point, lock) = claim(&options.socket)?;
    let log = Log::open(options.log.as_deref())?;
    // Whatever directory it was started in can be unmounted, and no child begins in one of the host's.
    nix::unistd::chdir("/").map_err(Error::call("change to the root directory"))?;
    let cgroup = cgroup::delegated();
    let signals = arrange_signals()?;
    let nofile = raise_descriptor_limit()?;
    enter_user_namespace()?;
    enter_mount_namespace()?;
    nix::sys::prctl::set_child_subreaper(true).map_err(Error::call("become a subreaper"))?;
    let socket = options.socket.clone();
    let listener =
        scm::listen(&socket, BACKLOG).map_err(Error::file("make the socket", &socket))?;
    log.take_stdio()?;
    // It inherits stdio, so not before that leads nowhere.
    let cleaner = Cleaner::start()?;
    if let Err(reason) = &cgroup {
        log.line(format_args!(
            "no delegated cgroup, so no limits on containers: {reason}"
        ));
    }
    notify::notify("READY=1");
    let cgroup = cgroup.ok();
    Ok(Parts {
        listener,
        socket,
        lock,
        mount_point,
        cgroup,
        signals,
        nofile,
        cleaner,
        log,
    })
}

/// Replaces the process, once, by itself run from a copy that nobody can write to.
fn run_from_sealed_copy() -> Result<(), Error> {
    let path = Path::new("/proc/self/exe");
    let mut executable = File::open(path).map_err(Error::io("open", path))?;
    if memfd::is_sealed(executable.as_fd()) {
        return Ok(());
    }
    let copy = memfd::sealed_executable(c"rcd-init", &mut executable)
        .map_err(Error::call("copy the program into a sealed memfd"))?;
    let strings = |values: Vec<std::ffi::OsString>| -> Vec<CString> {
        // None holds a zero byte: they came to us as C strings.
        values
            .into_iter()
            .filter_map(|value| CString::new(value.into_vec()).ok())
            .collect()
    };
    let arguments = strings(std::env::args_os().collect());
    let environment = strings(
        std::env::vars_os()
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                name
            })
            .collect(),
    );
    let flags = AtFlags::AT_EMPTY_PATH;
    let failed: Infallible =
        match nix::unistd::execveat(&copy, c"", &arguments, &environment, flags) {
            Ok(never) => never,
            Err(source) => {
                return Err(Error::Call {
                    action: "execute the sealed copy",
                    source,
                });
            }
        };
    match failed {}
}

/// Checks the directory, takes the lock, removes a dead holder's socket, and makes the mount point.
fn claim(socket: &Path) -> Result<(PathBuf, Flock<File>), Error> {
    let directory = socket
        .parent()
        .filter(|parent| parent.is_absolute())
        .ok_or_else(|| Error::Directory {
            path: socket.to_owned(),
            problem: "is not an absolute path",
        })?;
    private_directory(directory)?;
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let path = directory.join(name);
    let flags = nix::fcntl::OFlag::O_RDWR
        | nix::fcntl::OFlag::O_CREAT
        | nix::fcntl::OFlag::O_CLOEXEC
        | nix::fcntl::OFlag::O_NOFOLLOW;
    let file =
        nix::fcntl::open(&path, flags, log::private()).map_err(Error::file("open", &path))?;
    let lock = match Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => {
            return Err(Error::AlreadyRunning {
                socket: socket.to_owned(),
            });
        }
        Err((_, source)) => {
            return Err(Error::File {
                action: "lock",
                path,
                source,
            });
        }
    };
    match scm::connect(socket) {
        Ok(_) => {
            return Err(Error::AlreadyRunning {
                socket: socket.to_owned(),
            });
        }
        Err(Errno::ENOENT) => {}
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(socket).map_err(Error::io("remove the stale socket", socket))?;
        }
        Err(source) => {
            return Err(Error::File {
                action: "use the socket",
                path: socket.into(),
                source,
            });
        }
    }
    let mount_point = directory.join("rootfs");
    private_directory(&mount_point)?;
    Ok((mount_point, lock))
}

/// Makes a directory, or checks that it is one that only this user can look into.
fn private_directory(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("make the directory", path)(error));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    let problem = if !metadata.is_dir() {
        "is not a directory"
    } else if metadata.uid() != Uid::effective().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & 0o077 != 0 {
        "is open to other users"
    } else {
        return Ok(());
    };
    Err(Error::Directory {
        path: path.to_owned(),
        problem,
    })
}

/// Blocks what the signal descriptor will deliver, and ignores what must not end the holder.
fn arrange_signals() -> Result<SigSet, Error> {
    use nix::sys::signal::Signal;
    for signal in [libc::SIGPIPE, libc::SIGHUP] {
        process::ignore_signal(signal).map_err(Error::call("ignore a signal"))?;
    }
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM] {
        set.add(signal);
    }
    set.thread_block().map_err(Error::call("block signals"))?;
    Ok(set)
}

/// The holder keeps several descriptors a container, so it takes all that it may have.
fn raise_descriptor_limit() -> Result<(rlim_t, rlim_t), Error> {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::call("read RLIMIT_NOFILE"))?;
    setrlimit(Resource::RLIMIT_NOFILE, limits.1, limits.1)
        .map_err(Error::call("raise RLIMIT_NOFILE"))?;
    Ok(limits)
}

fn enter_user_namespace() -> Result<(), Error> {
    let helper = Helper::start()?;
    let action = "make a user namespace";
    userns::unshare(libc::CLONE_NEWUSER as u64).map_err(|errno| forbidden(action, errno))?;
    helper.map()?;
    let zero = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(zero.1, zero.1, zero.1)
        .and_then(|()| nix::unistd::setresuid(zero.0, zero.0, zero.0))
        .and_then(|()| nix::unistd::setgroups(&[]))
        .map_err(|errno| forbidden("become root of the user namespace", errno))
}

fn enter_mount_namespace() -> Result<(), Error> {
    let action = "make a mount namespace";
    userns::unshare(libc::CLONE_NEWNS as u64).map_err(|errno| forbidden(action, errno))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|errno| forbidden("make / a slave mount", errno))
}

/// Finds the setting behind a refusal, where there is one.
fn forbidden(action: &'static str, source: Errno) -> Error {
    let setting = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let reason = if setting("kernel/unprivileged_userns_clone") == Some(0) {
        "the sysctl kernel.unprivileged_userns_clone is 0; an administrator sets it to 1"
    } else if setting("user/max_user_namespaces") == Some(0) {
        "the sysctl user.max_user_namespaces is 0; an administrator sets it to 15000, say"
    } else if source == Errno::ENOSPC {
        "the limit user.max_user_namespaces is reached; an administrator raises it"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && matches!(source, Errno::EPERM | Errno::EACCES)
    {
        "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1); \
         an administrator loads a profile with `userns,` for rcd-init or sets it to 0"
    } else {
        return Error::Call { action, source };
    };
    Error::Forbidden {
        action,
        reason,
        source,
    }
}
