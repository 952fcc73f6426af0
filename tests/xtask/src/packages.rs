//! Debian packages that tests, demo and benchmarks need.

use std::process::Command;

use rcd_tests::{Error, Result, command, image::has_program};

/// What every task needs: a program or file that shows it is there, and its package.
pub(crate) const NEEDED: [(&str, &str); 11] = [
    ("newuidmap", "uidmap"),
    ("/usr/lib/systemd/user/dbus.socket", "dbus-user-session"),
    ("systemctl", "systemd"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("setsid", "util-linux"),
    ("zstd", "zstd"),
    ("stty", "coreutils"),
    ("dpkg-deb", "dpkg"),
];

/// What benchmarks need besides.
pub(crate) const PEERS: [(&str, &str); 2] = [("podman", "podman"), ("crun", "crun")];

/// Packages of a list that are missing.
pub(crate) fn missing(list: &[(&str, &'static str)]) -> Vec<&'static str> {
    let present = |mark: &str| match mark.starts_with('/') {
        true => std::path::Path::new(mark).exists(),
        false => has_program(mark),
    };
    list.iter()
        .filter(|(mark, _)| !present(mark))
        .map(|(_, package)| *package)
        .collect()
}

/// Installs what is missing, as root; an ordinary user is told what an administrator has to run.
pub(crate) fn ensure(list: &[(&str, &'static str)], root: bool) -> Result<()> {
    let missing = missing(list);
    if missing.is_empty() {
        return Ok(());
    }
    if !root {
        return Err(Error::Missing(format!(
            "packages are missing; an administrator has to run:\n    apt-get install {}",
            missing.join(" ")
        )));
    }
    println!("installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-y"])
            .args(arguments);
        let status = apt.stdout(std::process::Stdio::null()).status();
        let status = status.map_err(Error::io("run apt-get"))?;
        Ok(status.success())
    };
    let install: Vec<&str> = ["install", "--no-install-recommends"]
        .into_iter()
        .chain(missing.iter().copied())
        .collect();
    // Fresh machines have no package lists yet.
    let installed = apt(&install)? || (apt(&["update"])? && apt(&install)?);
    if !installed {
        return Err(Error::Missing(format!(
            "apt-get cannot install {}",
            missing.join(" ")
        )));
    }
    stop_started_registry();
    Ok(())
}

/// Debian starts a registry on port 5000 when its package is installed under a booted systemd.
fn stop_started_registry() {
    let mut disable = Command::new("systemctl");
    command::run(disable.args(["disable", "--now", "docker-registry.service"])).ok();
}
