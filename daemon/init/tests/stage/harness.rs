//! The parts, an image of busybox, and the plan of an ordinary Docker container.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rcd_init::plan::{
    Capabilities, InitPlan, Mount, MountFlags, MountKind, Plan, ProcessPlan, Rootfs,
};
use rcd_init::protocol::{Failure, Step};
use rcd_init::stage::{Child, FAILURE_PACKET, TERMINAL_PACKET, enter};

/// Names the part that a process plays.
pub(crate) const PART: &str = "RCD_STAGE_PART";
/// The directory where the parts meet.
pub(crate) const DIR: &str = "RCD_STAGE_DIR";
/// A statically linked busybox, to be the whole image.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// Docker's default capabilities.
pub(crate) const DOCKER_CAPS: u64 = 0xa804_25fb;
/// The largest status packet.
pub(crate) const PACKET_BYTES_MAX: usize = 16 << 10;

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) code: i32,
    pub(crate) failure: Option<Failure>,
}

/// A busybox image and the plan for it.
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    pub(crate) init: InitPlan,
    pub(crate) exec: Option<ProcessPlan>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Overlayfs leaves directories of mode 0 in its work directory.
        for part in [
            "work/work",
            "work/work/incompat",
            "work/work/incompat/volatile",
        ] {
            let open = fs::Permissions::from_mode(0o700);
            let _ = fs::set_permissions(self.dir.join(part), open);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Stage {
    /// None, and the reason printed, if this machine cannot run the test.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let mapped = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "--mount", "true"])
            .output();
        if !mapped.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: this user has no range of subordinate ids, or no unshare(1)");
            return None;
        }
        if !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: there is no {BUSYBOX}");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("rcd-stage-{}-{name}", std::process::id()));
        for part in [
            "lower/bin",
            "lower/etc",
            "lower/tmp",
            "upper",
            "work",
            "rootfs",
        ] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        fs::copy(BUSYBOX, dir.join("lower/bin/busybox")).unwrap();
        for applet in [
            "sh", "ls", "cat", "id", "grep", "tty", "pwd", "env", "touch", "stat", "readlink",
            "sleep", "true", "mount", "stty", "hostname", "wc", "kill", "awk",
        ] {
            symlink("busybox", dir.join("lower/bin").join(applet)).unwrap();
        }
        fs::write(
            dir.join("lower/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            dir.join("lower/etc/group"),
            "root:x:0:\napp:x:1001:\naudio:x:63:app\n",
        )
        .unwrap();
        let init = plan(&dir);
        Some(Self {
            dir,
            init,
            exec: None,
        })
    }

    pub(crate) fn lower(&self, path: &str) -> PathBuf {
        self.dir.join("lower").join(path)
    }

    /// Runs a shell script as the container's first process.
    pub(crate) fn script(&mut self, script: &str) -> Outcome {
        self.init.process.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.run()
    }

    pub(crate) fn run(&mut self) -> Outcome {
        let write = |name: &str, plan: &Plan| {
            fs::write(self.dir.join(name), postcard::to_stdvec(plan).unwrap()).unwrap();
            let process = match plan {
                Plan::Init(init) => &init.process,
                Plan::Exec(exec) => exec,
            };
            if process.terminal.is_some() {
                fs::write(self.dir.join(format!("{name}-tty")), "").unwrap();
            }
        };
        for name in ["out", "failure", "code"] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        write("plan", &Plan::Init(Box::new(self.init.clone())));
        if let Some(exec) = &self.exec {
            write("exec", &Plan::Exec(Box::new(exec.clone())));
        }
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "part", "--nocapture"])
            .env(PART, "keeper")
            .env(DIR, &self.dir)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the keeper failed");
        let failure = fs::read(self.dir.join("failure")).ok();
        Outcome {
            out: fs::read_to_string(self.dir.join("out")).unwrap_or_default(),
            code: fs::read_to_string(self.dir.join("code"))
                .unwrap()
                .parse()
                .unwrap(),
            failure: failure.map(|bytes| postcard::from_bytes(&bytes).unwrap()),
        }
    }

    /// Runs and expects a failure at `step`.
    pub(crate) fn fails(&mut self, step: Step) -> Failure {
        let outcome = self.run();
        let failure = outcome
            .failure
            .unwrap_or_else(|| panic!("it ran: {}", outcome.out));
        assert_eq!(failure.step, step, "{failure:?}");
        assert_ne!(outcome.code, 0);
        failure
    }
}

/// The plan of an ordinary Docker container.
fn plan(dir: &Path) -> InitPlan {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let paths = |list: &str| list.split(' ').map(str::to_owned).collect();
    InitPlan {
        hostname: Some("staged".into()),
        rootfs: Rootfs::Overlay {
            lowers: vec![path("lower")],
            upper: path("upper"),
            work: path("work"),
            volatile: false,
        },
        readonly_root: false,
        mounts: mounts(),
        devices: paths("/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"),
        masked_paths: paths(
            "/proc/kcore /proc/keys /proc/timer_list /proc/scsi /proc/acpi /sys/firmware /proc/no",
        ),
        readonly_paths: paths("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
        sysctls: vec![("net.ipv4.ip_unprivileged_port_start".into(), "0".into())],
        process: process(),
    }
}

fn process() -> ProcessPlan {
    ProcessPlan {
        argv: vec!["true".into()],
        env: vec!["PATH=/usr/bin:/bin".into(), "A=1".into()],
        cwd: "/".into(),
        create_cwd: false,
        user: String::new(),
        groups: Vec::new(),
        terminal: None,
        capabilities: Capabilities {
            bounding: DOCKER_CAPS,
            effective: DOCKER_CAPS,
            permitted: DOCKER_CAPS,
            ..Capabilities::default()
        },
        rlimits: Vec::new(),
        no_new_privs: false,
        seccomp: allow_all(),
        oom_score_adj: Some(500),
    }
}

fn mounts() -> Vec<Mount> {
    let flags = |readonly, nodev, noexec| MountFlags {
        readonly,
        nosuid: true,
        nodev,
        noexec,
    };
    let (shared, readonly) = (flags(false, true, true), flags(true, true, true));
    let dev = [("mode", "755"), ("size", "65536k")];
    let shm = [("mode", "1777"), ("size", "65536k")];
    let pts = [
        ("newinstance", ""),
        ("ptmxmode", "0666"),
        ("mode", "0620"),
        ("gid", "5"),
    ];
    vec![
        filesystem("/proc", "proc", &[], shared),
        filesystem("/dev", "tmpfs", &dev, flags(false, false, false)),
        filesystem("/dev/pts", "devpts", &pts, flags(false, false, true)),
        filesystem("/sys", "sysfs", &[], readonly),
        filesystem("/sys/fs/cgroup", "cgroup2", &[], readonly),
        filesystem("/dev/mqueue", "mqueue", &[], shared),
        filesystem("/dev/shm", "tmpfs", &shm, shared),
    ]
}

pub(crate) fn filesystem(
    target: &str,
    fstype: &str,
    options: &[(&str, &str)],
    flags: MountFlags,
) -> Mount {
    let options = options
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Mount {
        target: target.into(),
        kind: MountKind::Filesystem {
            fstype: fstype.into(),
            options,
        },
        flags,
    }
}

pub(crate) fn bind(source: &Path, target: &str, flags: MountFlags) -> Mount {
    let source = source.to_str().unwrap().to_owned();
    Mount {
        target: target.into(),
        kind: MountKind::Bind {
            source,
            recursive: true,
        },
        flags,
    }
}

/// `BPF_RET | BPF_K` with SECCOMP_RET_ALLOW.
fn allow_all() -> Vec<u8> {
    let mut filter = 0x06_u16.to_ne_bytes().to_vec();
    filter.extend([0, 0]);
    filter.extend(0x7fff_0000_u32.to_ne_bytes());
    filter
}

pub(crate) fn keep(dir: &Path) {
    let mut own = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    own.set(CloneFlags::CLONE_NEWNET, !dir.join("host-network").exists());
    unshare(own).unwrap();
    let (status, mut init) = spawn(dir, "plan");
    let started = follow(dir, &status, !dir.join("exec").exists());
    if started && dir.join("exec").exists() {
        let (status, mut exec) = spawn(dir, "exec");
        follow(dir, &status, true);
        let status = exec.wait().unwrap();
        fs::write(dir.join("code"), code_of(status).to_string()).unwrap();
        init.kill().unwrap();
    }
    let status = init.wait().unwrap();
    if !dir.join("exec").exists() {
        fs::write(dir.join("code"), code_of(status).to_string()).unwrap();
    }
}

fn code_of(status: std::process::ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

fn spawn(dir: &Path, plan: &str) -> (OwnedFd, std::process::Child) {
    let (ours, theirs) = rcd_sys::scm::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "part", "--nocapture"])
        .env(PART, plan)
        .env(DIR, dir)
        .stdin(theirs)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (ours, child)
}

/// Reads the status socket to its end; true if the program runs. Copies the terminal if wanted.
fn follow(dir: &Path, status: &OwnedFd, copy: bool) -> bool {
    let mut master = None;
    loop {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let received = rcd_sys::scm::receive(status.as_fd(), &mut buffer, true).unwrap();
        let bytes = &buffer[..received.len];
        if bytes.is_empty() {
            break;
        } else if bytes == TERMINAL_PACKET {
            master = received.fds.into_iter().next();
        } else if let Some(failure) = bytes.strip_prefix(FAILURE_PACKET) {
            fs::write(dir.join("failure"), failure).unwrap();
            return false;
        }
    }
    if let (Some(master), true) = (master, copy) {
        nix::fcntl::fcntl(
            &master,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_RDWR),
        )
        .unwrap();
        let mut out = Vec::new();
        // EIO is a terminal's end of file.
        let _ = File::from(master).read_to_end(&mut out);
        fs::write(dir.join("out"), out).unwrap();
    }
    true
}

pub(crate) fn child(dir: &Path, plan: &str) {
    let status = io::stdin().as_fd().try_clone_to_owned().unwrap();
    // A joined mount namespace needs a working directory that no other thread shares; a new one
    // brings that along.
    let exec = plan == "exec";
    unshare(if exec {
        CloneFlags::CLONE_FS
    } else {
        CloneFlags::CLONE_NEWNS
    })
    .unwrap();
    let join = exec.then(|| rcd_sys::pidfd::open(1).unwrap());
    let terminal = dir.join(format!("{plan}-tty")).exists();
    let plan = File::open(dir.join(plan)).unwrap();
    let out = || {
        Some(
            File::options()
                .create(true)
                .append(true)
                .open(dir.join("out"))
                .unwrap()
                .into(),
        )
    };
    enter(Child {
        plan: plan.into(),
        status,
        netns: None,
        join,
        stdin: None,
        stdout: if terminal { None } else { out() },
        stderr: if terminal { None } else { out() },
        mount_point: dir.join("rootfs"),
    })
}
