//! Everything that a start needs before the holder is asked: plan, pipes, cgroup.
//!
//! One blocking function for each kind of start, so that a start costs one hop to a blocking thread
//! and not one for each system call. `mkdir` of the cgroup takes the kernel's global cgroup lock,
//! which is why this is not done on the async runtime's threads; the rest takes 100 us.

use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use oci_spec::runtime::LinuxNamespaceType;
use rcd_init::plan::{PLAN_BYTES_MAX, Plan};
use rcd_init::protocol::{FdRole, ID_BYTES_MAX, ProcessKey, Slot, Spawn};

use crate::cgroup::Cgroups;
use crate::client::{Start, set_nonblocking};
use crate::options::{ContainerOptions, ExecOptions, ProcessOptions, Stdio};
use crate::plan::{self, Extras, ProcessExtras};
use crate::{Error, spec};

/// What goes to the holder with a start, each descriptor under its role.
#[derive(Default)]
struct Cargo {
    roles: Vec<FdRole>,
    fds: Vec<OwnedFd>,
    stdio: Stdio,
}

/// Prepares a container's first process. `netns` is a fresh namespace, or none for the host's.
pub(crate) fn container(
    o: &ContainerOptions,
    cgroups: Option<&Cgroups>,
    netns: Option<OwnedFd>,
    gid_max: u32,
) -> Result<Start, Error> {
    let key = ProcessKey {
        container: id(&o.id)?,
        exec: None,
    };
    let compiled = plan::compile(&spec::spec(o), &Extras::new(o, gid_max))?;
    let mut cargo = Cargo::default();
    cargo.add(FdRole::Plan, seal(&key, &compiled.plan)?);
    cargo
        .add_stdio(&o.process, o.open_stdin)
        .map_err(pipes_of(&key))?;
    let mut namespaces = compiled.namespaces;
    if let Some(netns) = netns {
        namespaces &= !(LinuxNamespaceType::Network as u64);
        cargo.add(FdRole::NetNs, netns);
    }
    // Last, because it is the one thing that outlives a failure.
    let mut cgroup_is_new = false;
    if let Some(cgroups) = cgroups {
        let (fd, new) = cgroups.create(&o.id)?;
        cgroup_is_new = new;
        cargo.add(FdRole::Cgroup, fd);
    }
    let spawn = Spawn {
        seq: 0,
        key,
        namespaces,
        stop_signal: o.stop_signal,
        stop_timeout_ms: milliseconds(o.stop_timeout),
        fds: cargo.roles,
    };
    Ok(Start {
        spawn,
        fds: cargo.fds,
        stdio: cargo.stdio,
        cgroup_is_new,
    })
}

/// Prepares an exec. The holder clones it into the container's cgroup and namespaces.
pub(crate) fn exec(o: &ExecOptions, cgroups: Option<&Cgroups>) -> Result<Start, Error> {
    let key = ProcessKey {
        container: id(&o.container)?,
        exec: Some(id(&o.exec_id)?),
    };
    let plan = plan::compile_process(&spec::process(&o.process), &ProcessExtras::new(&o.process))?;
    let mut cargo = Cargo::default();
    cargo.add(FdRole::Plan, seal(&key, &plan)?);
    cargo
        .add_stdio(&o.process, o.stdin)
        .map_err(pipes_of(&key))?;
    if let Some(cgroups) = cgroups {
        cargo.add(FdRole::Cgroup, cgroups.open(&o.container)?);
    }
    // An exec ends with its container's init; a stopping holder signals only that.
    let spawn = Spawn {
        seq: 0,
        key,
        namespaces: 0,
        stop_signal: Signal::SIGTERM as i32,
        stop_timeout_ms: 0,
        fds: cargo.roles,
    };
    Ok(Start {
        spawn,
        fds: cargo.fds,
        stdio: cargo.stdio,
        cgroup_is_new: false,
    })
}

impl Cargo {
    fn add(&mut self, role: FdRole, fd: OwnedFd) {
        self.roles.push(role);
        self.fds.push(fd);
    }

    /// A terminal is made by the child and needs only the relay; otherwise pipes for what is open.
    fn add_stdio(&mut self, process: &ProcessOptions, stdin: bool) -> io::Result<()> {
        if process.terminal.is_some() {
            let (read, write) = pipe()?;
            set_nonblocking(&read)?;
            set_nonblocking(&write)?;
            self.keep(Slot::RelayRead, &read)?;
            self.keep(Slot::RelayWrite, &write)?;
            self.stdio.relay = Some((read, write));
            return Ok(());
        }
        if stdin {
            let (theirs, ours) = pipe()?;
            self.stdio.stdin = Some(self.end(FdRole::Stdin, theirs, Slot::Stdin, ours)?);
        }
        let (ours, theirs) = pipe()?;
        self.stdio.stdout = Some(self.end(FdRole::Stdout, theirs, Slot::Stdout, ours)?);
        let (ours, theirs) = pipe()?;
        self.stdio.stderr = Some(self.end(FdRole::Stderr, theirs, Slot::Stderr, ours)?);
        Ok(())
    }

    /// Sends `theirs`, keeps `ours` here and in the holder. O_NONBLOCK belongs to an open file
    /// description, and the two ends of a pipe have one each: the child's stays blocking.
    fn end(
        &mut self,
        role: FdRole,
        theirs: OwnedFd,
        slot: Slot,
        ours: OwnedFd,
    ) -> io::Result<OwnedFd> {
        set_nonblocking(&ours)?;
        self.add(role, theirs);
        self.keep(slot, &ours)?;
        Ok(ours)
    }

    fn keep(&mut self, slot: Slot, fd: &OwnedFd) -> io::Result<()> {
        self.add(FdRole::Keep(slot), fd.try_clone()?);
        Ok(())
    }
}

/// A pipe (read, write), close-on-exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

/// The plan in a memfd that nobody can change, to be read from its start.
fn seal(key: &ProcessKey, plan: &Plan) -> Result<OwnedFd, Error> {
    let refused = |reason: String| Error::Plan {
        key: key.clone(),
        reason,
    };
    let bytes = postcard::to_stdvec(plan).map_err(|e| refused(e.to_string()))?;
    if bytes.len() > PLAN_BYTES_MAX {
        return Err(refused(format!(
            "{} bytes are more than {PLAN_BYTES_MAX}",
            bytes.len()
        )));
    }
    sealed(&bytes).map_err(|source| Error::Prepare {
        what: "a memfd",
        key: key.clone(),
        source,
    })
}

fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rcd_sys::memfd::sealed(c"rcd-plan", bytes)?);
    file.rewind()?;
    Ok(file.into())
}

fn pipes_of(key: &ProcessKey) -> impl FnOnce(io::Error) -> Error {
    let key = key.clone();
    move |source| Error::Prepare {
        what: "pipes",
        key,
        source,
    }
}

/// Checks an id before it becomes a path.
pub(crate) fn id(text: &str) -> Result<String, Error> {
    let key = ProcessKey {
        container: text.to_owned(),
        exec: None,
    };
    if !key.is_valid() {
        return Err(Error::Id {
            id: text.chars().take(2 * ID_BYTES_MAX).collect(),
        });
    }
    Ok(key.container)
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use crate::testing;

    fn is_nonblocking(fd: &OwnedFd) -> bool {
        OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
    }

    fn fd_of(start: &Start, role: FdRole) -> Option<&OwnedFd> {
        let at = start.spawn.fds.iter().position(|r| *r == role)?;
        start.fds.get(at)
    }

    #[test]
    fn the_daemons_ends_are_nonblocking_and_the_childs_are_not() {
        let mut o = testing::container();
        o.open_stdin = true;
        let start = container(&o, None, None, 0).unwrap();
        for role in [FdRole::Stdin, FdRole::Stdout, FdRole::Stderr] {
            assert!(!is_nonblocking(fd_of(&start, role).unwrap()), "{role:?}");
        }
        for slot in [Slot::Stdin, Slot::Stdout, Slot::Stderr] {
            assert!(
                is_nonblocking(fd_of(&start, FdRole::Keep(slot)).unwrap()),
                "{slot:?}"
            );
        }
        for fd in [&start.stdio.stdin, &start.stdio.stdout, &start.stdio.stderr] {
            assert!(is_nonblocking(fd.as_ref().unwrap()));
        }
    }

    #[test]
    fn without_stdin_there_is_no_pipe_for_it() {
        let start = container(&testing::container(), None, None, 0).unwrap();
        assert!(fd_of(&start, FdRole::Stdin).is_none());
        assert!(start.stdio.stdin.is_none());
    }

    #[test]
    fn a_terminal_needs_only_the_relay() {
        let mut o = testing::container();
        o.open_stdin = true;
        o.process.terminal = Some((24, 80));
        let start = container(&o, None, None, 0).unwrap();
        let relay = [
            FdRole::Plan,
            FdRole::Keep(Slot::RelayRead),
            FdRole::Keep(Slot::RelayWrite),
        ];
        assert_eq!(start.spawn.fds, relay);
        assert!(start.stdio.relay.is_some());
    }

    #[test]
    fn a_given_network_namespace_is_not_made_again() {
        let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
        let o = testing::container();
        let joined = container(&o, None, Some(netns.into()), 0).unwrap();
        assert_eq!(joined.spawn.namespaces & 0x4000_0000, 0);
        assert!(fd_of(&joined, FdRole::NetNs).is_some());
    }

    #[test]
    fn the_plan_is_sealed_and_starts_at_its_start() {
        let start = container(&testing::container(), None, None, 0).unwrap();
        let memfd = fd_of(&start, FdRole::Plan).unwrap().try_clone().unwrap();
        let mut file = std::fs::File::from(memfd);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        assert!(matches!(
            postcard::from_bytes(&bytes).unwrap(),
            Plan::Init(_)
        ));
        assert!(io::Write::write_all(&mut file, b"x").is_err());
    }

    #[test]
    fn ids_are_checked_before_they_become_paths() {
        let long = "a".repeat(65);
        for bad in ["", "..", "a/b", "A", "a-b", long.as_str()] {
            let mut o = testing::container();
            o.id = bad.into();
            assert!(
                matches!(container(&o, None, None, 0), Err(Error::Id { .. })),
                "{bad}"
            );
        }
        assert!(id(&"a".repeat(64)).is_ok());
    }

    #[test]
    fn a_refused_plan_leaves_no_cgroup() {
        let base = std::env::temp_dir().join(format!("rcd-prepare-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        let mut o = testing::container();
        o.process.argv.clear();
        assert!(container(&o, Some(&Cgroups::new(base.clone())), None, 0).is_err());
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0);
        std::fs::remove_dir(base).unwrap();
    }
}
