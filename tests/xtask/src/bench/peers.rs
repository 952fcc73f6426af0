//! Who is measured: rcd, podman with a storage of its own, and crun with a bundle that describes
//! the container that rcd makes.
//!
//! The bundle's spec is printed by rcd's own code (the example `spec` of `daemon/runtime`); added
//! here is what rcd has in its holder and crun makes at each run: the user namespace with the user's
//! whole subordinate range. What an OCI spec cannot say stays different, in crun's favour: its `/`
//! is a plain directory, where rcd mounts an overlay and keeps the output in a log.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Gid, Uid};
use rcd_tests::{Daemon, Environment, Error, Result, Sandbox, Service, command::check, image};
use serde_json::{Value, json};

/// Where cgroup2 is mounted; a spec's cgroup path begins there.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Files of `/etc` that rcd makes for each container and binds; a bundle has one set of them.
const ETC: [(&str, &str); 3] = [
    ("resolv.conf", "nameserver 127.0.0.1\n"),
    ("hostname", "bench\n"),
    ("hosts", "127.0.0.1\tlocalhost\n"),
];

/// Prints what a container can see of how it was set up, in an order that does not depend on who
/// did it: capabilities and filters, id maps, environment, namespaces, mounts. Flags of mounts are
/// left out: each runtime adds some of its own to device nodes and masks.
const LOOK: &str = r#"
grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status
sed 's/^/uid map/' /proc/self/uid_map; sed 's/^/gid map/' /proc/self/gid_map
env | sort; hostname | sed 's/^/hostname /'
ls /proc/self/ns | sed 's/^/namespace /'
while read -r source target type rest; do
    test "$target" = / && type=root
    echo "mount $target $type"
done </proc/mounts | sort"#;

/// Seccomp profile of a bundle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filter {
    /// The one that rcd's containers have.
    Default,
    /// None.
    None,
}

/// The candidates, ready to work.
pub(super) struct Peers {
    pub(super) rcd: Service,
    spec: PathBuf,
    cgroup: Option<String>,
}

impl Peers {
    /// Starts rcd and gives everybody the image.
    pub(super) fn start(environment: &Environment, spec: &Path) -> Result<Self> {
        let rcd = Service::start(environment)?;
        let tar = image::busybox_tar(&environment.cache)?;
        rcd.rc_ok(&["import", &tar.to_string_lossy(), "busybox:latest"])?;
        let cgroup = environment.cgroup.as_ref().and_then(|cgroup| {
            let below = cgroup.strip_prefix(CGROUP_ROOT).ok()?;
            Some(format!("/{}/crun", below.display()))
        });
        let peers = Self {
            rcd,
            spec: spec.to_owned(),
            cgroup,
        };
        let rootfs = peers.bundle("true").join("rootfs");
        fs::create_dir_all(&rootfs).map_err(Error::io("make a bundle"))?;
        let mut unpack = Command::new("tar");
        check(unpack.arg("-xf").arg(&tar).arg("-C").arg(&rootfs))?;
        for (name, content) in ETC {
            let file = peers.home().join("bundles/etc").join(name);
            rcd_tests::environment::write(&file, content)?;
        }
        peers.make_bundle("true", &["true"], Filter::Default)?;
        peers.make_bundle("unfiltered", &["true"], Filter::None)?;
        peers.make_bundle("look", &["sh", "-c", LOOK], Filter::Default)?;
        peers.podman(&["import", "-q", &tar.to_string_lossy(), "busybox:latest"])?;
        Ok(peers)
    }

    /// What podman keeps has owners that only podman's namespace may remove.
    pub(super) fn end(&self) -> Result<()> {
        self.podman(&["rm", "-fa", "-t", "0"])?;
        self.podman(&["rmi", "-fa"]).map(drop)
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        self.rcd.sandbox()
    }

    /// Folder of everybody's data, on one file system.
    pub(super) fn home(&self) -> &Path {
        &self.sandbox().home
    }

    pub(super) fn rc_command(&self, arguments: &[&str]) -> Command {
        self.sandbox().rc_command(arguments)
    }

    pub(super) fn podman_command(&self, arguments: &[&str]) -> Command {
        let mut podman = self.sandbox().command("podman");
        podman
            .arg("--root")
            .arg(self.home().join("podman/root"))
            .arg("--runroot")
            .arg(self.sandbox().runtime.join("podman"))
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(arguments);
        podman
    }

    pub(super) fn podman(&self, arguments: &[&str]) -> Result<String> {
        check(&mut self.podman_command(arguments))
    }

    /// `crun run` of a bundle, with a cgroup of its own like rcd's where one is delegated.
    fn crun_command(&self, bundle: &str) -> Command {
        let mut crun = self.sandbox().command("crun");
        let manager = match self.cgroup {
            Some(_) => "cgroupfs",
            None => "disabled",
        };
        crun.args(["--cgroup-manager", manager, "--root"])
            .arg(self.sandbox().runtime.join("crun"))
            .args(["run", "--bundle"])
            .arg(self.bundle(bundle))
            .arg("bench");
        crun
    }

    pub(super) fn rc_true(&self) -> Command {
        self.rc_command(&["run", "--rm", "--network", "none", "busybox", "true"])
    }

    pub(super) fn podman_true(&self) -> Command {
        self.podman_command(&["run", "--rm", "--network", "none", "busybox", "true"])
    }

    pub(super) fn crun_true(&self) -> Command {
        self.crun_command("true")
    }

    /// The same without a seccomp profile: less than what rcd does.
    pub(super) fn crun_unfiltered_true(&self) -> Command {
        self.crun_command("unfiltered")
    }

    /// In what crun's container is set up otherwise than rcd's, line by line.
    pub(super) fn differences(&self) -> Result<Vec<String>> {
        let run = ["run", "--rm", "--network", "none", "-h", "bench", "busybox"];
        let rcd = [&run[..], &["sh", "-c", LOOK]].concat();
        let rcd = check(&mut self.rc_command(&rcd))?;
        let crun = check(&mut self.crun_command("look"))?;
        Ok(differences(&rcd, &crun))
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.home().join("bundles").join(name)
    }

    /// Writes a bundle that runs `argv`; the root file system is that of the bundle `true`.
    fn make_bundle(&self, name: &str, argv: &[&str], filter: Filter) -> Result<()> {
        let mut print = self.sandbox().command(&self.spec);
        print
            .arg("bench")
            .arg(self.home().join("bundles/etc"))
            .args(argv);
        let text = check(&mut print)?;
        let mut spec: Value = serde_json::from_str(&text).unwrap_or_default();
        spec["root"]["path"] = json!(self.bundle("true").join("rootfs"));
        let linux = &mut spec["linux"];
        if let Some(namespaces) = linux["namespaces"].as_array_mut() {
            namespaces.push(json!({"type": "user"}));
        }
        linux["uidMappings"] = mappings(Uid::current().as_raw(), &[])?;
        linux["gidMappings"] = mappings(Gid::current().as_raw(), &["-g"])?;
        linux["cgroupsPath"] = json!(self.cgroup);
        if filter == Filter::None {
            linux["seccomp"] = Value::Null;
        }
        let config = self.bundle(name).join("config.json");
        rcd_tests::environment::write(&config, &spec.to_string())
    }
}

/// The user's own id as 0, and his subordinate ranges from 1 on: what the holder maps.
fn mappings(own: u32, kind: &[&str]) -> Result<Value> {
    let name = std::env::var("USER").unwrap_or_default();
    let text = check(Command::new("getsubids").args(kind).arg(&name))?;
    let mut maps = vec![json!({"containerID": 0, "hostID": own, "size": 1})];
    let mut next: u64 = 1;
    for (first, size) in text.lines().filter_map(range) {
        maps.push(json!({"containerID": next, "hostID": first, "size": size}));
        next += size;
    }
    Ok(maps.into())
}

/// `0: user 100000 65536`, as getsubids prints it.
fn range(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace().rev();
    let size = fields.next()?.parse().ok()?;
    Some((fields.next()?.parse().ok()?, size))
}

/// Lines that only one of two texts has, with who has them.
fn differences(rcd: &str, crun: &str) -> Vec<String> {
    let only = |who: &str, text: &str, other: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !other.lines().any(|o| o == *line));
        lines.map(|line| format!("only {who}: {line}")).collect()
    };
    [only("rcd", rcd, crun), only("crun", crun, rcd)].concat()
}

#[cfg(test)]
mod tests {
    use super::{differences, range};

    #[test]
    fn ranges_are_read() {
        assert_eq!(range("0: alice 100000 65536"), Some((100_000, 65_536)));
        assert_eq!(range("Error fetching ranges"), None);
    }

    #[test]
    fn differing_lines_are_found_on_both_sides() {
        assert_eq!(
            differences("a\nb\n", "b\nc\n"),
            ["only rcd: a", "only crun: c"]
        );
        assert!(differences("a\nb\n", "b\na\n").is_empty());
    }
}
