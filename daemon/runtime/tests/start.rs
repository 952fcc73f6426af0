//! Real containers through a real holder, as an ordinary user.
//!
//! One program instead of test functions: `join` wants a process with one thread, which the usual
//! harness never has. It makes a busybox root, starts `rcd-init hold` from beside itself, joins it,
//! goes through the cases below, and prints how long starts take. It skips, and says so, as root,
//! and where busybox, `rcd-init` or user namespaces are missing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is a test, which clippy sees only in functions marked so"
)]

#[path = "start/confinement.rs"]
mod confinement;

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcd_runtime::{
    ContainerOptions, Error, EtcFiles, Event, ExecOptions, Exit, Joined, Network, Process,
    ProcessKey, ProcessOptions, RootfsOptions, Runtime, Settings, Slot, join,
};
use tokio::sync::mpsc::Receiver;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two that are measured: the pool of network namespaces refills.
const PAUSE: Duration = Duration::from_millis(3);

/// Starts that are measured one after the other.
const SAMPLES: usize = 100;

fn main() {
    // As the daemon does: 200 containers at once have more descriptors than the usual soft limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    match Bench::new() {
        Ok(bench) => bench.run(),
        Err(reason) => println!("skipped: {reason}"),
    }
}

/// Directories, and the holder in them.
struct Bench {
    dir: PathBuf,
    holder: Child,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.holder.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.holder.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Bench {
    fn new() -> Result<Self, String> {
        if nix::unistd::Uid::effective().is_root() {
            return Err("the holder never runs as root".into());
        }
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = exe.ancestors().nth(2).map(|dir| dir.join("rcd-init"));
        let program = program
            .filter(|p| p.is_file())
            .ok_or("rcd-init is not built")?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|p| Path::new(p).is_file());
        let busybox = busybox.ok_or("busybox is not installed")?;

        let dir = std::env::temp_dir().join(format!("rcd-runtime-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        make_root(&dir.join("lower"), Path::new(busybox));
        for name in ["resolv.conf", "hostname", "hosts"] {
            fs::write(dir.join(name), format!("# {name}\n")).unwrap();
        }
        let holder = Command::new(program)
            .args(["hold", "--socket"])
            .arg(dir.join("holder.sock"))
            .stdin(ProcessStdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        Ok(Self { dir, holder })
    }

    fn run(mut self) {
        let joined = match self.join() {
            Ok(joined) => joined,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let rt = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        rt.block_on(async {
            let (runtime, events) = Runtime::start(joined, Settings::default()).unwrap();
            let mut world = World {
                dir: self.dir.clone(),
                runtime,
                events,
                seen: Vec::new(),
            };
            tokio::time::timeout(10 * PATIENCE, world.cases())
                .await
                .unwrap();
        });
    }

    fn join(&mut self) -> Result<Joined, String> {
        let socket = self.dir.join("holder.sock");
        let give_up = Instant::now() + PATIENCE;
        loop {
            match join(&socket) {
                Ok(joined) => return Ok(joined),
                Err(Error::NoHolder { .. }) if Instant::now() < give_up => {}
                Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
            }
            if let Some(status) = self.holder.try_wait().unwrap() {
                return Err(format!(
                    "the holder ended with {status}: see its words above"
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn make_root(root: &Path, busybox: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "true", "cat", "sleep", "id", "grep", "stty", "ls", "echo",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\napp:x:1000:\naudio:x:63:app\n",
    )
    .unwrap();
    fs::write(root.join("bin/data"), "not a program").unwrap();
}

struct World {
    dir: PathBuf,
    runtime: Runtime,
    events: Receiver<Event>,
    seen: Vec<(ProcessKey, Exit)>,
}

impl World {
    async fn cases(&mut self) {
        self.output_and_defaults().await;
        self.system_calls().await;
        self.own_cgroup().await;
        self.full_sockets().await;
        self.failures().await;
        self.terminal().await;
        self.host_network().await;
        self.start_latency().await;
        for count in [16, 200] {
            self.at_once(count).await;
        }
        self.input_and_exec().await;
        self.exec_latency().await;
    }

    fn options(&self, id: &str, argv: &[&str]) -> ContainerOptions {
        let own = self.dir.join("containers").join(id);
        fs::create_dir_all(own.join("upper")).unwrap();
        fs::create_dir_all(own.join("work")).unwrap();
        ContainerOptions {
            id: id.into(),
            hostname: "box".into(),
            rootfs: RootfsOptions {
                lowers: vec![self.dir.join("lower")],
                upper: own.join("upper"),
                work: own.join("work"),
                volatile: true,
            },
            readonly_root: false,
            process: process(argv),
            binds: Vec::new(),
            files: EtcFiles {
                resolv_conf: self.dir.join("resolv.conf"),
                hostname: self.dir.join("hostname"),
                hosts: self.dir.join("hosts"),
            },
            network: Network::None,
            open_stdin: false,
            stop_signal: 15,
            stop_timeout: Duration::from_secs(1),
        }
    }

    async fn exit_of(&mut self, key: &ProcessKey) -> Exit {
        let exit = loop {
            if let Some(at) = self.seen.iter().position(|(k, _)| k == key) {
                break self.seen.swap_remove(at).1;
            }
            match tokio::time::timeout(PATIENCE, self.events.recv())
                .await
                .unwrap()
            {
                Some(Event::Exited { key, exit }) => self.seen.push((key, exit)),
                other => panic!("{other:?}"),
            }
        };
        self.runtime.acknowledge(key.clone()).await;
        if key.exec.is_none() {
            self.runtime.remove_cgroup(&key.container).await;
        }
        exit
    }

    /// Runs to the end; exit code, stdout, stderr.
    async fn run(&mut self, o: ContainerOptions) -> (i32, String, String) {
        let mut process = spawn(&self.runtime, o).await;
        let exit = self.exit_of(&process.key).await;
        let stdout = read(process.stdio.stdout.take().unwrap()).await;
        (
            exit.code,
            stdout,
            read(process.stdio.stderr.take().unwrap()).await,
        )
    }

    async fn output_and_defaults(&mut self) {
        let script = "echo out; echo err >&2; id; cat /proc/sys/kernel/hostname /etc/hosts; \
            grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
            cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/cgroup; \
            ls /proc/1/fd /dev; exit 3";
        let (code, stdout, stderr) = self.run(self.options("a", &["sh", "-c", script])).await;
        assert_eq!((code, stderr.as_str()), (3, "err\n"));
        let expected = [
            "out\nuid=0(root) gid=0(root)",
            "box\n# hosts\n",
            "CapEff:\t00000000a80425fb\n",
            "CapBnd:\t00000000a80425fb\n",
            "NoNewPrivs:\t0\n",
            "Seccomp:\t2\n",
        ];
        for text in expected {
            assert!(stdout.contains(text), "`{text}` is missing");
        }
        let mut o = self.options("b", &["id"]);
        o.process.user = "app".into();
        let (_, stdout, stderr) = self.run(o).await;
        let expected = "uid=1000(app) gid=1000(app) groups=63(audio),1000(app)\n";
        assert_eq!((stdout.as_str(), stderr.as_str()), (expected, ""));
    }

    async fn failures(&mut self) {
        let cases = [
            ("nothing", "/", 127),
            ("/bin/data", "/", 126),
            ("true", "/missing", 126),
        ];
        for (n, (program, cwd, expected)) in cases.into_iter().enumerate() {
            let mut o = self.options(&format!("f{n}"), &[program]);
            o.process.cwd = cwd.into();
            match self.runtime.spawn(o).await {
                Err(Error::Start { exit_code, .. }) => assert_eq!(exit_code, expected, "{program}"),
                other => panic!("{program}: {other:?}"),
            }
        }
        assert!(self.runtime.list().await.unwrap().is_empty());
    }

    async fn input_and_exec(&mut self) {
        let mut o = self.options("c", &["cat"]);
        o.open_stdin = true;
        let mut main = spawn(&self.runtime, o).await;

        let options = exec_options("c", "e1", &["sh", "-c", "cat; ls -d /proc/1"], true);
        let mut exec = self.runtime.exec(options).await.unwrap();
        write(exec.stdio.stdin.take().unwrap(), b"to exec\n");
        self.runtime.drop_kept(exec.key.clone(), Slot::Stdin).await;
        assert_eq!(self.exit_of(&exec.key).await.code, 0);
        assert_eq!(
            read(exec.stdio.stdout.take().unwrap()).await,
            "to exec\n/proc/1\n"
        );

        let missing = self
            .runtime
            .exec(exec_options("c", "e2", &["nothing"], false))
            .await;
        assert!(
            matches!(missing, Err(Error::Start { exit_code: 127, .. })),
            "{missing:?}"
        );

        let listed = self.runtime.list().await.unwrap();
        let [same] = &listed[..] else {
            panic!("{listed:?}")
        };
        assert_eq!((&same.key, same.pid), (&main.key, main.pid));
        assert!(same.pidfd.is_some() && same.stdio.stdin.is_some() && same.stdio.stdout.is_some());
        drop(listed);

        write(main.stdio.stdin.take().unwrap(), b"to main\n");
        self.runtime.drop_kept(main.key.clone(), Slot::Stdin).await;
        assert_eq!(self.exit_of(&main.key).await.code, 0);
        assert_eq!(read(main.stdio.stdout.take().unwrap()).await, "to main\n");
    }

    async fn terminal(&mut self) {
        let mut o = self.options("t", &["sh", "-c", "stty size; exit 5"]);
        o.process.terminal = Some((33, 99));
        let mut process = spawn(&self.runtime, o).await;
        assert!(process.stdio.relay.is_some() && process.stdio.stdout.is_none());
        assert_eq!(self.exit_of(&process.key).await.code, 5);
        assert_eq!(read(process.stdio.pty.take().unwrap()).await, "33 99\r\n");
    }

    async fn host_network(&mut self) {
        let mut o = self.options("h", &["sh", "-c", "ls /sys/class/net"]);
        o.network = Network::Host;
        let (code, stdout, stderr) = self.run(o).await;
        assert_eq!((code, stderr.as_str()), (0, ""));
        let mut host: Vec<String> = fs::read_dir("/sys/class/net")
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        host.sort();
        assert_eq!(stdout.lines().collect::<Vec<_>>(), host);
    }

    /// As [`World::exit_of`], and how long after `begin` the exit was heard of.
    async fn timed_exit_of(&mut self, key: &ProcessKey, begin: Instant) -> (Exit, Duration) {
        while !self.seen.iter().any(|(k, _)| k == key) {
            match tokio::time::timeout(PATIENCE, self.events.recv())
                .await
                .unwrap()
            {
                Some(Event::Exited { key, exit }) => self.seen.push((key, exit)),
                other => panic!("{other:?}"),
            }
        }
        let elapsed = begin.elapsed();
        (self.exit_of(key).await, elapsed)
    }

    async fn start_latency(&mut self) {
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        for n in 0..SAMPLES {
            let o = self.options(&format!("l{n}"), &["/bin/true"]);
            let begin = Instant::now();
            let process = spawn(&self.runtime, o).await;
            started.push(begin.elapsed());
            let (exit, elapsed) = self.timed_exit_of(&process.key, begin).await;
            assert_eq!(exit.code, 0);
            ended.push(elapsed);
            tokio::time::sleep(PAUSE).await;
        }
        print_times("spawn to execve", &mut started);
        print_times("spawn to exit of /bin/true", &mut ended);
    }

    async fn exec_latency(&mut self) {
        let main = spawn(&self.runtime, self.options("d", &["sleep", "1000"])).await;
        let mut ended = Vec::new();
        for n in 0..SAMPLES {
            let begin = Instant::now();
            let options = exec_options("d", &format!("e{n}"), &["/bin/true"], false);
            let process = self.runtime.exec(options).await.unwrap();
            let (exit, elapsed) = self.timed_exit_of(&process.key, begin).await;
            assert_eq!(exit.code, 0);
            ended.push(elapsed);
            tokio::time::sleep(PAUSE).await;
        }
        kill(&main);
        assert_eq!(self.exit_of(&main.key).await.code, 137);
        print_times("exec to exit of /bin/true", &mut ended);
    }

    async fn at_once(&mut self, count: usize) {
        let all: Vec<_> = (0..count)
            .map(|n| self.options(&format!("p{count}n{n}"), &["/bin/true"]))
            .collect();
        let begin = Instant::now();
        let starts: Vec<_> = all
            .into_iter()
            .map(|o| {
                let runtime = self.runtime.clone();
                tokio::spawn(async move { spawn(&runtime, o).await.key })
            })
            .collect();
        let mut keys = Vec::new();
        for start in starts {
            keys.push(start.await.unwrap());
        }
        for key in keys {
            assert_eq!(self.exit_of(&key).await.code, 0);
        }
        println!("{count} at once: {:?}", begin.elapsed());
    }
}

fn process(argv: &[&str]) -> ProcessOptions {
    ProcessOptions {
        argv: argv.iter().map(|&a| a.to_owned()).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        create_cwd: false,
        user: String::new(),
        groups: Vec::new(),
        terminal: None,
    }
}

fn exec_options(container: &str, id: &str, argv: &[&str], stdin: bool) -> ExecOptions {
    let (container, exec_id) = (container.into(), id.into());
    ExecOptions {
        container,
        exec_id,
        process: process(argv),
        stdin,
    }
}

async fn spawn(runtime: &Runtime, o: ContainerOptions) -> Process {
    runtime.spawn(o).await.unwrap_or_else(|error| {
        panic!(
            "{error}: {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        )
    })
}

fn kill(process: &Process) {
    let pid = nix::unistd::Pid::from_raw(process.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn write(pipe: OwnedFd, bytes: &[u8]) {
    std::io::Write::write_all(&mut fs::File::from(pipe), bytes).unwrap();
}

/// All that a dead process wrote: to the end of a pipe, or to the error that a terminal gives.
async fn read(fd: OwnedFd) -> String {
    let mut file = fs::File::from(fd);
    let mut bytes = Vec::new();
    let give_up = Instant::now() + PATIENCE;
    loop {
        match file.read_to_end(&mut bytes) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(e) if e.raw_os_error() != Some(nix::libc::EIO) => panic!("{e}"),
            _ => return String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

fn print_times(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what}: median {:?}, p99 {:?}, least {:?}",
        at(50),
        at(99),
        at(0)
    );
}
