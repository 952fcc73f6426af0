//! The child stage on a busybox root, in a real user namespace with a range of ids.
//!
//! One test binary plays three parts, chosen by [`PART`]: the test itself; under unshare(1) the
//! *keeper*, which makes the remaining namespaces, spawns and reports like a small holder; and the
//! *child*, which calls `enter`. They meet in a directory of files. Descriptor 0 of the child is its
//! status socket, so that nothing needs unsafe code.
//!
//! The tests skip, with the reason, where there is no busybox or no range of subordinate ids.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rcd_init::plan::{
    Capabilities, InitPlan, Mount, MountFlags, MountKind, Plan, ProcessPlan, Rlimit, Rootfs,
    TerminalSize,
};
use rcd_init::protocol::{Failure, Step};
use rcd_init::stage::{Child, FAILURE_PACKET, TERMINAL_PACKET, enter};

/// Names the part that a process plays.
const PART: &str = "RCD_STAGE_PART";
/// The directory where the parts meet.
const DIR: &str = "RCD_STAGE_DIR";
/// A statically linked busybox, to be the whole image.
const BUSYBOX: &str = "/bin/busybox";
/// Docker's default capabilities.
const DOCKER_CAPS: u64 = 0xa804_25fb;
/// The largest status packet.
const PACKET_BYTES_MAX: usize = 16 << 10;

/// What came of a plan.
#[derive(Debug)]
struct Outcome {
    out: String,
    code: i32,
    failure: Option<Failure>,
}

/// A busybox image and the plan for it.
struct Stage {
    dir: PathBuf,
    init: InitPlan,
    exec: Option<ProcessPlan>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Overlayfs leaves a directory of mode 0 in its work directory.
        let _ = fs::set_permissions(self.dir.join("work/work"), fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Stage {
    /// None, and the reason printed, if this machine cannot run the test.
    fn new(name: &str) -> Option<Self> {
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
        for part in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work", "rootfs"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        fs::copy(BUSYBOX, dir.join("lower/bin/busybox")).unwrap();
        for applet in ["sh", "ls", "cat", "id", "grep", "tty", "pwd", "env", "touch", "stat", "readlink", "sleep", "true", "mount", "stty", "hostname", "wc", "kill", "awk"] {
            symlink("busybox", dir.join("lower/bin").join(applet)).unwrap();
        }
        fs::write(dir.join("lower/etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n").unwrap();
        fs::write(dir.join("lower/etc/group"), "root:x:0:\napp:x:1001:\naudio:x:63:app\n").unwrap();
        let init = plan(&dir);
        Some(Self { dir, init, exec: None })
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.dir.join("lower").join(path)
    }

    /// Runs a shell script as the container's first process.
    fn script(&mut self, script: &str) -> Outcome {
        self.init.process.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.run()
    }

    fn run(&mut self) -> Outcome {
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
            code: fs::read_to_string(self.dir.join("code")).unwrap().parse().unwrap(),
            failure: failure.map(|bytes| postcard::from_bytes(&bytes).unwrap()),
        }
    }

    /// Runs and expects a failure at `step`.
    fn fails(&mut self, step: Step) -> Failure {
        let outcome = self.run();
        let failure = outcome.failure.unwrap_or_else(|| panic!("it ran: {}", outcome.out));
        assert_eq!(failure.step, step, "{failure:?}");
        assert_ne!(outcome.code, 0);
        failure
    }
}

/// The plan of an ordinary Docker container.
fn plan(dir: &Path) -> InitPlan {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let shared = MountFlags { nosuid: true, nodev: true, noexec: true, readonly: false };
    let readonly = MountFlags { readonly: true, ..shared };
    let dev = MountFlags { nosuid: true, ..MountFlags::default() };
    let pts = MountFlags { nosuid: true, noexec: true, ..MountFlags::default() };
    InitPlan {
        hostname: Some("staged".into()),
        rootfs: Rootfs::Overlay {
            lowers: vec![path("lower")],
            upper: path("upper"),
            work: path("work"),
            volatile: false,
        },
        readonly_root: false,
        mounts: vec![
            filesystem("/proc", "proc", &[], shared),
            filesystem("/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")], dev),
            filesystem(
                "/dev/pts",
                "devpts",
                &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
                pts,
            ),
            filesystem("/sys", "sysfs", &[], readonly),
            filesystem("/sys/fs/cgroup", "cgroup2", &[], readonly),
            filesystem("/dev/mqueue", "mqueue", &[], shared),
            filesystem("/dev/shm", "tmpfs", &[("mode", "1777"), ("size", "65536k")], shared),
        ],
        devices: texts(&[
            "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
        ]),
        masked_paths: texts(&[
            "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/proc/acpi", "/sys/firmware",
            "/proc/not-there",
        ]),
        readonly_paths: texts(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        sysctls: vec![("net.ipv4.ip_unprivileged_port_start".into(), "0".into())],
        process: ProcessPlan {
            argv: texts(&["true"]),
            env: texts(&["PATH=/usr/bin:/bin", "A=1"]),
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
        },
    }
}

fn filesystem(target: &str, fstype: &str, options: &[(&str, &str)], flags: MountFlags) -> Mount {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Mount {
        target: target.into(),
        kind: MountKind::Filesystem { fstype: fstype.into(), options },
        flags,
    }
}

fn bind(source: &Path, target: &str, flags: MountFlags) -> Mount {
    let source = source.to_str().unwrap().to_owned();
    Mount { target: target.into(), kind: MountKind::Bind { source, recursive: true }, flags }
}

/// `BPF_RET | BPF_K` with SECCOMP_RET_ALLOW.
fn allow_all() -> Vec<u8> {
    let mut filter = 0x06_u16.to_ne_bytes().to_vec();
    filter.extend([0, 0]);
    filter.extend(0x7fff_0000_u32.to_ne_bytes());
    filter
}

/// Not a test of its own: the other parts' way in. Without a part it does nothing.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    match part.as_str() {
        "keeper" => keep(&dir),
        plan => child(&dir, plan),
    }
}

fn keep(dir: &Path) {
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
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
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
        nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_RDWR)).unwrap();
        let mut out = Vec::new();
        // EIO is a terminal's end of file.
        let _ = File::from(master).read_to_end(&mut out);
        fs::write(dir.join("out"), out).unwrap();
    }
    true
}

fn child(dir: &Path, plan: &str) {
    let status = io::stdin().as_fd().try_clone_to_owned().unwrap();
    // A joined mount namespace needs a working directory that no other thread shares; a new one
    // brings that along.
    let exec = plan == "exec";
    unshare(if exec { CloneFlags::CLONE_FS } else { CloneFlags::CLONE_NEWNS }).unwrap();
    let join = exec.then(|| rcd_sys::pidfd::open(1).unwrap());
    let terminal = dir.join(format!("{plan}-tty")).exists();
    let plan = File::open(dir.join(plan)).unwrap();
    let out = || Some(File::options().create(true).append(true).open(dir.join("out")).unwrap().into());
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

#[test]
fn a_container_has_its_mounts_devices_and_rights() {
    let Some(mut stage) = Stage::new("whole") else { return };
    let outcome = stage.script(
        "hostname; pwd; ls -l /dev; cat /proc/mounts; grep -E 'Cap|Seccomp:|NoNewPrivs|Sig' \
         /proc/self/status; cat /proc/self/cgroup; echo out >> /dev/stdout; umask; id; \
         cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start; env; \
         readlink /proc/self/exe; head -c 4 /dev/zero | wc -c",
    );
    assert_eq!(outcome.failure, None);
    for part in ["staged\n/\n", "CapBnd:\t00000000a80425fb", "CapEff:\t00000000a80425fb",
        "CapPrm:\t00000000a80425fb", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000",
        "Seccomp:\t2", "NoNewPrivs:\t0", "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000", "0::/\n", "out\n0022\n", "uid=0(root) gid=0(root) groups=0(root)",
        "500\n0\n", "HOME=/root\n", "\n/bin/busybox\n4\n",
        "stdout -> /proc/self/fd/1", "ptmx -> pts/ptmx", "1,   3", "tmpfs /dev tmpfs rw,nosuid",
        "cgroup2 ro", "sysfs ro,nosuid,nodev,noexec",
    ] {
        assert!(outcome.out.contains(part), "no {part:?} in:\n{}", outcome.out);
    }
}

#[test]
fn what_docker_hides_is_hidden_and_what_it_protects_is_read_only() {
    let Some(mut stage) = Stage::new("masks") else { return };
    let outcome = stage.script(
        "ls -A /sys/firmware /proc/scsi /proc/acpi; wc -c < /proc/keys; wc -c < /proc/timer_list; \
         test ! -e /proc/kcore || stat -c %t:%T /proc/kcore; \
         touch /proc/sys/kernel/hostname /sys/x /sys/fs/cgroup/x /sys/firmware/x 2>&1; \
         mount -o remount,rw /proc/sys 2>&1; test ! -e /proc/sysrq-trigger || test ! -w /proc/sysrq-trigger && echo kept",
    );
    assert_eq!(outcome.failure, None);
    for part in ["\n0\n0\n", "/proc/sys/kernel/hostname: Read-only", "/sys/x: Read-only",
        "/sys/fs/cgroup/x: Read-only", "/sys/firmware/x: Read-only",
        "permission denied (are you root?)"] {
        assert!(outcome.out.contains(part), "no {part:?} in:\n{}", outcome.out);
    }
    assert!(outcome.out.ends_with("kept\n"), "{}", outcome.out);
}

#[test]
fn no_descriptor_but_three_reaches_the_program() {
    let Some(mut stage) = Stage::new("leaks") else { return };
    stage.init.process.argv = ["ls", "/proc/self/fd"].map(str::to_owned).to_vec();
    // The fourth is the directory that ls reads.
    assert_eq!(stage.run().out, "0\n1\n2\n3\n");
    let outcome = stage.script("readlink /proc/$$/fd/0; readlink /proc/$$/cwd");
    assert_eq!(outcome.out, "/dev/null\n/\n");
}

#[test]
fn a_terminal_is_the_containers_own() {
    let Some(mut stage) = Stage::new("terminal") else { return };
    stage.init.process.terminal = Some(TerminalSize { rows: 33, columns: 121 });
    let outcome = stage.script(
        "tty; stty size; stat -c %t:%T /dev/console /dev/pts/0; ls -l /dev/pts; echo to-console > \
         /dev/console; echo to-tty > /dev/tty; sleep 100 & kill %1; set -m; echo job-control=$?; ls /proc/self/fd",
    );
    assert_eq!(outcome.failure, None);
    for part in ["/dev/pts/0\r\n33 121\r\n88:0\r\n88:0", "to-console", "to-tty", "job-control=0", "root     5 "] {
        assert!(outcome.out.contains(part), "no {part:?} in:\n{}", outcome.out);
    }
}

#[test]
fn users_get_their_ids_groups_home_and_no_capability() {
    let Some(mut stage) = Stage::new("users") else { return };
    let script = "id; echo $HOME; grep -E 'CapEff|CapPrm|CapBnd|Groups' /proc/self/status; \
        echo mine >> /dev/stdout; touch /x 2>&1";
    stage.init.process.user = "app".into();
    stage.init.process.groups = vec!["77".into()];
    let outcome = stage.script(script);
    assert_eq!(outcome.failure, None);
    for part in ["uid=1000(app) gid=1001(app) groups=63(audio),77,1001(app)", "\n/srv\n",
        "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t00000000a80425fb",
        "mine", "/x: Permission denied"] {
        assert!(outcome.out.contains(part), "no {part:?} in:\n{}", outcome.out);
    }
    stage.init.process.user = "1234:4321".into();
    stage.init.process.groups.clear();
    assert!(stage.script(script).out.starts_with("uid=1234 gid=4321 groups=4321\n/\n"));

    stage.init.process.user = "ghost".into();
    assert_eq!(stage.fails(Step::User).object, "ghost");
    stage.init.process.user = "4000000000".into();
    let failure = stage.fails(Step::User);
    assert!(failure.detail.contains("users 0 to 0, 1 to 65535"), "{failure:?}");
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let Some(mut stage) = Stage::new("ambient") else { return };
    stage.init.process.user = "1000".into();
    // CAP_NET_BIND_SERVICE
    stage.init.process.capabilities.inheritable = 1 << 10;
    stage.init.process.capabilities.ambient = 1 << 10;
    let out = stage.script("grep Cap /proc/self/status").out;
    assert!(out.contains("CapEff:\t0000000000000400"), "{out}");
    assert!(out.contains("CapAmb:\t0000000000000400"), "{out}");
}

#[test]
fn passwd_files_that_are_no_files_are_refused() {
    for (name, setup) in [("a directory", false), ("a fifo", true)] {
        let Some(mut stage) = Stage::new(&name.replace(' ', "-")) else { return };
        let passwd = stage.lower("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        if setup {
            nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRUSR).unwrap();
        } else {
            fs::create_dir(&passwd).unwrap();
        }
        assert_eq!(stage.fails(Step::User).object, "/etc/passwd", "{name}");
    }
}

#[test]
fn working_directories_are_entered_made_or_refused() {
    let Some(mut stage) = Stage::new("cwd") else { return };
    stage.init.process.argv = vec!["pwd".into()];
    stage.init.process.cwd = "/tmp".into();
    assert_eq!(stage.run().out, "/tmp\n");

    stage.init.process.cwd = "/made/here".into();
    let failure = stage.fails(Step::WorkingDirectory);
    assert_eq!((failure.errno, failure.object.as_str()), (nix::errno::Errno::ENOENT as i32, "/made/here"));
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/3/..", "relative", "/bin/busybox"] {
        stage.init.process.cwd = cwd.into();
        stage.fails(Step::WorkingDirectory);
    }
    stage.init.process.cwd = "/made/here".into();
    stage.init.process.create_cwd = true;
    stage.init.readonly_root = true;
    let outcome = stage.script("pwd; touch /made/here/x 2>&1; touch /dev/shm/ok && echo writable");
    assert_eq!(outcome.out, "/made/here\ntouch: /made/here/x: Read-only file system\nwritable\n");
}

#[test]
fn programs_that_do_not_run_say_why() {
    let Some(mut stage) = Stage::new("programs") else { return };
    let write = |name: &str, text: &str, mode: u32| {
        let path = stage.lower(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("bin/plain", "echo hi", 0o644);
    write("bin/headless", "echo hi", 0o755);
    write("bin/orphan", "#!/usr/bin/python -E\n", 0o755);
    write("bin/broken", "\x7fELF\x01", 0o755);
    use nix::errno::Errno::{EACCES, ENOENT, ENOEXEC};
    let cases = [
        ("nothing", ENOENT, "PATH"),
        ("/no/such", ENOENT, "no such file"),
        ("/tmp", EACCES, "directory"),
        ("plain", EACCES, "not executable"),
        ("headless", ENOEXEC, "#!"),
        ("orphan", ENOENT, "/usr/bin/python"),
        ("broken", ENOEXEC, "machine"),
    ];
    for (program, errno, word) in cases {
        stage.init.process.argv = vec![program.into()];
        let failure = stage.fails(Step::Exec);
        assert_eq!(failure.errno, errno as i32, "{failure:?}");
        assert!(failure.detail.contains(word), "{failure:?}");
    }
}

#[test]
fn links_in_the_image_lead_nowhere_else() {
    let Some(mut stage) = Stage::new("links") else { return };
    let outside = stage.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "root:x:0:0::/stolen:/\n").unwrap();
    fs::write(stage.dir.join("secret"), "bound").unwrap();
    let up = "../../../../../../../..";
    symlink("/tmp", stage.lower("dev")).unwrap();
    symlink(format!("{up}{}", outside.display()), stage.lower("escape")).unwrap();
    symlink(&outside, stage.lower("escape2")).unwrap();
    fs::remove_file(stage.lower("etc/passwd")).unwrap();
    symlink(outside.join("passwd"), stage.lower("etc/passwd")).unwrap();
    let secret = stage.dir.join("secret");
    for target in ["/escape/file", "/escape2/deep/file", "/../../../../top"] {
        stage.init.mounts.push(bind(&secret, target, MountFlags::default()));
    }
    let outcome = stage.script("cat /escape/file /escape2/deep/file /top; echo; echo $HOME; ls /tmp; echo x > /dev/null");
    assert_eq!(outcome.failure, None);
    assert!(outcome.out.starts_with("boundboundbound\n/\n"), "{}", outcome.out);
    assert!(outcome.out.contains("urandom"), "the devices are where the link leads: {}", outcome.out);
    let left: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert_eq!(left.len(), 1, "something was made outside the root");
}

#[test]
fn a_dev_that_leads_into_proc_is_refused() {
    let Some(mut stage) = Stage::new("dev-in-proc") else { return };
    symlink("/proc", stage.lower("dev")).unwrap();
    assert_eq!(stage.fails(Step::Mount).object, "/dev");
}

#[test]
fn binds_are_restricted_and_their_errors_are_named() {
    let Some(mut stage) = Stage::new("binds") else { return };
    let source = stage.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    let readonly = MountFlags { readonly: true, noexec: true, ..MountFlags::default() };
    let mounts = stage.init.mounts.clone();
    stage.init.mounts.push(bind(&source, "/ro", readonly));
    stage.init.mounts.push(bind(&source, "/rw", MountFlags::default()));
    let outcome = stage.script("cat /ro/file; touch /ro/x 2>&1; touch /rw/y; grep /ro /proc/mounts");
    assert!(outcome.out.starts_with("texttouch: /ro/x: Read-only file system\n"), "{}", outcome.out);
    assert!(outcome.out.contains("ro,noexec") || outcome.out.contains("noexec"), "{}", outcome.out);
    assert!(source.join("y").exists());

    let bad = [
        (bind(&stage.dir.join("missing"), "/x", readonly), "missing", "does not exist"),
        (bind(&source, "/bin/busybox", readonly), "/bin/busybox", "directory"),
        (bind(&source, "/", readonly), "/", "root"),
        (filesystem("/x", "nosuch", &[], readonly), "/x", "no such file system"),
        (filesystem("/x", "tmpfs", &[("colour", "red")], readonly), "/x", "colour"),
        (filesystem("/x", "tmpfs", &[("gid", "99999")], readonly), "/x", "gid"),
    ];
    for (mount, object, detail) in bad {
        stage.init.mounts = mounts.clone();
        stage.init.mounts.push(mount);
        let failure = stage.fails(Step::Mount);
        assert!(failure.object.ends_with(object), "{failure:?}");
        assert!(failure.detail.contains(detail), "{failure:?}");
    }
}

#[test]
fn limits_settings_layers_and_filters_that_cannot_be_are_refused() {
    let Some(mut stage) = Stage::new("refused") else { return };
    let good = stage.init.clone();
    // RLIMIT_CORE
    stage.init.process.rlimits = vec![Rlimit { resource: 4, soft: 0, hard: 0 }];
    assert_eq!(stage.script("ulimit -c").out, "0\n");
    stage.init.process.rlimits = vec![Rlimit { resource: 99, soft: 0, hard: 0 }];
    stage.fails(Step::Rlimit);

    stage.init = good.clone();
    stage.init.sysctls = vec![("kernel.panic".into(), "1".into())];
    assert_eq!(stage.fails(Step::Sysctl).object, "kernel.panic");

    stage.init = good.clone();
    stage.init.process.seccomp = vec![0; 8];
    stage.fails(Step::Seccomp);

    stage.init = good.clone();
    stage.init.devices.push("/etc/passwd".into());
    assert_eq!(stage.fails(Step::Device).object, "/etc/passwd");

    stage.init = good;
    let upper = stage.dir.join("lower").to_str().unwrap().to_owned();
    stage.init.rootfs =
        Rootfs::Overlay { lowers: vec![upper.clone()], upper, work: "/proc".into(), volatile: false };
    assert!(stage.fails(Step::Rootfs).detail.contains("overlay"));
}

#[test]
fn many_layers_with_odd_names_make_one_root() {
    let Some(mut stage) = Stage::new("layers") else { return };
    let layers: Vec<String> = (0..127)
        .map(|number| {
            let layer = stage.dir.join(format!("layer :,\\\"{number}{}", "x".repeat(100)));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("file{number}")), "").unwrap();
            layer.to_str().unwrap().to_owned()
        })
        .collect();
    if let Rootfs::Overlay { lowers, volatile, .. } = &mut stage.init.rootfs {
        lowers.splice(0..0, layers);
        *volatile = true;
    }
    assert_eq!(stage.script("ls -d /file* | wc -l").out, "127\n");
}

#[test]
fn a_directory_can_be_the_root() {
    let Some(mut stage) = Stage::new("directory") else { return };
    let source = stage.lower("").to_str().unwrap().to_owned();
    stage.init.rootfs = Rootfs::Directory { source };
    assert_eq!(stage.script("echo hello; touch /made").out, "hello\n");
    assert!(stage.lower("made").exists());
}

#[test]
fn an_exec_joins_the_container() {
    let Some(mut stage) = Stage::new("exec") else { return };
    let mut exec = stage.init.process.clone();
    let script = "hostname; tty; readlink /proc/self/ns/net; readlink /proc/1/ns/net; id -u; pwd; \
        ls /proc/self/fd; grep -E 'CapEff|Seccomp:' /proc/self/status";
    exec.argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    exec.cwd = "/tmp".into();
    exec.terminal = Some(TerminalSize::default());
    stage.exec = Some(exec.clone());
    let outcome = stage.script("exec sleep 1000");
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.code, 0);
    let lines: Vec<_> = outcome.out.lines().map(str::trim_end).collect();
    assert_eq!(lines[..2], ["staged", "/dev/pts/0"], "{}", outcome.out);
    assert_eq!(lines[2], lines[3]);
    assert_eq!(lines[4..6], ["0", "/tmp"]);
    assert!(outcome.out.contains("CapEff:\t00000000a80425fb"), "{}", outcome.out);

    exec.argv = vec!["nothing".into()];
    stage.exec = Some(exec);
    stage.script("exec sleep 1000");
    assert_eq!(stage.fails(Step::Exec).errno, nix::errno::Errno::ENOENT as i32);
}

#[test]
fn an_exec_joins_a_container_on_the_hosts_network() {
    let Some(mut stage) = Stage::new("host-network") else { return };
    fs::write(stage.dir.join("host-network"), "").unwrap();
    let failure = stage.fails(Step::Mount);
    assert!(failure.detail.contains("network namespace"), "{failure:?}");

    let readonly = MountFlags { readonly: true, ..MountFlags::default() };
    stage.init.sysctls.clear();
    stage.init.mounts[3] = bind(Path::new("/sys"), "/sys", readonly);
    let mut exec = stage.init.process.clone();
    exec.argv = ["hostname"].map(str::to_owned).to_vec();
    exec.user = "app".into();
    stage.exec = Some(exec);
    let outcome = stage.script("exec sleep 1000");
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.out, "staged\n");
}

#[test]
fn a_terminal_belongs_to_its_user() {
    let Some(mut stage) = Stage::new("terminal-user") else { return };
    stage.init.process.terminal = Some(TerminalSize::default());
    stage.init.process.user = "app".into();
    stage.init.process.no_new_privs = true;
    let script = "stat -c %U:%g:%a /dev/pts/0 /dev/console; echo x > /dev/console; echo y > /dev/tty; \
        grep -E 'NoNew|Seccomp:' /proc/self/status";
    let out = stage.script(script).out.replace('\r', "");
    assert_eq!(out, "app:5:620\napp:5:620\nx\ny\nNoNewPrivs:\t1\nSeccomp:\t2\n");
}

#[test]
fn a_plan_that_is_no_plan_ends_the_child_alone() {
    let Some(mut stage) = Stage::new("garbage") else { return };
    stage.init.process.argv = vec!["a\0b".into()];
    stage.fails(Step::Exec);
    stage.init.process.argv = Vec::new();
    stage.fails(Step::Exec);
}
