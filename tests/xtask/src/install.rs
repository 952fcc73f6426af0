//! `cargo xtask install` and `uninstall`, for the user or for all users.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;
use nix::unistd::Uid;
use rcd_tests::{Error, Result, command, units};

use crate::{Outcome, build};

/// Where to.
#[derive(Args)]
pub(crate) struct Options {
    /// For all users: /usr/local/bin and /etc/systemd/user (needs root)
    #[arg(long, conflicts_with = "user")]
    system: bool,
    /// For this user (the default): PREFIX/bin, and the user's systemd units
    #[arg(long, value_name = "PREFIX", num_args = 0..=1, default_missing_value = "")]
    user: Option<String>,
}

struct Places {
    bin: PathBuf,
    units: PathBuf,
    /// Options of systemctl that reach the manager or the preset directory concerned.
    scope: &'static str,
}

impl Options {
    fn places(&self) -> Result<Places> {
        if self.system {
            let (bin, units) = ("/usr/local/bin".into(), "/etc/systemd/user".into());
            return Ok(Places {
                bin,
                units,
                scope: "--global",
            });
        }
        if Uid::effective().is_root() {
            let text = "root does not run rcd: install it as an ordinary user, or with --system";
            return Err(Error::Missing(text.into()));
        }
        let home = env::var_os("HOME").map(PathBuf::from);
        let home = home.ok_or_else(|| Error::Missing("HOME is not set".into()))?;
        let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let prefix = match self.user.as_deref() {
            Some(prefix) if !prefix.is_empty() => {
                std::path::absolute(prefix).map_err(Error::io("resolve the prefix"))?
            }
            _ => home.join(".local"),
        };
        let units = config
            .unwrap_or_else(|| home.join(".config"))
            .join("systemd/user");
        Ok(Places {
            bin: prefix.join("bin"),
            units,
            scope: "--user",
        })
    }
}

/// Installs.
pub(crate) fn install(options: &Options) -> Outcome {
    let places = options.places()?;
    let programs = build::programs(true)?;
    units::install_programs(&programs, &places.bin)?;
    units::install_units(&places.units, &places.bin)?;
    systemctl(places.scope, &["daemon-reload"]);
    systemctl(places.scope, &["enable", "rcd.socket"]);
    println!(
        "programs in {}, units in {}",
        places.bin.display(),
        places.units.display()
    );
    if places.scope == "--user" {
        systemctl("--user", &["start", "rcd.socket"]);
        println!("ready: the first `rc` command starts rcd");
        warn_about_path(&places.bin);
    } else {
        println!("ready for every user from the next login on");
    }
    Ok(0)
}

/// Uninstalls. Containers are stopped; images and stopped containers stay in the data directory.
pub(crate) fn uninstall(options: &Options) -> Outcome {
    let places = options.places()?;
    if places.scope == "--user" {
        let all = ["stop", "rcd.socket", "rcd.service", "rcd-holder.service"];
        systemctl("--user", &all);
    }
    systemctl(places.scope, &["disable", "rcd.socket", "rcd.service"]);
    let count = units::uninstall(&places.units, &places.bin);
    systemctl(places.scope, &["daemon-reload"]);
    println!("{count} files removed; images and containers stay in the data directory");
    Ok(0)
}

/// Without a manager there is nothing to tell; the files are in place all the same.
fn systemctl(scope: &str, arguments: &[&str]) {
    if scope == "--global" && arguments == ["daemon-reload"] {
        return;
    }
    match command::run(Command::new("systemctl").arg(scope).args(arguments)) {
        Ok(output) if output.code == 0 => {}
        Ok(output) => eprintln!("{}: {}", output.command, output.stderr.trim()),
        Err(error) => eprintln!("{}", error.chain()),
    }
}

fn warn_about_path(bin: &Path) {
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder == bin) {
        println!("note: {} is not in PATH", bin.display());
    }
}
