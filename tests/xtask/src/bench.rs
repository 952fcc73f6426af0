//! `cargo xtask bench`: rcd beside installed peers, in one run, as ratios.
//!
//! Absolute times drift from day to day and machine to machine; the ratio of two medians that were
//! measured in turns does not. All times are those of whole client processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use rcd_tests::{Daemon, Environment, Error, Result, Service, command::check, image};
use serde_json::{Value, json};

use crate::{Outcome, build, host, packages};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// run, exec and ps beside podman and crun
    Start {
        /// Repetitions of each measurement
        #[arg(long, default_value_t = 30)]
        runs: usize,
        /// Where to write the numbers
        #[arg(long, default_value = "target/bench-start.json")]
        json: PathBuf,
    },
}

/// The ordinary user's part.
#[derive(Args)]
pub(crate) struct InnerOptions {
    #[arg(long)]
    runs: usize,
    #[arg(long)]
    json: PathBuf,
}

/// Builds release and measures.
pub(crate) fn run(options: &Options) -> Outcome {
    let What::Start { runs, json } = &options.what;
    println!("== building (release)");
    let programs = build::programs(true)?;
    // The user cannot write into the checkout: he writes here, and we copy.
    let shared = std::env::temp_dir().join(format!("rcd-bench-{}", std::process::id()));
    rcd_tests::environment::write(&shared, "")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(&shared, open).map_err(Error::io("open the result file"))?;
    let text = |value: &dyn ToString| value.to_string();
    let arguments = ["bench".into(), "--runs".into(), text(runs), "--json".into()];
    let arguments = [
        arguments.as_slice(),
        &[shared.to_string_lossy().into_owned()],
    ]
    .concat();
    let code = host::enter(
        &programs,
        &arguments,
        &[&packages::NEEDED, &packages::PEERS],
    );
    let target = build::root().join(json);
    let copied = fs::copy(&shared, &target).map_err(Error::io("copy the result file"));
    fs::remove_file(&shared).ok();
    let code = code?;
    copied?;
    println!("numbers in {}", target.display());
    Ok(code)
}

/// One row: the same work done by rcd and by a peer.
struct Row {
    work: &'static str,
    rcd: f64,
    peer: &'static str,
    other: f64,
    /// What the ratio (peer by rcd) shall be at least.
    goal: f64,
}

struct Bench<'a> {
    rcd: Service,
    work: PathBuf,
    environment: &'a Environment,
    runs: usize,
    rows: Vec<Row>,
    extra: Vec<(&'static str, f64, &'static str)>,
}

/// Measures everything and prints the table.
pub(crate) fn inside(environment: &Environment, options: &InnerOptions) -> Outcome {
    let rcd = Service::start(environment)?;
    let tar = image::busybox_tar(&environment.cache)?;
    rcd.rc_ok(&["import", &tar.to_string_lossy(), "busybox:latest"])?;
    let work = rcd.sandbox().home.clone();
    let (runs, rows) = (options.runs.max(3), Vec::new());
    let mut bench = Bench {
        rcd,
        work,
        environment,
        runs,
        rows,
        extra: Vec::new(),
    };
    bench.prepare_peers(&tar)?;
    bench.alone()?;
    bench.parallel()?;
    bench.memory()?;
    bench.exec_and_ps()?;
    bench.dirty_pages()?;
    bench.print();
    let text = serde_json::to_string_pretty(&bench.json()).unwrap_or_default();
    rcd_tests::environment::write(&options.json, &text)?;
    bench.podman(&["rm", "-fa", "-t", "0"])?;
    bench.podman(&["rmi", "-fa"])?;
    Ok(0)
}

impl Bench<'_> {
    fn rc_command(&self, arguments: &[&str]) -> Command {
        self.rcd.sandbox().rc_command(arguments)
    }

    fn podman_command(&self, arguments: &[&str]) -> Command {
        let mut podman = self.rcd.sandbox().command("podman");
        podman
            .arg("--root")
            .arg(self.work.join("podman/root"))
            .arg("--runroot")
            .arg(self.rcd.sandbox().runtime.join("podman"))
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(arguments);
        podman
    }

    fn podman(&self, arguments: &[&str]) -> Result<String> {
        check(&mut self.podman_command(arguments))
    }

    /// `crun run` of a bundle with the same program and namespaces; each needs a name of its own.
    fn crun_command(&self, name: &str) -> Command {
        let mut crun = self.rcd.sandbox().command("crun");
        crun.args(["--cgroup-manager", "disabled", "--root"])
            .arg(self.rcd.sandbox().runtime.join("crun"))
            .args(["run", "--bundle"])
            .arg(self.work.join("bundle"))
            .arg(name);
        crun
    }

    fn prepare_peers(&self, tar: &Path) -> Result<()> {
        let bundle = self.work.join("bundle");
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(Error::io("make a bundle"))?;
        check(
            Command::new("tar")
                .arg("-xf")
                .arg(tar)
                .arg("-C")
                .arg(&rootfs),
        )?;
        let mut spec = self.rcd.sandbox().command("crun");
        check(spec.args(["spec", "--rootless"]).current_dir(&bundle))?;
        let config = bundle.join("config.json");
        let text = fs::read_to_string(&config).map_err(Error::io("read the bundle's config"))?;
        let mut spec: Value = serde_json::from_str(&text).unwrap_or_default();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = json!(["true"]);
        rcd_tests::environment::write(&config, &spec.to_string())?;
        check(&mut self.crun_command("probe"))?;
        self.podman(&["import", "-q", &tar.to_string_lossy(), "busybox:latest"])
            .map(drop)
    }

    /// Medians of several commands, measured in turns, in milliseconds.
    fn medians(&self, runs: usize, commands: &[&dyn Fn(usize) -> Command]) -> Result<Vec<f64>> {
        let mut times = vec![Vec::new(); commands.len()];
        for round in 0..runs + 2 {
            for (command, times) in commands.iter().zip(&mut times) {
                let time = timed(&mut [command(round)])?;
                // Two rounds of warming up.
                if round >= 2 {
                    times.push(time);
                }
            }
        }
        Ok(times.into_iter().map(median).collect())
    }

    fn rc_true(&self) -> Command {
        self.rc_command(&["run", "--rm", "busybox", "true"])
    }

    fn podman_true(&self) -> Command {
        self.podman_command(&["run", "--rm", "--network", "none", "busybox", "true"])
    }

    fn row(&mut self, work: &'static str, rcd: f64, (peer, other): (&'static str, f64), goal: f64) {
        self.rows.push(Row {
            work,
            rcd,
            peer,
            other,
            goal,
        });
    }

    fn alone(&mut self) -> Result<()> {
        let times = self.medians(
            self.runs,
            &[
                &|_| self.rc_true(),
                &|round| self.crun_command(&format!("c{round}")),
                &|_| self.podman_true(),
            ],
        )?;
        if let [rcd, crun, podman] = times[..] {
            self.row("run --rm busybox true", rcd, ("crun run", crun), 1.0 / 0.6);
            self.row("run --rm busybox true", rcd, ("podman run", podman), 20.0);
        }
        Ok(())
    }

    fn parallel(&mut self) -> Result<()> {
        let many = |count: usize, make: &dyn Fn() -> Command| -> Result<f64> {
            let mut all: Vec<Command> = (0..count).map(|_| make()).collect();
            timed(&mut all)
        };
        let rounds = (self.runs / 6).max(3);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            times[0].push(many(16, &|| self.rc_true())?);
            times[1].push(many(16, &|| self.podman_true())?);
        }
        let [rcd, podman] = times.map(median);
        self.row("16 at once", rcd, ("podman run", podman), 20.0);
        let at_once = many(200, &|| self.rc_true())?;
        self.extra
            .push(("200 at once, all succeeded", at_once, "ms (goal: 2000)"));
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        let info = self.rcd.rc_ok(&["info", "--format", "json"])?;
        let info: Value = serde_json::from_str(&info).unwrap_or_default();
        let holder = info["holderPid"]
            .as_i64()
            .or_else(|| info["HolderPid"].as_i64());
        let pids = [
            ("daemon", Some(i64::from(self.rcd.daemon_pid()?))),
            ("holder", holder),
        ];
        for (name, pid) in pids {
            let pss = pid.and_then(pss_mib).unwrap_or(f64::NAN);
            let goal = if name == "daemon" {
                "MiB PSS (goal: 20)"
            } else {
                "MiB PSS (goal: 2)"
            };
            self.extra.push((name, pss, goal));
        }
        Ok(())
    }

    fn exec_and_ps(&mut self) -> Result<()> {
        self.rcd
            .rc_ok(&["run", "-d", "--name", "bench", "busybox", "sleep", "1000"])?;
        let podman = [
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            "bench",
            "busybox",
        ];
        self.podman(&[podman.as_slice(), &["sleep", "1000"]].concat())?;
        for (work, arguments, goal) in [
            ("exec true", ["exec", "bench", "true"].as_slice(), 20.0),
            ("ps", ["ps"].as_slice(), 10.0),
        ] {
            let times = self.medians(
                self.runs,
                &[&|_| self.rc_command(arguments), &|_| {
                    self.podman_command(arguments)
                }],
            )?;
            if let [rcd, podman] = times[..] {
                self.row(work, rcd, ("podman", podman), goal);
            }
        }
        self.rcd.rc_ok(&["rm", "-f", "bench"])?;
        self.podman(&["rm", "-f", "-t", "0", "bench"]).map(drop)
    }

    /// Starts while 500 MB of dirty pages are being written to the same file system.
    fn dirty_pages(&mut self) -> Result<()> {
        let quiet = self.medians(self.runs, &[&|_| self.rc_true()])?;
        let file = self.work.join("dirty");
        let mut writer = Command::new("dd");
        writer.args(["if=/dev/zero", "bs=1M", "count=500", "status=none"]);
        let mut writer = writer
            .arg(format!("of={}", file.display()))
            .spawn()
            .map_err(Error::io("start dd"))?;
        thread::sleep(Duration::from_millis(200));
        let busy = self.medians(self.runs, &[&|_| self.rc_true()]);
        writer.wait().ok();
        fs::remove_file(&file).ok();
        let (quiet, busy) = (median(quiet), median(busy?));
        self.extra.push(("run, quiet", quiet, "ms"));
        self.extra
            .push(("run beside 500 MB of dirty pages", busy, "ms"));
        Ok(())
    }

    fn print(&self) {
        println!(
            "\n{:24} {:>9}  {:12} {:>9} {:>7} {:>6}",
            "work", "rcd ms", "peer", "ms", "ratio", "goal"
        );
        for row in &self.rows {
            let ratio = row.other / row.rcd;
            let verdict = if ratio >= row.goal { "" } else { "  missed" };
            println!(
                "{:24} {:>9.1}  {:12} {:>9.1} {:>6.1}x {:>5.1}x{verdict}",
                row.work, row.rcd, row.peer, row.other, ratio, row.goal
            );
        }
        for (what, value, unit) in &self.extra {
            println!("{what}: {value:.1} {unit}");
        }
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({"work": row.work, "rcdMs": row.rcd, "peer": row.peer, "peerMs": row.other,
                    "ratio": row.other / row.rcd, "goal": row.goal})
            })
            .collect();
        let extra: Vec<Value> = self
            .extra
            .iter()
            .map(|(what, value, unit)| json!({"what": what, "value": value, "unit": unit}))
            .collect();
        json!({"machine": machine(), "versions": self.versions(), "runs": self.runs,
            "rows": rows, "extra": extra})
    }

    fn versions(&self) -> Value {
        let first = |mut command: Command| {
            let text = check(&mut command).unwrap_or_default();
            text.lines().next().unwrap_or_default().to_owned()
        };
        let mut crun = self.rcd.sandbox().command("crun");
        crun.arg("--version");
        json!({"rcd": first(self.rc_command(&["--version"])), "crun": first(crun),
            "podman": first(self.podman_command(&["--version"])),
            "cgroup": self.environment.cgroup.is_some()})
    }
}

/// Starts all, waits for all; milliseconds. All have to succeed.
fn timed(commands: &mut [Command]) -> Result<f64> {
    let begun = Instant::now();
    let mut children = Vec::new();
    for command in commands {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        children.push(command.spawn().map_err(Error::io("start a client"))?);
    }
    let mut failed = None;
    for child in children {
        let output = child
            .wait_with_output()
            .map_err(Error::io("wait for a client"))?;
        if !output.status.success() {
            failed = Some(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    let time = begun.elapsed().as_secs_f64() * 1e3;
    match failed {
        None => Ok(time),
        Some(text) => Err(Error::Missing(format!("a measured command failed: {text}"))),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn pss_mib(pid: i64) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let release = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = release.trim().split(['.', '-']).take(2).collect();
    json!({
        "cpu": value(&read("/proc/cpuinfo"), "model name"),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "memory": value(&read("/proc/meminfo"), "MemTotal"),
        "kernel": kernel.join("."),
    })
}
