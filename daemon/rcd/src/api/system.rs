//! `io.rcd.System`: the daemon and its host. Answers without an engine too, and then says why there
//! is none.

use std::fs::read_to_string;
use std::path::Path;

use nix::sys::utsname::uname;
use rcd_proto::Error;
use rcd_proto::api::{API_VERSION, SystemApi};
use rcd_proto::types::Empty;
use rcd_proto::types::system::{IdRange, InfoReply, Shortcoming, VersionReply};

use super::{Daemon, Facts, convert};
use crate::systemd;

/// Controllers that limits of containers need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl SystemApi for Daemon {
    async fn get_version(&self, _: Empty) -> Result<VersionReply, Error> {
        Ok(version(&self.facts))
    }

    async fn get_info(&self, _: Empty) -> Result<InfoReply, Error> {
        let facts = self.facts.clone();
        let host = tokio::task::spawn_blocking(move || host(&facts)).await;
        let mut host = host.map_err(|error| Error::Internal {
            message: format!("cannot look at the host: {error}"),
        })?;
        if self.facts.managed {
            add_systemd(&mut host).await;
        }
        Ok(match &self.engine {
            Ok(engine) => with_engine(host, engine),
            Err(reason) => without_engine(host, reason),
        })
    }

    async fn ping(&self, _: Empty) -> Result<Empty, Error> {
        Ok(Empty {})
    }
}

fn version(facts: &Facts) -> VersionReply {
    VersionReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_version: API_VERSION.to_owned(),
        holder_protocol: facts.holder_protocol.into(),
        os: "linux".to_owned(),
        arch: go_architecture(std::env::consts::ARCH).to_owned(),
        kernel: uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

/// What images call an architecture.
fn go_architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        same => same,
    }
}

/// Adds what the user's systemd says.
async fn add_systemd(info: &mut InfoReply) {
    let own = info.uid_map.iter().find(|range| range.container_id == 0);
    let Some(uid) = own.and_then(|range| u32::try_from(range.host_id).ok()) else {
        return;
    };
    let Some(systemd) = systemd::ask(uid).await else {
        return;
    };
    info.service_manager = format!("systemd {}", systemd.version);
    if !systemd.socket_enabled {
        info.shortcomings.push(Shortcoming {
            what: "rcd.socket is not enabled".to_owned(),
            effect: "after the next login, rc finds nobody to talk to".to_owned(),
            cure: "run: systemctl --user enable rcd.socket".to_owned(),
        });
    }
}

fn with_engine(mut info: InfoReply, engine: &rcd_engine::Engine) -> InfoReply {
    let containers = engine.containers();
    let running = containers
        .iter()
        .filter(|info| info.view.phase.is_live())
        .count();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let driver = engine.default_driver();
    info.containers_running = count(running);
    info.containers_stopped = count(containers.len() - running);
    info.images = count(engine.images().len());
    info.rootfs_driver = driver.driver.to_owned();
    info.rootfs_driver_reason = driver.reason.to_owned();
    info
}

fn without_engine(mut info: InfoReply, reason: &str) -> InfoReply {
    let shortcoming = Shortcoming {
        what: reason.to_owned(),
        effect: "no container or image can be used".to_owned(),
        cure: "remove the cause; rcd tries again every few seconds".to_owned(),
    };
    info.shortcomings.insert(0, shortcoming);
    info
}

/// What the kernel and the file system say; blocks.
fn host(facts: &Facts) -> InfoReply {
    let controllers = controllers(facts.cgroup.as_deref());
    InfoReply {
        version: version(facts),
        data_root: facts.data_root.to_string_lossy().into_owned(),
        run_root: facts.run_root.to_string_lossy().into_owned(),
        cgroup: facts
            .cgroup
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        shortcomings: shortcomings(facts, &controllers),
        cgroup_controllers: controllers,
        uid_map: id_map("/proc/self/uid_map"),
        gid_map: id_map("/proc/self/gid_map"),
        cpus: std::thread::available_parallelism()
            .map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
        memory_bytes: memory_bytes(&read_to_string("/proc/meminfo").unwrap_or_default()),
        daemon_pid: std::process::id().into(),
        holder_pid: facts.holder_pid.into(),
        service_manager: if facts.managed { "systemd" } else { "none" }.to_owned(),
        ..InfoReply::default()
    }
}

fn shortcomings(facts: &Facts, controllers: &[String]) -> Vec<Shortcoming> {
    let mut found = Vec::new();
    let mut add = |what: String, effect: &str, cure: &str| {
        found.push(Shortcoming {
            what,
            effect: effect.to_owned(),
            cure: cure.to_owned(),
        });
    };
    if !facts.managed {
        add(
            "rcd was not started by systemd".to_owned(),
            "nothing starts rcd again after a crash or a reboot",
            "install the units and run: systemctl --user enable --now rcd.socket",
        );
    }
    if facts.cgroup.is_none() {
        add(
            "no delegated cgroup".to_owned(),
            "containers cannot be limited or measured",
            "run the holder as a unit of systemd --user on a host with cgroup v2",
        );
    } else if let Some(missing) = missing(controllers) {
        add(
            format!("cgroup controllers that are not delegated: {missing}"),
            "limits of that kind are refused",
            "an administrator can add Delegate=cpu cpuset io memory pids in /etc/systemd/system/user@.service.d/delegate.conf",
        );
    }
    let lingers = |user: &String| Path::new("/var/lib/systemd/linger").join(user).exists();
    if facts.managed && !facts.user.as_ref().is_some_and(lingers) {
        add(
            "lingering is off for this user".to_owned(),
            "containers stop when you log out, and do not start with the machine",
            "run: loginctl enable-linger",
        );
    }
    found
}

fn missing(controllers: &[String]) -> Option<String> {
    let absent = |name: &&str| !controllers.iter().any(|controller| controller == name);
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(absent).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn controllers(cgroup: Option<&Path>) -> Vec<String> {
    let file = cgroup.map(|path| path.join("cgroup.controllers"));
    let text = file
        .and_then(|file| read_to_string(file).ok())
        .unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// A map of `user_namespaces(7)`: lines of inner id, outer id, length.
fn id_map(path: &str) -> Vec<IdRange> {
    let text = read_to_string(path).unwrap_or_default();
    text.lines().filter_map(id_range).collect()
}

fn id_range(line: &str) -> Option<IdRange> {
    let mut numbers = line.split_whitespace().map(str::parse::<i64>);
    Some(IdRange {
        container_id: numbers.next()?.ok()?,
        host_id: numbers.next()?.ok()?,
        size: numbers.next()?.ok()?,
    })
}

/// `MemTotal` of `/proc/meminfo` (`proc_meminfo(5)`), in bytes; 0 if it is not there.
fn memory_bytes(meminfo: &str) -> i64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    convert::int(kib.unwrap_or(0).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(
            memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            16_384
        );
        assert_eq!(memory_bytes("nonsense"), 0);
        let range = IdRange {
            container_id: 0,
            host_id: 1500,
            size: 1,
        };
        assert_eq!(id_range("         0       1500          1"), Some(range));
        assert_eq!(id_range("0 x 1"), None);
    }

    #[test]
    fn a_host_without_cgroups_says_so() {
        let found = host(&Facts::default()).shortcomings;
        assert!(
            found
                .iter()
                .any(|shortcoming| shortcoming.what.contains("cgroup"))
        );
        assert!(
            found
                .iter()
                .all(|s| !s.effect.is_empty() && !s.cure.is_empty())
        );
        assert_eq!(
            missing(&["cpu".into(), "memory".into(), "pids".into()]),
            None
        );
        assert_eq!(missing(&["cpu".into()]).as_deref(), Some("memory, pids"));
    }
}
