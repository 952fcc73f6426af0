//! Admission of a request to start a process, and the clone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use rcd_sys::{clone, pidfd, process, scm, userns};

use super::table::{Phase, Process, Starting, Table};
use super::{FDS_RESERVE, PROCESSES_MAX};
use crate::protocol::{Failure, FdRole, ProcessKey, Slot, Spawn, Step};
use crate::stage;

/// Namespaces that a container may have of its own. A mount namespace it must have, or it would set
/// itself up in the holder's.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// The highest signal number, SIGRTMAX.
const SIGNAL_MAX: i32 = 64;

/// What a child needs of its holder.
#[derive(Debug)]
pub(super) struct Nursery<'a> {
    pub(super) mount_point: &'a Path,
    pub(super) pid_namespace: &'a OwnedFd,
    pub(super) nofile: (rlim_t, rlim_t),
}

/// Descriptors of a request by their roles.
#[derive(Debug, Default)]
struct Fds {
    plan: Option<OwnedFd>,
    cgroup: Option<OwnedFd>,
    netns: Option<OwnedFd>,
    stdio: [Option<OwnedFd>; 3],
    kept: BTreeMap<Slot, OwnedFd>,
}

/// A refusal by the holder itself.
pub(super) fn refusal(key: &ProcessKey, detail: impl Into<String>) -> Failure {
    let object = match &key.exec {
        Some(exec) => format!("exec {exec} in container {}", key.container),
        None => format!("container {}", key.container),
    };
    Failure { step: Step::Admit, object, errno: 0, detail: detail.into() }
}

fn failed(step: Step, object: &str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure { step, object: object.into(), errno: errno as i32, detail: String::new() }
}

/// Starts a process: admits, clones, and leaves the child to itself. Its requester hears of its
/// success or failure later.
pub(super) fn spawn(
    table: &Table,
    nursery: &Nursery<'_>,
    requester: (u64, u64),
    request: &Spawn,
    fds: Vec<(FdRole, OwnedFd)>,
) -> Result<Process, Failure> {
    let init = admit(table, request, nursery.nofile.1, &fds)
        .map_err(|detail| refusal(&request.key, detail))?;
    let mut fds = sort(fds).map_err(|detail| refusal(&request.key, detail))?;
    let (mine, theirs) = scm::pair().map_err(failed(Step::Clone, "status socket"))?;
    let kept = std::mem::take(&mut fds.kept);
    let started_at_ns = now_ns();
    let child = match init {
        Some(init) => clone_into(nursery, init, fds, theirs)?,
        None => clone_child(nursery, request.namespaces, None, fds, theirs)?,
    };
    // Absent if the child has already ended; then there is nothing to keep.
    let mounts = match init {
        Some(_) => None,
        None => pidfd::mount_namespace(child.pidfd.as_fd(), child.pid).ok(),
    };
    let starting = Starting { status: Some(mine), requester: Some(requester), failure: None };
    Ok(Process {
        key: request.key.clone(),
        pid: child.pid,
        pidfd: child.pidfd,
        mounts,
        kept,
        started_at_ns,
        stop_signal: request.stop_signal,
        stop_timeout_ms: request.stop_timeout_ms,
        kill_at: None,
        phase: Phase::Starting(starting),
    })
}

/// Checks a request against the table. For an exec, gives the container's init.
fn admit<'a>(
    table: &'a Table,
    request: &Spawn,
    descriptors_max: u64,
    fds: &[(FdRole, OwnedFd)],
) -> Result<Option<&'a Process>, &'static str> {
    let key = &request.key;
    if !key.is_valid() {
        return Err("the id is malformed");
    }
    if table.id_of(key).is_some() {
        return Err("it exists, or has ended and is not acknowledged");
    }
    if table.len() >= PROCESSES_MAX {
        return Err("the holder's table of processes is full");
    }
    // The kernel gives out the lowest free numbers, so the number tells how many are in use.
    let highest = fds.iter().map(|(_, fd)| u64::from(fd.as_raw_fd().unsigned_abs())).max();
    if highest.unwrap_or(0).saturating_add(FDS_RESERVE) > descriptors_max {
        return Err("the holder has no descriptors left (RLIMIT_NOFILE)");
    }
    if !(1..=SIGNAL_MAX).contains(&request.stop_signal) {
        return Err("the stop signal is out of range");
    }
    if key.exec.is_some() {
        let init = ProcessKey { container: key.container.clone(), exec: None };
        let init = table.id_of(&init).and_then(|id| table.get(id));
        return match init {
            Some(init) if matches!(init.phase, Phase::Running) => Ok(Some(init)),
            _ => Err("the container is not running"),
        };
    }
    if request.namespaces & !NAMESPACES != 0 || request.namespaces & libc::CLONE_NEWNS as u64 == 0 {
        return Err("the set of namespaces is not one that a container can have");
    }
    Ok(None)
}

/// Takes the descriptors apart. No role occurs twice (`protocol::assign`).
fn sort(received: Vec<(FdRole, OwnedFd)>) -> Result<Fds, &'static str> {
    let mut fds = Fds::default();
    let [stdin, stdout, stderr] = &mut fds.stdio;
    for (role, fd) in received {
        match role {
            FdRole::Plan => fds.plan = Some(fd),
            FdRole::Cgroup => fds.cgroup = Some(fd),
            FdRole::NetNs => fds.netns = Some(fd),
            FdRole::Stdin => *stdin = Some(fd),
            FdRole::Stdout => *stdout = Some(fd),
            FdRole::Stderr => *stderr = Some(fd),
            FdRole::Keep(Slot::Pty) => return Err("a terminal is the child's to make"),
            FdRole::Keep(slot) => drop(fds.kept.insert(slot, fd)),
            FdRole::Pidfd => return Err("a request carries no pidfd"),
        }
    }
    match fds.plan {
        Some(_) => Ok(fds),
        None => Err("it has no plan"),
    }
}

/// Clones into a container's pid namespace. Only children made meanwhile are affected, and there is
/// one thread to make any.
fn clone_into(
    nursery: &Nursery<'_>,
    init: &Process,
    fds: Fds,
    status: OwnedFd,
) -> Result<clone::Child, Failure> {
    let join = init.pidfd.try_clone().map_err(|error| {
        failed(Step::Join, "pidfd")(crate::error::io_errno(&error))
    })?;
    userns::setns(init.pidfd.as_fd(), libc::CLONE_NEWPID as u64)
        .map_err(failed(Step::Join, "pid namespace"))?;
    let child = clone_child(nursery, 0, Some(join), fds, status);
    // Should it fail, `clone_child` finds out before it makes anything in the wrong namespace.
    let _ = return_home(nursery);
    child
}

fn return_home(nursery: &Nursery<'_>) -> Result<(), Errno> {
    userns::setns(nursery.pid_namespace.as_fd(), libc::CLONE_NEWPID as u64)
}

fn clone_child(
    nursery: &Nursery<'_>,
    namespaces: u64,
    join: Option<OwnedFd>,
    fds: Fds,
    status: OwnedFd,
) -> Result<clone::Child, Failure> {
    if join.is_none() {
        return_home(nursery).map_err(failed(Step::Clone, "the holder's pid namespace"))?;
    }
    let Some(plan) = fds.plan else {
        return Err(failed(Step::Admit, "plan")(Errno::EBADF));
    };
    let [stdin, stdout, stderr] = fds.stdio;
    let netns = fds.netns;
    let keep: Vec<i32> = [Some(&plan), Some(&status)]
        .into_iter()
        .chain([&netns, &join, &stdin, &stdout, &stderr].map(Option::as_ref))
        .flatten()
        .map(AsRawFd::as_raw_fd)
        .collect();
    let options = clone::Options {
        namespaces,
        cgroup: fds.cgroup.as_ref().map(AsFd::as_fd),
        keep: Some(&keep),
    };
    let mount_point = nursery.mount_point.to_owned();
    let nofile = nursery.nofile;
    let child = stage::Child { plan, status, netns, join, stdin, stdout, stderr, mount_point };
    clone::clone3(options, move || run_child(nofile, child)).map_err(failed(Step::Clone, ""))
}

/// In the child: undoes what the holder arranged for itself, then leaves all to the stage.
fn run_child(nofile: (rlim_t, rlim_t), child: stage::Child) -> Infallible {
    // None of these can fail with these arguments, and each only spares the program a surprise.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = process::default_signal(libc::SIGPIPE);
    let _ = process::default_signal(libc::SIGHUP);
    let _ = SigSet::empty().thread_set_mask();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, nofile.0, nofile.1);
    stage::enter(child)
}

/// Now, in nanoseconds since the epoch.
pub(super) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
