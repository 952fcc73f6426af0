//! Builds with cargo, and finds what it built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rcd_tests::{Error, Result, units::PROGRAMS};
use serde_json::Value;

/// A test executable of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct TestBinary {
    /// Package and target, for people.
    pub(crate) name: String,
    /// The executable.
    pub(crate) executable: PathBuf,
    /// Folder of its package, where cargo would run it.
    pub(crate) package: PathBuf,
}

/// The checkout's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// A cargo command in the checkout, with the toolchain that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Builds the programs; yields the folder that they are in.
pub(crate) fn programs(release: bool) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--message-format=json-render-diagnostics"]);
    build.args(["-p", "rcd-client", "-p", "rcd", "-p", "rcd-init", "--bins"]);
    if release {
        build.arg("--release");
    }
    let artifacts = artifacts(&mut build)?;
    let rcd = artifacts
        .iter()
        .filter_map(|artifact| artifact["executable"].as_str());
    let folder = rcd.filter_map(|path| Path::new(path).parent()).next_back();
    folder
        .map(Path::to_owned)
        .ok_or_else(|| Error::Missing("cargo built no program".into()))
}

/// Builds all tests, or those of some packages; yields unit tests and the end-to-end tests'
/// executable.
pub(crate) fn tests(packages: &[String]) -> Result<(Vec<TestBinary>, Option<PathBuf>)> {
    let mut build = cargo();
    build.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    if packages.is_empty() {
        build.arg("--workspace");
    }
    for package in packages {
        build.args(["-p", package]);
    }
    let mut units = Vec::new();
    let mut e2e = None;
    for artifact in artifacts(&mut build)? {
        let Some(executable) = artifact["executable"].as_str() else {
            continue;
        };
        if artifact["profile"]["test"] != true {
            continue;
        }
        let manifest = Path::new(artifact["manifest_path"].as_str().unwrap_or_default());
        let package = manifest.parent().unwrap_or(manifest).to_owned();
        let target = artifact["target"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if target == "e2e" {
            e2e = Some(PathBuf::from(executable));
            continue;
        }
        let kind = artifact["target"]["kind"][0].as_str().unwrap_or_default();
        let name = format!("{target} ({kind})");
        units.push(TestBinary {
            name,
            executable: executable.into(),
            package,
        });
    }
    units.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((units, e2e))
}

fn artifacts(command: &mut Command) -> Result<Vec<Value>> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let output = output
        .spawn()
        .and_then(std::process::Child::wait_with_output);
    let output = output.map_err(Error::io("run cargo"))?;
    if !output.status.success() {
        return Err(Error::Missing("the build failed".into()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages
        .filter(|message| message["reason"] == "compiler-artifact")
        .collect())
}

/// Puts the programs into a folder where no build replaces them while tests run: as hard links
/// where possible.
pub(crate) fn stage(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io(format!("make {}", to.display())))?;
    for program in PROGRAMS {
        let (source, target) = (from.join(program), to.join(program));
        fs::hard_link(&source, &target)
            .or_else(|_| fs::copy(&source, &target).map(drop))
            .map_err(Error::io(format!("stage {}", source.display())))?;
    }
    Ok(())
}
