//! From a finished container to the program in it: streams, user, limits, working directory,
//! privileges, execve. Runs alike for a container's first process and for an exec.
//!
//! The order is the order of rights. The working directory and what needs root come first; then
//! the user; the seccomp filter last but for capabilities, because without `no_new_privs` only
//! CAP_SYS_ADMIN may install it, and the fewer calls follow it the fewer it must allow: capset,
//! prctl, execve and, for a failure, what reports it.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, fchown};
use rcd_sys::openat2::working_directory;
use rcd_sys::{creds, pty, scm, seccomp};

use super::beneath::{Missing, Root};
use super::devices::is_device;
use super::failure::{At, Result, refuse};
use super::program::Program;
use super::user::{self, Identity};
use crate::plan::{Capabilities, ProcessPlan, Rlimit};
use crate::protocol::Step;

/// The descriptors that the process gets. An absent one is `/dev/null`.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Slave of the container's terminal: takes the place of every absent stream and becomes the
    /// controlling terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// Descriptors 0, 1, 2.
    pub(super) stdio: [Option<OwnedFd>; 3],
}

/// CAP_SYS_ADMIN (`linux/capability.h`).
const SYS_ADMIN: u64 = 1 << 21;

/// The last descriptor that the program inherits.
const STDERR: i32 = 2;

/// How much of an id map is read: the kernel takes at most a page of text.
const MAP_BYTES_MAX: u64 = 4096;

/// How many descriptors the program inherits: 0, 1, 2.
const INHERITED: u32 = 3;

/// Makes a missing working directory, where the plan wants that, before the root may become
/// read-only.
pub(super) fn make_working_directory(root: &Root, plan: &ProcessPlan) -> Result<()> {
    if !plan.create_cwd {
        return Ok(());
    }
    root.ensure(&plan.cwd, Missing::Directory)
        .at(Step::WorkingDirectory, &plan.cwd)
        .map(drop)
}

/// Becomes the program. `root` is the process's `/`, `status` its socket to the holder.
pub(super) fn start(
    root: &Root,
    plan: &ProcessPlan,
    streams: Streams,
    status: &OwnedFd,
) -> Result<Infallible> {
    let identity = user::look_up(root, &plan.user, &plan.groups)?;
    let program = Program::new(&plan.argv, &plan.env, &identity.home)?;
    plan.rlimits.iter().try_for_each(set_limit)?;
    connect(root, streams, &identity)?;
    let early = enter_working_directory(root, &plan.cwd);
    creds::limit_bounding_set(plan.capabilities.bounding)
        .at(Step::Capabilities, "the bounding set")?;
    if plan.no_new_privs {
        creds::set_no_new_privs().at(Step::Capabilities, "no_new_privs")?;
    }
    become_user(root, &identity)?;
    // The kernel forgets it where ids change (commit_creds). Without it nothing is lost but that
    // the container would outlive a holder that is killed, so its failure stops nothing.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    require_holder(status)?;
    match early {
        // As runc: a directory that root may not enter (NFS) may be open to the user.
        Err(failure) if failure.errno == Errno::EACCES as i32 => {
            enter_working_directory(root, &plan.cwd)?;
        }
        result => result?,
    }
    rcd_sys::process::close_on_exec_from(INHERITED).at(Step::Exec, "open descriptors")?;
    restrict(plan, &identity)?;
    program.execute()
}

/// A holder that has ended before the signal was asked for sends none (prctl(2), `PR_SET_PDEATHSIG`).
fn require_holder(status: &OwnedFd) -> Result<()> {
    match scm::receive(status.as_fd(), &mut [0; 1], false) {
        Err(Errno::EAGAIN) => Ok(()),
        _ => Err(refuse(Step::Exec, "", "the holder has ended")),
    }
}

fn set_limit(limit: &Rlimit) -> Result<()> {
    let Rlimit {
        resource,
        soft,
        hard,
    } = *limit;
    creds::set_resource_limit(resource, soft, hard).at_because(
        Step::Rlimit,
        format_args!("{} (soft {soft}, hard {hard})", limit_name(resource)),
        |errno| match (errno, creds::resource_limit(resource)) {
            (Errno::EPERM, Ok((_, hard))) => format!(
                "the user's own hard limit is {hard}, and only an administrator may raise it"
            ),
            _ => String::new(),
        },
    )
}

/// As `ulimit` options of Docker name it; the order is `asm-generic/resource.h`.
fn limit_name(resource: u32) -> String {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    let name = usize::try_from(resource)
        .ok()
        .and_then(|index| NAMES.get(index));
    name.map_or_else(
        || format!("limit number {resource}"),
        |name| format!("limit {name}"),
    )
}

/// Puts the streams on 0, 1, 2 and gives them to the user, so that `/dev/stdout` can be opened.
fn connect(root: &Root, streams: Streams, identity: &Identity) -> Result<()> {
    let Streams { terminal, stdio } = streams;
    if let Some(terminal) = &terminal {
        pty::set_controlling(terminal.as_fd()).at(Step::Terminal, "the controlling terminal")?;
        give(terminal, identity.uid)?;
    }
    let mut null = None;
    // All are moved out of the way before the first is put in its place.
    let [stdin, stdout, stderr] = stdio.map(|stream| stream.map(above_stdio));
    for (number, stream) in [stdin, stdout, stderr].into_iter().enumerate() {
        let given = stream.transpose()?;
        if let Some(stream) = &given {
            give(stream, identity.uid)?;
        } else if terminal.is_none() && null.is_none() {
            null = Some(open_null(root)?);
        }
        let Some(stream) = given.as_ref().or(terminal.as_ref()).or(null.as_ref()) else {
            continue;
        };
        match number {
            0 => dup2_stdin(stream),
            1 => dup2_stdout(stream),
            _ => dup2_stderr(stream),
        }
        .at(Step::Exec, format_args!("descriptor {number}"))?;
    }
    Ok(())
}

/// A descriptor that is none of 0, 1, 2: std duplicates to 3 and above.
fn above_stdio(stream: OwnedFd) -> Result<OwnedFd> {
    if stream.as_raw_fd() > STDERR {
        return Ok(stream);
    }
    stream.try_clone().at(Step::Exec, "a stream")
}

/// The container's own `/dev/null`, so that no descriptor refers to the host's `/dev`.
fn open_null(root: &Root) -> Result<OwnedFd> {
    let path = "/dev/null";
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let null = root.open(path, flags).at(Step::Device, path)?;
    if !is_device(path, &fstat(&null).at(Step::Device, path)?) {
        return Err(refuse(
            Step::Device,
            path,
            "in the container this is not the null device",
        ));
    }
    // O_NONBLOCK was for what it might have been instead.
    fcntl(&null, FcntlArg::F_SETFL(OFlag::O_RDWR)).at(Step::Device, path)?;
    Ok(null)
}

fn give(stream: &OwnedFd, uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    match fchown(stream, Some(Uid::from_raw(uid)), None) {
        // Not of this user namespace, or on a read-only file system: it stays whose it is.
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).at(Step::User, "the owner of a stream"),
    }
}

/// Enters `cwd` by descriptor and checks that it lies inside the root (CVE-2024-21626). With
/// root's rights first, as runc: Docker lets a user start in a directory that it may not enter.
fn enter_working_directory(root: &Root, cwd: &str) -> Result<()> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(refuse(
            Step::WorkingDirectory,
            cwd,
            "it is not an absolute path",
        ));
    }
    let directory = root
        .open(cwd, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .at_because(Step::WorkingDirectory, cwd, |errno| match errno {
            Errno::ENOENT => "there is no such directory in the container".into(),
            Errno::ENOTDIR => "in the container this is not a directory".into(),
            Errno::ELOOP => "it leads through links of /proc or in a circle".into(),
            _ => String::new(),
        })?;
    fchdir(&directory).at(Step::WorkingDirectory, cwd)?;
    working_directory()
        .at_because(Step::WorkingDirectory, cwd, |_| {
            "it lies outside the container's root".into()
        })
        .map(drop)
}

fn become_user(root: &Root, identity: &Identity) -> Result<()> {
    let Identity {
        uid, gid, groups, ..
    } = identity;
    if *uid != 0 {
        creds::keep_capabilities().at(Step::Capabilities, "keeping them")?;
    }
    creds::become_user(*uid, *gid, groups).at_because(
        Step::User,
        format_args!("{uid}:{gid}"),
        |errno| match errno {
            Errno::EINVAL => format!(
                "an id of {uid}:{gid} or its groups {groups:?} is not mapped in the user namespace: \
                 users {}; groups {}",
                mapped(root, "/proc/self/uid_map"),
                mapped(root, "/proc/self/gid_map")
            ),
            Errno::EPERM => "this user namespace denies setgroups: it was made without \
                newgidmap and a range of subordinate ids"
                .into(),
            _ => String::new(),
        },
    )
}

/// The ranges of an id map in words; only for a message. The path is the container's, which may
/// have put a pipe without an end there: what is no procfs is not read.
fn mapped(root: &Root, path: &str) -> String {
    let mut text = String::new();
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if let Ok(map) = root.open(path, flags)
        && fstatfs(&map).is_ok_and(|place| place.filesystem_type() == PROC_SUPER_MAGIC)
    {
        // What was read before an error is good enough for a message.
        let _ = File::from(map)
            .take(MAP_BYTES_MAX)
            .read_to_string(&mut text);
    }
    ranges(&text)
}

/// Lines `inside outside count` of an id map (user_namespaces(7)) as ranges of the ids inside.
fn ranges(map: &str) -> String {
    let ranges = map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (first, count) = (fields.next()?.ok()?, fields.nth(1)?.ok()?);
        let last = first.checked_add(count.checked_sub(1)?)?;
        Some(format!("{first} to {last}"))
    });
    ranges.collect::<Vec<_>>().join(", ")
}

/// Seccomp filter, then capabilities.
fn restrict(plan: &ProcessPlan, identity: &Identity) -> Result<()> {
    let sets = effective_sets(&plan.capabilities, identity.uid);
    if !plan.seccomp.is_empty() {
        if identity.uid != 0 {
            // The change of user left the permitted set and cleared the effective one.
            creds::set_capabilities(SYS_ADMIN, sets.permitted | SYS_ADMIN, sets.inheritable)
                .at(Step::Capabilities, "before the filter")?;
        }
        seccomp::install(&plan.seccomp).at_because(
            Step::Seccomp,
            "the filter",
            |errno| match errno {
                Errno::EINVAL => "the kernel does not accept this filter".into(),
                _ => String::new(),
            },
        )?;
    }
    creds::set_capabilities(sets.effective, sets.permitted, sets.inheritable)
        .and_then(|()| creds::raise_ambient(sets.ambient))
        .at_because(
            Step::Capabilities,
            format_args!("{:#x}", sets.permitted),
            |_| "more is asked for than this user namespace has, or than is inheritable".into(),
        )
}

/// The sets that the process gets: a user other than root has what is ambient and no more, so that
/// the look-up of its program has no more rights than the program (moby does the same).
fn effective_sets(asked: &Capabilities, uid: u32) -> Capabilities {
    if uid == 0 {
        return *asked;
    }
    Capabilities {
        effective: asked.ambient,
        permitted: asked.ambient,
        ..*asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_map_is_put_into_words_and_nonsense_passed_over() {
        let map = "         0       1500          1\n         1     300000      65536\n";
        assert_eq!(ranges(map), "0 to 0, 1 to 65536");
        let nonsense = "18446744073709551615 0 2\n1 2\nx y z\n3 0 0\n5 0 2";
        assert_eq!(ranges(nonsense), "5 to 6");
    }

    #[test]
    fn an_ordinary_user_has_ambient_capabilities_only() {
        let asked = Capabilities {
            bounding: 7,
            effective: 7,
            permitted: 7,
            inheritable: 3,
            ambient: 1,
        };
        assert_eq!(effective_sets(&asked, 0), asked);
        let user = Capabilities {
            effective: 1,
            permitted: 1,
            ..asked
        };
        assert_eq!(effective_sets(&asked, 1000), user);
    }
}
