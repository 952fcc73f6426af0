//! A holder of the test's own, and a blocking client that plays the daemon.

use std::fs::Permissions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::Pid;
use rcd_init::plan::{
    Capabilities, InitPlan, Mount, MountFlags, MountKind, Plan, ProcessPlan, Rootfs,
};
use rcd_init::protocol::{
    FdRole, PACKET_BYTES_MAX, ProcessKey, Reply, Request, Spawn, assign, decode, encode,
};
use rcd_sys::{memfd, scm};

/// How long anything here may take before the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Namespaces of a container.
pub(crate) const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET) as u64;

/// A running holder; killed at the end.
pub(crate) struct Holder {
    pub(crate) child: Child,
    directory: tempfile::TempDir,
}

impl Holder {
    /// Starts one. None, with the reason printed, where that is impossible by design.
    pub(crate) fn start() -> Option<Self> {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_rcd-init")))
    }

    /// The same, with at most so many descriptors.
    pub(crate) fn start_with(descriptors_max: u32) -> Option<Self> {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors_max}:{descriptors_max}"))
            .arg(env!("CARGO_BIN_EXE_rcd-init"));
        Self::start_by(command)
    }

    fn start_by(mut command: Command) -> Option<Self> {
        if nix::unistd::Uid::effective().is_root() {
            println!("skipped: the holder refuses to run as root");
            return None;
        }
        if Command::new("newuidmap")
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            println!("skipped: newuidmap is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        let child = command
            .arg("hold")
            .arg("--socket")
            .arg(directory.path().join("holder.sock"))
            .arg("--log")
            .arg(directory.path().join("log"))
            .spawn()
            .unwrap();
        Some(Self { child, directory })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("holder.sock")
    }

    /// Connects, once the holder listens.
    pub(crate) fn connect(&self) -> Client {
        let end = Instant::now() + PATIENCE;
        loop {
            match scm::connect(&self.socket()) {
                Ok(socket) => {
                    let timeout = TimeVal::seconds(PATIENCE.as_secs() as i64);
                    setsockopt(&socket, ReceiveTimeout, &timeout).unwrap();
                    return Client { socket, seq: 0 };
                }
                Err(error) => assert!(Instant::now() < end, "the holder does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Connects as the daemon.
    pub(crate) fn daemon(&self) -> Client {
        let client = self.connect();
        client.send(&Request::Hello { version: 1 }, &[]);
        let (reply, _) = client.receive();
        assert!(
            matches!(reply, Reply::Welcome { version: 1, .. }),
            "{reply:?}"
        );
        client
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    pub(crate) seq: u64,
}

impl Client {
    pub(crate) fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) {
        scm::send(self.socket.as_fd(), &encode(request).unwrap(), fds).unwrap();
    }

    pub(crate) fn receive(&self) -> (Reply, Vec<(FdRole, OwnedFd)>) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let packet = scm::receive(self.socket.as_fd(), &mut buffer, true).unwrap();
        assert!(
            packet.len > 0 && !packet.truncated,
            "the holder has closed the connection"
        );
        let reply: Reply = decode(&buffer[..packet.len]).unwrap();
        let fds = assign(reply.roles(), packet.fds).unwrap();
        (reply, fds)
    }

    /// Asks for a process with this plan and further descriptors.
    pub(crate) fn spawn(
        &mut self,
        key: &ProcessKey,
        plan: &[u8],
        more: &[(FdRole, BorrowedFd<'_>)],
    ) {
        self.seq += 1;
        let plan = memfd::sealed(c"plan", plan).unwrap();
        let mut roles = vec![FdRole::Plan];
        let mut fds = vec![plan.as_fd()];
        roles.extend(more.iter().map(|(role, _)| *role));
        fds.extend(more.iter().map(|(_, fd)| *fd));
        let spawn = Spawn {
            seq: self.seq,
            key: key.clone(),
            namespaces: NAMESPACES,
            stop_signal: libc::SIGTERM,
            stop_timeout_ms: 10_000,
            fds: roles,
        };
        self.send(&Request::Spawn(spawn), &fds);
    }

    /// The same, and waits until it runs.
    pub(crate) fn run(
        &mut self,
        key: &ProcessKey,
        plan: &[u8],
        more: &[(FdRole, BorrowedFd<'_>)],
    ) -> Vec<(FdRole, OwnedFd)> {
        self.spawn(key, plan, more);
        match self.receive() {
            (Reply::Spawned { .. }, fds) => fds,
            (reply, _) => panic!("{reply:?}"),
        }
    }

    /// The exit code that comes next.
    pub(crate) fn exited(&self, key: &ProcessKey) -> i32 {
        match self.receive().0 {
            Reply::Exited { key: ended, exit } if ended == *key => exit.code,
            reply => panic!("{reply:?}"),
        }
    }

    pub(crate) fn acknowledge(&self, key: &ProcessKey) {
        self.send(&Request::Acknowledge { key: key.clone() }, &[]);
    }

    /// Keys and exit codes of all processes, with the roles of their descriptors.
    pub(crate) fn list(&mut self) -> Vec<(ProcessKey, Option<i32>, Vec<FdRole>)> {
        self.seq += 1;
        self.send(&Request::List { seq: self.seq }, &[]);
        let mut found = Vec::new();
        loop {
            match self.receive().0 {
                Reply::Process { key, exit, fds, .. } => {
                    found.push((key, exit.map(|exit| exit.code), fds));
                }
                Reply::ListEnd { seq } if seq == self.seq => return found,
                Reply::Exited { .. } => {}
                reply => panic!("{reply:?}"),
            }
        }
    }
}

pub(crate) fn init(container: &str) -> ProcessKey {
    ProcessKey {
        container: container.into(),
        exec: None,
    }
}

pub(crate) fn exec(container: &str, exec: &str) -> ProcessKey {
    ProcessKey {
        container: container.into(),
        exec: Some(exec.into()),
    }
}

/// A process that runs a shell command without any rights.
pub(crate) fn process(command: &str) -> ProcessPlan {
    ProcessPlan {
        argv: ["/bin/sh", "-c", command].map(Into::into).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        create_cwd: false,
        user: String::new(),
        groups: Vec::new(),
        terminal: None,
        capabilities: Capabilities::default(),
        rlimits: Vec::new(),
        no_new_privs: true,
        seccomp: Vec::new(),
        oom_score_adj: None,
    }
}

/// A container whose root is the host's, as far as it can see it.
pub(crate) fn container(process: ProcessPlan) -> Vec<u8> {
    init_plan(process, Vec::new())
}

/// The same with a devpts of its own, for a terminal.
pub(crate) fn with_devpts(process: ProcessPlan) -> Vec<u8> {
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")]
        .map(|(key, value)| (key.into(), value.into()));
    let kind = MountKind::Filesystem {
        fstype: "devpts".into(),
        options: options.to_vec(),
    };
    let flags = MountFlags::default();
    init_plan(
        process,
        vec![Mount {
            target: "/dev/pts".into(),
            kind,
            flags,
        }],
    )
}

fn init_plan(process: ProcessPlan, mounts: Vec<Mount>) -> Vec<u8> {
    let plan = Plan::Init(Box::new(InitPlan {
        hostname: None,
        rootfs: Rootfs::Directory { source: "/".into() },
        readonly_root: false,
        mounts,
        devices: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctls: Vec::new(),
        process,
    }));
    postcard::to_stdvec(&plan).unwrap()
}

pub(crate) fn exec_plan(process: ProcessPlan) -> Vec<u8> {
    postcard::to_stdvec(&Plan::Exec(Box::new(process))).unwrap()
}
