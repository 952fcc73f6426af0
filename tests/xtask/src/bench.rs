//! `cargo xtask bench`: rcd beside installed peers, in one run, as ratios.
//!
//! Absolute times drift from day to day and machine to machine; the ratio of two medians that were
//! measured in turns does not. All times are those of whole client processes.

mod load;
mod memory;
mod peers;
mod report;
mod sample;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use clap::{Args, Subcommand};
use rcd_tests::{Daemon, Environment, Error, Registry, Result, command::check, image};
use serde_json::{Value, json};

use self::{
    load::{Beside, Load, Puller, Writer, beside},
    peers::Peers,
    report::{Report, Row, load_average},
    sample::{Series, in_turns, once},
};
use crate::{Outcome, build, host, packages};

/// Above this, others use the machine, and times say little; ratios are what is left.
const QUIET_LOAD: f64 = 0.5;
/// A `run` shall take at most this part of a `crun run`.
const OF_CRUN: f64 = 0.6;
/// How much longer a median may be and still count as equal on a machine with two cores.
const EQUAL_WITHIN: f64 = 1.25;
/// Starts at once, beside podman.
const MANY: usize = 16;
/// Starts at once that all have to succeed.
const VERY_MANY: usize = 200;
/// Rounds of those.
const VERY_MANY_ROUNDS: usize = 3;
/// After the last start a daemon has this long to become idle.
const IDLE_S: u64 = 2;
/// Layer of the image that is pulled beside starts: incompressible files, so this is also what
/// travels.
const PULLED_FILES: u32 = 128;
const PULLED_FILE_BYTES: usize = 1 << 20;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// run, exec and ps beside podman and crun; starts beside other work; memory
    Start {
        /// Samples of each measurement
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
    /// The program that prints the spec of rcd's containers
    #[arg(long)]
    spec: PathBuf,
}

/// Builds release and measures.
pub(crate) fn run(options: &Options) -> Outcome {
    let What::Start { runs, json } = &options.what;
    println!("== building (release)");
    let programs = build::programs(true)?;
    let mut spec = build::cargo();
    spec.args(["build", "--release", "-p", "rcd-runtime"]);
    let built = spec.args(["--example", "spec"]).status();
    if !built.map_err(Error::io("run cargo"))?.success() {
        return Err(Error::Missing("the build failed".into()));
    }
    // The user cannot write into the checkout: he writes here, and we copy.
    let shared = std::env::temp_dir().join(format!("rcd-bench-{}", std::process::id()));
    rcd_tests::environment::write(&shared, "")?;
    let open = fs::Permissions::from_mode(0o666);
    fs::set_permissions(&shared, open).map_err(Error::io("open the result file"))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let arguments = [
        "bench".into(),
        format!("--runs={runs}"),
        format!("--json={}", text(&shared)),
        format!("--spec={}", text(&programs.join("examples/spec"))),
    ];
    let code = host::enter(
        &programs,
        &arguments,
        &[&packages::NEEDED, &packages::PEERS],
    );
    let target = build::root().join(json);
    let copied = match &code {
        Ok(0) => fs::copy(&shared, &target).map_err(Error::io("copy the result file")),
        _ => Ok(0),
    };
    fs::remove_file(&shared).ok();
    let code = code?;
    if copied? > 0 {
        println!("numbers in {}", target.display());
    }
    Ok(code)
}

/// Measures everything and prints the table.
pub(crate) fn inside(environment: &Environment, options: &InnerOptions) -> Outcome {
    let before = load_average();
    println!("load average: {before:.2}");
    if before > QUIET_LOAD {
        println!("warning: above {QUIET_LOAD}: others use this machine; trust ratios only");
    }
    let mut bench = Bench {
        peers: Peers::start(environment, &options.spec)?,
        environment,
        runs: options.runs.max(3),
        report: Report::default(),
    };
    let measured = bench.everything();
    bench.report.load = [before, load_average()];
    bench.report.versions = bench.versions();
    bench.report.print();
    let text = serde_json::to_string_pretty(&bench.report.json(bench.runs)).unwrap_or_default();
    rcd_tests::environment::write(&options.json, &text)?;
    bench.peers.end()?;
    measured.map(|()| 0)
}

struct Bench<'a> {
    peers: Peers,
    environment: &'a Environment,
    runs: usize,
    report: Report,
}

impl Bench<'_> {
    fn everything(&mut self) -> Result<()> {
        let step = |what: &str| println!("== {what}");
        step("memory after the first starts");
        self.memory()?;
        step("run beside crun and podman");
        self.report.differences = self.peers.differences()?;
        self.alone()?;
        step("many at once");
        self.at_once()?;
        step("exec and ps; processes of a container");
        self.exec_and_ps()?;
        step("run beside 500 MB of dirty pages");
        let mut writer = Writer::new(self.peers.home());
        self.beside_load("dirty pages", &mut writer)?;
        drop(writer);
        step("run beside a pull");
        self.beside_pull()?;
        let daemon = memory::pss_mib(self.peers.rcd.daemon_pid()?).unwrap_or(f64::NAN);
        self.report
            .fact("daemon after all of this, PSS", daemon, "MiB", None);
        Ok(())
    }

    fn row(
        &mut self,
        work: &str,
        rcd: Series,
        (peer, other): (&'static str, Series),
        goal: Option<f64>,
    ) {
        self.report.rows.push(Row {
            work: work.to_owned(),
            rcd,
            peer,
            other,
            goal,
            note: String::new(),
        });
    }

    /// First of all: the daemon has made no start but these.
    fn memory(&mut self) -> Result<()> {
        let mut starts: Vec<Command> = (0..MANY).map(|_| self.peers.rc_true()).collect();
        once(&mut starts)?;
        thread::sleep(Duration::from_secs(IDLE_S));
        let info = self.peers.rcd.rc_ok(&["info", "--format", "json"])?;
        let info: Value = serde_json::from_str(&info).unwrap_or_default();
        let holder = info["holderPid"]
            .as_i64()
            .and_then(|pid| pid.try_into().ok())
            .ok_or_else(|| Error::Missing("rc info tells no holder".into()))?;
        let sum = |pids: &[i32]| {
            let each: Option<Vec<f64>> = pids.iter().map(|pid| memory::pss_mib(*pid)).collect();
            each.map_or(f64::NAN, |each| each.iter().sum())
        };
        let daemon = sum(&[self.peers.rcd.daemon_pid()?]);
        let holders = memory::with_forks(holder);
        let what = format!("holder, PSS ({} processes)", holders.len());
        let unit = "MiB";
        self.report
            .fact("daemon idle after 16 starts, PSS", daemon, unit, Some(20.0));
        self.report.fact(&what, sum(&holders), unit, Some(2.0));
        Ok(())
    }

    fn alone(&mut self) -> Result<()> {
        let peers = &self.peers;
        let [rcd, crun, unfiltered, podman] = in_turns(
            self.runs,
            [
                &|| vec![peers.rc_true()],
                &|| vec![peers.crun_true()],
                &|| vec![peers.crun_unfiltered_true()],
                &|| vec![peers.podman_true()],
            ],
        )?;
        let work = "run --rm busybox true";
        self.row(work, rcd.clone(), ("crun", crun), Some(1.0 / OF_CRUN));
        let filtered = "the same, crun without seccomp";
        self.row(filtered, rcd.clone(), ("crun", unfiltered), None);
        self.row(work, rcd, ("podman", podman), Some(20.0));
        Ok(())
    }

    fn at_once(&mut self) -> Result<()> {
        let peers = &self.peers;
        let rounds = (self.runs / 6).max(3);
        let [rcd, podman] = in_turns(
            rounds,
            [&|| (0..MANY).map(|_| peers.rc_true()).collect(), &|| {
                (0..MANY).map(|_| peers.podman_true()).collect()
            }],
        )?;
        let [all] = in_turns(
            VERY_MANY_ROUNDS,
            [&|| (0..VERY_MANY).map(|_| peers.rc_true()).collect()],
        )?;
        self.row("16 of them at once", rcd, ("podman", podman), Some(20.0));
        let what =
            format!("{VERY_MANY} at once, all succeeded: slowest of {VERY_MANY_ROUNDS} rounds");
        self.report.fact(&what, all.max(), "ms", Some(2000.0));
        Ok(())
    }

    fn exec_and_ps(&mut self) -> Result<()> {
        let run = ["run", "-d", "--network", "none", "--name", "bench"];
        let run = [&run[..], &["busybox", "sleep", "1000"]].concat();
        let cgroup = self.environment.cgroup.clone();
        let processes = || cgroup.as_deref().map(memory::processes);
        let counts = [
            processes(),
            {
                self.peers.rcd.rc_ok(&run)?;
                processes()
            },
            {
                self.peers.podman(&run)?;
                processes()
            },
        ];
        if let [Some(before), Some(with_rcd), Some(with_podman)] = counts {
            // One of them is the container's own.
            let beside = |with: usize, without: usize| with as f64 - without as f64 - 1.0;
            let what = "processes per container beside its own";
            self.report
                .fact(what, beside(with_rcd, before), "", Some(0.0));
            let what = "the same, podman";
            self.report
                .fact(what, beside(with_podman, with_rcd), "", None);
        }
        for (work, arguments, goal) in [
            ("exec true", ["exec", "bench", "true"].as_slice(), 20.0),
            ("ps", ["ps"].as_slice(), 10.0),
        ] {
            let peers = &self.peers;
            let [rcd, podman] = in_turns(
                self.runs,
                [&|| vec![peers.rc_command(arguments)], &|| {
                    vec![peers.podman_command(arguments)]
                }],
            )?;
            self.row(work, rcd, ("podman", podman), Some(goal));
        }
        self.peers.rcd.rc_ok(&["rm", "-f", "bench"])?;
        self.peers
            .podman(&["rm", "-f", "-t", "0", "bench"])
            .map(drop)
    }

    fn beside_pull(&mut self) -> Result<()> {
        let registry = Registry::start(self.environment)?;
        let reference = registry.push(&pulled_image(&self.environment.cache)?, "pulled:1")?;
        let sandbox = self.peers.sandbox();
        let (rc, variables) = (sandbox.bin.join("rc"), sandbox.variables());
        let mut puller = Puller::new(self.peers.home(), move |verb| {
            let mut command = Command::new(&rc);
            command.args([verb, &reference]);
            command.env_clear().envs(&variables);
            command
        });
        self.beside_load("a pull", &mut puller)
    }

    /// rcd beside a load against rcd without it, and what the same load does to crun, which has
    /// nothing to do with it but the machine.
    fn beside_load(&mut self, what: &str, load: &mut dyn Load) -> Result<()> {
        let peers = &self.peers;
        let times = beside(
            load,
            self.runs,
            [&|| peers.rc_true(), &|| peers.crun_true()],
        )?;
        let Beside {
            quiet: [quiet, crun_quiet],
            busy: [busy, crun_busy],
            idle,
        } = times;
        let mut note = format!(
            "crun beside the same: {:.1} ms, {:.2}x of its {:.1} ms without; {}",
            crun_busy.median(),
            crun_busy.median() / crun_quiet.median(),
            crun_quiet.median(),
            load.summary()
        );
        if idle > 0 {
            let all = busy.len();
            note.push_str(&format!(
                "; NOT beside it all the time: {idle} of {all} samples"
            ));
        }
        self.row(
            &format!("run beside {what}"),
            busy,
            ("rcd quiet", quiet),
            Some(1.0 / EQUAL_WITHIN),
        );
        if let Some(row) = self.report.rows.last_mut() {
            row.note = note;
        }
        Ok(())
    }

    fn versions(&self) -> Value {
        let first = |mut command: Command| {
            let text = check(&mut command).unwrap_or_default();
            text.lines().next().unwrap_or_default().to_owned()
        };
        let mut crun = self.peers.sandbox().command("crun");
        crun.arg("--version");
        json!({"rcd": first(self.peers.rc_command(&["--version"])), "crun": first(crun),
            "podman": first(self.peers.podman_command(&["--version"])),
            "cgroup": self.environment.cgroup.is_some()})
    }
}

/// An image with one layer of random files; made if the cache lacks it.
fn pulled_image(cache: &Path) -> Result<PathBuf> {
    image::cached(cache, "pulled", |scratch, layout| {
        let root = scratch.join("root");
        fs::create_dir_all(&root).map_err(Error::io("make a folder"))?;
        let mut random = fs::File::open("/dev/urandom").map_err(Error::io("open /dev/urandom"))?;
        let mut bytes = vec![0; PULLED_FILE_BYTES];
        for number in 0..PULLED_FILES {
            std::io::Read::read_exact(&mut random, &mut bytes)
                .and_then(|()| fs::write(root.join(number.to_string()), &bytes))
                .map_err(Error::io("write a random file"))?;
        }
        let layers = [image::Layer {
            root: &root,
            compression: image::Compression::Gzip,
        }];
        image::build(layout, &layers, &json!({"Cmd": ["true"]}))
    })
}
