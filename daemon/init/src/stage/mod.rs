//! The child stage: everything between `clone3` and `execve`.
//!
//! The holder clones a child, and the child calls [`enter`], which never returns: it becomes the
//! container's program or it ends. It runs as uid 0 with all capabilities *of the holder's user
//! namespace*, and for a container's first process in new namespaces. What it is to do comes as a
//! [`Plan`] in a sealed memfd. It may allocate: the holder that it is a copy of has one thread.
//!
//! ```text
//!  holder            child
//!  clone3 ─────────► decode plan, default signals, setsid
//!                    init: netns ► root ► mounts ► /dev ► terminal ► sysctls ► masks
//!                          ► read-only ► pivot_root ► host name
//!                    exec: setns into the container ► terminal
//!  master ◄── "T" ──
//!                    both: user ► limits ► streams ► working directory ► ids ► seccomp
//!                          ► capabilities ► execve
//!  failure ◄─ "F" ── on any error, then _exit(1)
//!  success ◄─ EOF ── the status socket closes on exec
//! ```
//!
//! **What it defends against.** The image is hostile, and so is a running container that is
//! joined. Three rules follow from that.
//! - *Paths are descriptors.* Every path in a container is resolved once, beneath its root
//!   (`beneath`), to a descriptor; that is checked, and then mounted on, opened or entered. A link in
//!   the image can move a target about within the container, never out of it. The host's files
//!   that come in (devices, `/dev/null` for masks) are checked on the descriptor that is attached.
//! - *Nothing is left.* Every descriptor is close-on-exec from its birth, and all above 2 are
//!   marked once more before execve. The host's root is detached. The working directory is entered
//!   by descriptor and read back from the kernel.
//! - *Fewer rights at each step.* See `process`. A child that joins a container hides itself from
//!   ptrace first (CVE-2016-9962).
//!
//! **What it does not do.** No policy: which mounts, masks and capabilities a container gets is in
//! the plan. No cgroup limits, no id maps, no network set-up. No clean-up: all that it made is in
//! its own mount namespace and dies with it.
//!
//! Reading order: this file, `init` or `join`, `rootfs`, `mounts`, `devices`, `masks`, `terminal`,
//! then `process` with `user` and `program`. `beneath` and `failure` serve all.

mod beneath;
mod devices;
mod failure;
mod init;
mod join;
mod masks;
mod mounts;
mod process;
mod program;
mod rootfs;
mod terminal;
mod user;

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;
use rcd_sys::creds;

use self::beneath::Root;
use self::failure::{At, Result, refuse};
use self::process::Streams;
use crate::plan::{PLAN_BYTES_MAX, Plan, ProcessPlan};
use crate::protocol::Step;

/// First byte of the packet that carries the terminal's master, which is all of it.
pub const TERMINAL_PACKET: &[u8] = b"T";

/// First byte of the packet whose rest is an encoded [`crate::protocol::Failure`].
pub const FAILURE_PACKET: &[u8] = b"F";

/// The file mode mask of a new process, as Docker's.
const UMASK: u32 = 0o022;

/// What the holder gives a child.
#[derive(Debug)]
pub struct Child {
    /// The encoded plan, see [`crate::plan`].
    pub plan: OwnedFd,
    /// SOCK_SEQPACKET to the holder, close-on-exec.
    pub status: OwnedFd,
    /// A network namespace to join. None: the one that the child is in. Unused for an exec.
    pub netns: Option<OwnedFd>,
    /// For an exec: pidfd of the container's first process.
    pub join: Option<OwnedFd>,
    /// Descriptor 0. Absent: the terminal if there is one, else `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
    /// An empty directory; every container mounts its root there, in its own mount namespace.
    pub mount_point: PathBuf,
}

/// Carries the plan out. On failure sends [`FAILURE_PACKET`] and ends the process with code 1.
pub fn enter(mut child: Child) -> ! {
    let result = catch_unwind(AssertUnwindSafe(|| run(&mut child)));
    let failure = match result {
        Ok(Err(failure)) => failure,
        Err(_) => refuse(
            Step::Plan,
            "",
            "internal error in the child, see the holder's log",
        ),
    };
    let mut packet = FAILURE_PACKET.to_vec();
    packet.extend(postcard::to_stdvec(&failure).unwrap_or_default());
    // If the holder is gone there is nobody to tell.
    let _ = send(child.status.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
    rcd_sys::process::exit_now(1)
}

fn run(child: &mut Child) -> Result<Infallible> {
    let plan = read_plan(&child.plan)?;
    creds::reset_signal_actions();
    SigSet::empty()
        .thread_set_mask()
        .at(Step::Exec, "the signal mask")?;
    umask(Mode::from_bits_truncate(UMASK));
    setsid().at(Step::Terminal, "a session")?;
    match plan {
        Plan::Init(plan) => init::run(child, &plan),
        Plan::Exec(plan) => run_exec(child, &plan),
    }
}

fn read_plan(memfd: &OwnedFd) -> Result<Plan> {
    let why = "the plan";
    let file = File::from(memfd.try_clone().at(Step::Plan, why)?);
    let length = file.metadata().at(Step::Plan, why)?.len();
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= PLAN_BYTES_MAX);
    let Some(length) = length else {
        return Err(refuse(
            Step::Plan,
            "",
            format!("it is larger than {PLAN_BYTES_MAX} bytes"),
        ));
    };
    let mut bytes = vec![0; length];
    // The offset is shared with the holder and left alone.
    file.read_exact_at(&mut bytes, 0).at(Step::Plan, why)?;
    postcard::from_bytes(&bytes)
        .map_err(|error| refuse(Step::Plan, "", format!("it does not decode: {error}")))
}

fn run_exec(child: &mut Child, plan: &ProcessPlan) -> Result<Infallible> {
    let Some(init) = child.join.take() else {
        return Err(refuse(Step::Plan, "", "an exec needs a container to join"));
    };
    set_oom_score(plan)?;
    // After the score: it takes away the files of /proc/self.
    creds::set_undumpable().at(Step::Join, "hiding from the container")?;
    join::join(&init)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = Root::new(open("/", flags, Mode::empty()).at(Step::Join, "/")?);
    let terminal = match plan.terminal {
        Some(size) => Some(terminal::open(&root, size, &child.status)?),
        None => None,
    };
    process::make_working_directory(&root, plan)?;
    let streams = child.streams(terminal);
    process::start(&root, plan, streams, &child.status)
}

/// Through the host's procfs, which can be trusted.
fn set_oom_score(plan: &ProcessPlan) -> Result<()> {
    let Some(score) = plan.oom_score_adj else {
        return Ok(());
    };
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).at_because(
        Step::Rlimit,
        format_args!("oom_score_adj {score}"),
        |errno| match errno {
            Errno::EACCES => "only an administrator may lower it".into(),
            _ => String::new(),
        },
    )
}

impl Child {
    fn streams(&mut self, terminal: Option<OwnedFd>) -> Streams {
        let stdio = [self.stdin.take(), self.stdout.take(), self.stderr.take()];
        Streams { terminal, stdio }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Capabilities, InitPlan, Rootfs};

    fn plan() -> Plan {
        let process = ProcessPlan {
            argv: vec!["sh".into(), "-c".into()],
            env: vec!["A=1".into()],
            cwd: "/".into(),
            create_cwd: true,
            user: "app".into(),
            groups: vec!["1".into()],
            terminal: None,
            capabilities: Capabilities::default(),
            rlimits: Vec::new(),
            no_new_privs: true,
            seccomp: vec![6; 16],
            oom_score_adj: None,
        };
        Plan::Init(Box::new(InitPlan {
            hostname: None,
            rootfs: Rootfs::Directory { source: "/".into() },
            readonly_root: true,
            mounts: Vec::new(),
            devices: vec!["/dev/null".into()],
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            sysctls: vec![("a".into(), "b".into())],
            process,
        }))
    }

    fn decode(bytes: &[u8]) -> Result<Plan> {
        let memfd = nix::sys::memfd::memfd_create(c"plan", nix::sys::memfd::MFdFlags::empty());
        let memfd = memfd.unwrap();
        File::from(memfd.try_clone().unwrap())
            .write_all_at(bytes, 0)
            .unwrap();
        read_plan(&memfd)
    }

    #[test]
    fn a_plan_survives_its_encoding() {
        assert_eq!(
            decode(&postcard::to_stdvec(&plan()).unwrap()).unwrap(),
            plan()
        );
    }

    #[test]
    fn damaged_plans_are_errors_or_other_plans_and_never_a_panic() {
        let whole = postcard::to_stdvec(&plan()).unwrap();
        for length in 0..whole.len() {
            assert_eq!(
                decode(&whole[..length]).unwrap_err().step,
                Step::Plan,
                "{length} bytes"
            );
        }
        for position in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[position] ^= flip;
                let _ = decode(&damaged);
            }
        }
    }

    #[test]
    fn a_huge_plan_is_refused_unread() {
        let memfd = nix::sys::memfd::memfd_create(c"plan", nix::sys::memfd::MFdFlags::empty());
        let memfd = memfd.unwrap();
        let length = i64::try_from(PLAN_BYTES_MAX).unwrap() + 1;
        nix::unistd::ftruncate(&memfd, length).unwrap();
        assert!(read_plan(&memfd).unwrap_err().detail.contains("larger"));
    }
}
