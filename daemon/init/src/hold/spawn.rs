//! Admission of a request to start a process, and the clone.
//!
//! A container's init is a child of the holder, cloned with its namespaces. An exec must be born in
//! its container's pid namespace, and the holder could enter that, but never come back: its own pid
//! namespace belongs to the host's user namespace. So a *go-between* enters it, clones the exec as
//! its sibling (CLONE_PARENT: a child of the holder, too) and exits:
//!
//! ```text
//!  holder ─clone3─► go-between ─setns(pid), clone3(CLONE_PARENT)─► exec ── "P" ──► holder
//! ```
//!
//! The exec's first act is a packet on the status socket, on which the kernel shows the holder the
//! sender's pid in the holder's terms. As parent the holder alone can reap it, so no other process
//! can have that pid by then.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
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

/// What an exec says first, so that the holder learns its pid.
pub(super) const BORN_PACKET: &[u8] = b"P";

/// The highest signal number, SIGRTMAX.
const SIGNAL_MAX: i32 = 64;

/// What a child needs of its holder.
#[derive(Debug)]
pub(super) struct Nursery<'a> {
    pub(super) mount_point: &'a Path,
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
    Failure {
        step: Step::Admit,
        object,
        errno: 0,
        detail: detail.into(),
    }
}

fn failed(step: Step, object: &str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure {
        step,
        object: object.into(),
        errno: errno as i32,
        detail: String::new(),
    }
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
    scm::show_sender(mine.as_fd()).map_err(failed(Step::Clone, "status socket"))?;
    let kept = std::mem::take(&mut fds.kept);
    let started_at_ns = now_ns();
    let child = match init {
        Some(init) => clone_exec(nursery, init, fds, theirs)?,
        None => clone_init(nursery, request.namespaces, fds, theirs)?,
    };
    // Absent if the child has already ended; then there is nothing to keep.
    let mounts = match init {
        Some(_) => None,
        None => pidfd::mount_namespace(child.pidfd.as_fd(), child.pid).ok(),
    };
    let (status, requester, unborn) = (Some(mine), Some(requester), init.is_some());
    let starting = Starting {
        status,
        requester,
        failure: None,
        unborn,
    };
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
    let highest = fds
        .iter()
        .map(|(_, fd)| u64::from(fd.as_raw_fd().unsigned_abs()))
        .max();
    if highest.unwrap_or(0).saturating_add(FDS_RESERVE) > descriptors_max {
        return Err("the holder has no descriptors left (RLIMIT_NOFILE)");
    }
    if !(1..=SIGNAL_MAX).contains(&request.stop_signal) {
        return Err("the stop signal is out of range");
    }
    if key.exec.is_some() {
        let init = ProcessKey {
            container: key.container.clone(),
            exec: None,
        };
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

fn clone_init(
    nursery: &Nursery<'_>,
    namespaces: u64,
    fds: Fds,
    status: OwnedFd,
) -> Result<clone::Child, Failure> {
    let nofile = nursery.nofile;
    let (child, cgroup) = stage_child(nursery, None, fds, status)?;
    let keep = descriptors(&child);
    let cgroup = cgroup.as_ref().map(AsFd::as_fd);
    let options = clone::Options {
        namespaces,
        cgroup,
        sibling: false,
        keep: Some(&keep),
    };
    clone::clone3(options, move || run_child(nofile, child)).map_err(failed(Step::Clone, ""))
}

fn clone_exec(
    nursery: &Nursery<'_>,
    init: &Process,
    fds: Fds,
    status: OwnedFd,
) -> Result<clone::Child, Failure> {
    let nofile = nursery.nofile;
    let join = init
        .pidfd
        .try_clone()
        .map_err(|error| failed(Step::Join, "pidfd")(crate::error::io_errno(&error)))?;
    let (child, cgroup) = stage_child(nursery, Some(join), fds, status)?;
    let mut keep = descriptors(&child);
    keep.extend(cgroup.as_ref().map(AsRawFd::as_raw_fd));
    let options = clone::Options {
        keep: Some(&keep),
        ..clone::Options::default()
    };
    clone::clone3(options, move || go_between(nofile, child, cgroup))
        .map_err(failed(Step::Clone, "go-between"))
}

/// What the stage gets, and the cgroup apart from it.
fn stage_child(
    nursery: &Nursery<'_>,
    join: Option<OwnedFd>,
    fds: Fds,
    status: OwnedFd,
) -> Result<(stage::Child, Option<OwnedFd>), Failure> {
    let Some(plan) = fds.plan else {
        return Err(failed(Step::Admit, "plan")(Errno::EBADF));
    };
    let ([stdin, stdout, stderr], netns) = (fds.stdio, fds.netns);
    let mount_point = nursery.mount_point.to_owned();
    let child = stage::Child {
        plan,
        status,
        netns,
        join,
        stdin,
        stdout,
        stderr,
        mount_point,
    };
    Ok((child, fds.cgroup))
}

/// All descriptors that a child owns.
fn descriptors(child: &stage::Child) -> Vec<RawFd> {
    let stage::Child {
        plan,
        status,
        netns,
        join,
        stdin,
        stdout,
        stderr,
        mount_point: _,
    } = child;
    let optional = [netns, join, stdin, stdout, stderr].into_iter().flatten();
    [plan, status]
        .into_iter()
        .chain(optional)
        .map(AsRawFd::as_raw_fd)
        .collect()
}

/// In the go-between: makes the exec, or reports why not.
fn go_between(
    nofile: (rlim_t, rlim_t),
    child: stage::Child,
    cgroup: Option<OwnedFd>,
) -> Infallible {
    let keep = descriptors(&child);
    let status = child.status.try_clone();
    let made = match &child.join {
        Some(init) => userns::setns(init.as_fd(), libc::CLONE_NEWPID as u64),
        None => Err(Errno::EBADF),
    };
    let made = made
        .map_err(failed(Step::Join, "pid namespace"))
        .and_then(|()| {
            let cgroup = cgroup.as_ref().map(AsFd::as_fd);
            let options = clone::Options {
                namespaces: 0,
                cgroup,
                sibling: true,
                keep: Some(&keep),
            };
            let born = move || {
                // It has room for one packet; a holder that is gone needs none.
                let _ = scm::send(child.status.as_fd(), BORN_PACKET, &[]);
                run_child(nofile, child)
            };
            clone::clone3(options, born).map_err(failed(Step::Clone, "exec"))
        });
    if let (Err(failure), Ok(status)) = (made, status) {
        let report = crate::protocol::encode(&failure).unwrap_or_default();
        let packet = [stage::FAILURE_PACKET, &report].concat();
        let _ = scm::send(status.as_fd(), &packet, &[]);
    }
    process::exit_now(0)
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
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
