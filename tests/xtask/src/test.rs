//! `cargo xtask test`: format, lints, tidy, unit tests, end-to-end tests, one closing line.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;
use rcd_tests::{
    Environment, Error, Result,
    harness::{Tally, libtest_tally},
};
use serde_json::{Value, json};

use crate::{Outcome, build, checks, host, packages};

/// What to run.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Also what is too long for CI
    #[arg(long)]
    long: bool,
    /// Only tests of this package; leaves format and lints out
    #[arg(short, long)]
    package: Vec<String>,
    /// Only tests whose names contain this; leaves format and lints out
    filter: Option<String>,
}

/// The same for the ordinary user's part.
#[derive(Args)]
pub(crate) struct InnerOptions {
    /// List of executables
    list: PathBuf,
    #[arg(long)]
    long: bool,
    #[arg(long)]
    filter: Option<String>,
}

/// Runs everything; the exit code is 1 if anything failed.
pub(crate) fn run(options: &Options) -> Outcome {
    let mut sound = true;
    if options.filter.is_none() && options.package.is_empty() {
        sound = checks::all()?;
    }
    let programs = build::programs(false)?;
    let (units, e2e) = build::tests(&options.package)?;
    let list = env::temp_dir().join(format!("rcd-tests-{}.json", std::process::id()));
    write_list(&list, &units, e2e.as_deref())?;
    let mut arguments = vec!["test".to_owned(), list.to_string_lossy().into_owned()];
    if options.long {
        arguments.push("--long".into());
    }
    if let Some(filter) = &options.filter {
        arguments.extend(["--filter".into(), filter.clone()]);
    }
    let code = host::enter(&programs, &arguments, &[&packages::NEEDED]);
    fs::remove_file(&list).ok();
    let code = code?;
    if !sound {
        println!("format, lints or tidy failed; see above");
    }
    Ok(if sound { code } else { code.max(1) })
}

fn write_list(list: &Path, units: &[build::TestBinary], e2e: Option<&Path>) -> Result<()> {
    let units: Vec<Value> = units
        .iter()
        .map(|unit| json!({"name": unit.name, "executable": unit.executable, "package": unit.package}))
        .collect();
    let text = json!({"units": units, "e2e": e2e}).to_string();
    rcd_tests::environment::write(list, &text)
}

/// Runs the listed executables as the ordinary user.
pub(crate) fn inside(environment: &Environment, options: &InnerOptions) -> Outcome {
    let what = format!("read {}", options.list.display());
    let text = fs::read_to_string(&options.list).map_err(Error::io(what))?;
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut tally = Tally::default();
    for unit in list["units"].as_array().into_iter().flatten() {
        let text = |name: &str| unit[name].as_str().unwrap_or_default();
        println!("\n== {}", text("name"));
        let mut command = Command::new(text("executable"));
        command.env("CARGO_MANIFEST_DIR", text("package"));
        let package = Path::new(text("package"));
        command.current_dir(if package.is_dir() {
            package
        } else {
            &environment.work
        });
        if options.long {
            command.arg("--include-ignored");
        }
        tally.add(&run_binary(command.args(&options.filter), text("name"))?);
    }
    let Some(e2e) = list["e2e"].as_str() else {
        println!("\n{}", tally.line());
        return Ok(u8::from(tally.failed > 0));
    };
    println!("\n== end to end");
    let mut command = Command::new(e2e);
    command
        .args(options.long.then_some("--long"))
        .args(&options.filter);
    if let Some(cgroup) = &environment.cgroup {
        command.env(rcd_tests::environment::CGROUP_VARIABLE, cgroup);
    }
    tally.add(&run_binary(&mut command, "end to end")?);
    println!("\n{}", tally.line());
    Ok(u8::from(tally.failed > 0))
}

/// Runs one executable, shows what it prints, and counts its tests. One that died, or failed
/// without saying so, counts as one failure.
fn run_binary(command: &mut Command, name: &str) -> Result<Tally> {
    use std::io::{BufRead, BufReader};
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("run {name}")))?;
    let mut output = String::new();
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|pipe| BufReader::new(pipe).split(b'\n'))
    {
        let line = line.map_err(Error::io(format!("read from {name}")))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    let status = child
        .wait()
        .map_err(Error::io(format!("wait for {name}")))?;
    let mut tally = libtest_tally(&output).unwrap_or_default();
    if !status.success() && tally.failed == 0 {
        println!("{name} ended with {status}");
        tally.failed = 1;
    }
    Ok(tally)
}
