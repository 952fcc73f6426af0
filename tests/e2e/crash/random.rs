//! SIGKILL at random moments, while several clients do what users do.
//!
//! Each client owns its names, so it knows what must be there: what `rc` acknowledged. The daemon
//! lives for a random fraction of a second at a time.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rcd_tests::{
    Daemon, Environment, Error, Output, Result, Sandbox, command,
    harness::{Verdict, note},
};

use super::place::Place;

/// How long the version for every day goes on, and the long one.
pub(super) const SHORT_S: u64 = 6;
pub(super) const LONG_S: u64 = 600;

/// Clients at once.
const CLIENTS: u64 = 4;

/// The longest life of a daemon in milliseconds: enough for some commands each.
const LIFE_MS_MAX: u64 = 400;

/// How often a client tries to connect to a daemon that is being started, and how long it pauses.
const ATTEMPTS_MAX: u32 = 3000;
const PAUSE_MS: u64 = 10;

/// Numbers that look random, the same in every run: xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// `rc` for a thread of its own.
struct Client<'a> {
    rc: PathBuf,
    variables: BTreeMap<String, String>,
    random: Random,
    number: u64,
    done: &'a AtomicU64,
}

impl Client<'_> {
    fn new<'a>(sandbox: &Sandbox, number: u64, done: &'a AtomicU64) -> Client<'a> {
        Client {
            rc: sandbox.bin.join("rc"),
            variables: sandbox.variables(),
            random: Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1)),
            number,
            done,
        }
    }

    /// Runs `rc`, again as long as there is nobody to connect to.
    fn rc(&self, arguments: &[&str]) -> Result<Output> {
        for _ in 0..ATTEMPTS_MAX {
            let mut rc = Command::new(&self.rc);
            rc.env_clear().envs(&self.variables).args(arguments);
            let output = command::run(&mut rc)?;
            if output.code == 0 || !output.stderr.contains("cannot connect to rcd") {
                return Ok(output);
            }
            thread::sleep(Duration::from_millis(PAUSE_MS));
        }
        Err(Error::Missing("the daemon does not come back".into()))
    }

    fn exists(&self, name: &str) -> Result<bool> {
        let output = self.rc(&["inspect", name])?;
        match output.stderr.to_lowercase().contains("no such") {
            true => Ok(false),
            false => output.success().map(|_| true),
        }
    }

    /// One round in the life of a container.
    fn round(&mut self, round: u64) -> Verdict {
        let name = format!("n{}-{round}", self.number);
        match self.random.below(3) {
            0 => self.foreground(&name)?,
            1 => self.background(&name)?,
            _ => self.by_hand(&name)?,
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// `run --rm`: all output and the exit code, or a word that it is not known.
    fn foreground(&mut self, name: &str) -> Verdict {
        let code = i32::try_from(self.random.below(100)).unwrap_or(0);
        let script = format!("seq 1 300; exit {code}");
        let output = self.rc(&[
            "run", "--rm", "--name", name, "busybox", "sh", "-c", &script,
        ])?;
        if output.code == code {
            crate::support::assert_counted(&output.stdout, 300);
        } else {
            assert_eq!(output.code, 125, "{}{}", output.stdout, output.stderr);
            assert!(output.stderr.contains("rcd"), "{}", output.stderr);
            self.gone(name)?;
        }
        Ok(())
    }

    /// `run -d`, `exec`, `stop`, `rm`.
    fn background(&mut self, name: &str) -> Verdict {
        let run = self.rc(&["run", "-d", "--name", name, "busybox", "sleep", "1000"])?;
        if run.code == 0 {
            let state = self.rc(&["inspect", "--format", "{{.State.Status}}", name])?;
            assert_eq!(state.success()?, "running", "{name}");
            self.rc(&["exec", name, "true"])?;
            self.rc(&["stop", "-t", "0", name])?.success()?;
            let wait = self.rc(&["wait", name])?;
            assert_eq!(wait.success()?, "137", "{name}");
        }
        self.gone(name)
    }

    /// `create`, `start -a`, `logs`, `rm`.
    fn by_hand(&mut self, name: &str) -> Verdict {
        let script = "seq 1 300; exit 3";
        let create = self.rc(&["create", "--name", name, "busybox", "sh", "-c", script])?;
        if create.code == 0 {
            assert!(self.exists(name)?, "{name} was acknowledged");
            self.rc(&["start", name])?.success()?;
            assert_eq!(self.rc(&["wait", name])?.success()?, "3", "{name}");
            let logs = self.rc(&["logs", name])?;
            crate::support::assert_counted(&logs.success()?, 300);
        }
        self.gone(name)
    }

    /// Removes what there is, and looks that it is gone.
    fn gone(&self, name: &str) -> Verdict {
        self.rc(&["rm", "-f", name])?.success()?;
        assert!(
            !self.exists(name)?,
            "the removal of {name} was acknowledged"
        );
        Ok(())
    }
}

pub(super) fn run(environment: &Environment, seconds: u64) -> Verdict {
    let mut place = Place::new(environment, false)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| Client::new(place.rcd.sandbox(), number, &done))
        .collect();
    let mut random = Random(7);
    let mut deaths = 0;
    let verdict = thread::scope(|scope| {
        let over = &over;
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let mut rounds = 0..;
                    while let Some(round) = rounds.next().filter(|_| !over.load(Ordering::Relaxed))
                    {
                        client.round(round)?;
                    }
                    Ok::<(), Error>(())
                })
            })
            .collect();
        let mut killed = Ok(());
        while Instant::now() < end && killed.is_ok() && !threads.iter().any(|one| one.is_finished())
        {
            thread::sleep(Duration::from_millis(random.below(LIFE_MS_MAX)));
            killed = place.rcd.kill_daemon();
            deaths += 1;
        }
        over.store(true, Ordering::Relaxed);
        let ended = threads.into_iter().map(|one| one.join());
        let ended: Vec<_> = ended.collect();
        killed.and(ended.into_iter().try_for_each(|one| {
            one.unwrap_or_else(|_| Err(Error::Missing("a client panicked".into())))
        }))
    });
    note(&format!(
        "{deaths} deaths, {} rounds",
        done.load(Ordering::Relaxed)
    ));
    verdict?;
    place.settle()?;
    assert_eq!(place.rcd.rc_ok(&["ps", "-aq"])?, "");
    place.clear()
}
