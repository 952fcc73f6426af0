//! Options to an OCI runtime spec, with Docker's defaults.
//!
//! The spec is what `rc inspect` and other tools may look at; [`crate::plan`] compiles it for the
//! child. Sources of the defaults: moby `oci/defaults.go` (mounts, masked and read-only paths),
//! `oci/caps/defaults.go`, and for a host network podman's replacement of sysfs by a bind of the
//! host's `/sys`, because a mount of sysfs needs a network namespace of one's own.
//!
//! What OCI has no place for travels in [`crate::plan::Extras`]: overlay layers, creation of the
//! working directory, group names. Not set here: rlimits and `oom_score_adj`, which are inherited
//! (an ordinary user may raise neither), and seccomp, whose default is compiled once.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, Capabilities, Linux, LinuxCapabilities, LinuxNamespace,
    LinuxNamespaceType, Mount, Process, Root, Spec, User,
};

use crate::caps;
use crate::options::{BindOptions, ContainerOptions, Network, ProcessOptions};

/// Version of the runtime specification that the result follows.
const OCI_VERSION: &str = "1.0.2";

/// Docker's `/dev/shm`: 64 MiB.
const SHM_SIZE_OPTION: &str = "size=67108864";

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Default mounts: target, type, source, options. `strictatime`, which Docker gives `/dev`, only
/// changes access times of a tmpfs and is left out.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "mode=755", "size=65536k"],
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    ),
    (
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", "ro"],
    ),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["ro", "nosuid", "noexec", "nodev"],
    ),
    (
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ),
    (
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", SHM_SIZE_OPTION],
    ),
];

/// The spec of a container.
pub fn spec(o: &ContainerOptions) -> Spec {
    let mut root = Root::default();
    // The layers travel beside the spec; this is where a bundle would have them merged.
    root.set_path("rootfs".into())
        .set_readonly(Some(o.readonly_root));

    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(o.network)))
        .set_masked_paths(Some(masked_paths()))
        .set_readonly_paths(Some(READONLY_PATHS.map(str::to_owned).to_vec()))
        .set_resources(None)
        .set_cgroups_path(Some(Path::new("/").join(&o.id)));

    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts(o)))
        .set_process(Some(process(&o.process)))
        .set_hostname(Some(o.hostname.clone()))
        .set_annotations(None)
        .set_linux(Some(linux));
    spec
}

/// The spec's `process`, also used for an exec.
pub fn process(o: &ProcessOptions) -> Process {
    let mut process = Process::default();
    process
        .set_terminal(Some(o.terminal.is_some()))
        .set_console_size(o.terminal.and_then(console_size))
        .set_user(user(o))
        .set_args(Some(o.argv.clone()))
        .set_env(Some(o.env.clone()))
        .set_cwd(o.cwd.clone())
        .set_capabilities(Some(capabilities()))
        .set_rlimits(None)
        .set_no_new_privileges(Some(false));
    process
}

fn namespaces(network: Network) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Pid, Uts};
    let mut types = vec![Mount, Cgroup, Uts, Ipc, Pid];
    if network == Network::None {
        types.push(LinuxNamespaceType::Network);
    }
    types
        .into_iter()
        .map(|typ| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(typ);
            namespace
        })
        .collect()
}

/// The default mounts that no bind replaces, then the files of `/etc`, then the binds; all ordered
/// by depth, so that a mount never hides one that was made before it.
fn mounts(o: &ContainerOptions) -> Vec<Mount> {
    let bound = |target: &Path| o.binds.iter().any(|b| b.target == target);
    let mut mounts: Vec<Mount> = Vec::with_capacity(MOUNTS.len() + 3 + o.binds.len());
    for (target, typ, source, options) in MOUNTS {
        if bound(Path::new(target)) {
            continue;
        }
        mounts.push(if target == "/sys" && o.network == Network::Host {
            host_sysfs()
        } else {
            mount(Path::new(target), typ, Path::new(source), options)
        });
    }
    let etc = [
        ("/etc/resolv.conf", &o.files.resolv_conf),
        ("/etc/hostname", &o.files.hostname),
        ("/etc/hosts", &o.files.hosts),
    ];
    for (target, source) in etc {
        if !bound(Path::new(target)) {
            let access = if o.readonly_root { "ro" } else { "rw" };
            mounts.push(mount(
                Path::new(target),
                "bind",
                source,
                &["bind", "rprivate", access],
            ));
        }
    }
    mounts.extend(o.binds.iter().map(bind));
    mounts.sort_by_key(|m| m.destination().components().count());
    mounts
}

fn mount(target: &Path, typ: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.to_owned())
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(|&o| o.to_owned()).collect()));
    mount
}

fn host_sysfs() -> Mount {
    let options = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"];
    mount(Path::new("/sys"), "bind", Path::new("/sys"), &options)
}

fn bind(o: &BindOptions) -> Mount {
    let (kind, ro) = if o.recursive {
        ("rbind", "rro")
    } else {
        ("bind", "ro")
    };
    let access = if o.read_only { ro } else { "rw" };
    mount(&o.target, "bind", &o.source, &[kind, "rprivate", access])
}

/// Docker's masked paths, and the per-processor `thermal_throttle` directories that this host has:
/// like `/proc/interrupts` they tell one container what another computes (GHSA-6fw5-f8r9-fgfm).
fn masked_paths() -> Vec<String> {
    static THERMAL: LazyLock<Vec<String>> = LazyLock::new(|| {
        let entries = std::fs::read_dir("/sys/devices/system/cpu")
            .into_iter()
            .flatten()
            .flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|e| e.path().join("thermal_throttle"))
            .filter(|path| path.is_dir())
            .collect();
        paths.sort();
        paths
            .into_iter()
            .filter_map(|p| p.into_os_string().into_string().ok())
            .collect()
    });
    MASKED_PATHS
        .iter()
        .map(|&p| p.to_owned())
        .chain(THERMAL.iter().cloned())
        .collect()
}

fn console_size((rows, columns): (u16, u16)) -> Option<ConsoleSize> {
    BoxBuilder::default()
        .height(rows)
        .width(columns)
        .build()
        .ok()
}

/// The user's text goes to `username`, to be looked up in the image when the process starts; ids
/// are filled in where the text has them. Empty is uid 0, with the groups that the image gives it.
fn user(o: &ProcessOptions) -> User {
    let text = if o.user.is_empty() { "0" } else { &o.user };
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    let groups: Vec<u32> = o.groups.iter().filter_map(|g| g.parse().ok()).collect();
    let mut user = User::default();
    user.set_uid(uid.parse().unwrap_or(0))
        .set_gid(gid.parse().unwrap_or(0))
        .set_additional_gids((!groups.is_empty()).then_some(groups))
        .set_username(Some(text.to_owned()));
    user
}

/// As Docker since 20.10.14: nothing inheritable or ambient.
fn capabilities() -> LinuxCapabilities {
    let set: Capabilities = caps::DEFAULT.into_iter().collect();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    capabilities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::container;

    fn targets(o: &ContainerOptions) -> Vec<String> {
        mounts(o)
            .iter()
            .map(|m| m.destination().display().to_string())
            .collect()
    }

    fn options_of(o: &ContainerOptions, target: &str) -> (String, Vec<String>) {
        let mounts = mounts(o);
        let mount = mounts
            .iter()
            .find(|m| m.destination() == Path::new(target))
            .unwrap();
        (
            mount.typ().clone().unwrap(),
            mount.options().clone().unwrap(),
        )
    }

    #[test]
    fn mounts_are_ordered_by_depth() {
        let mut o = container();
        o.binds.push(BindOptions {
            source: "/srv".into(),
            target: "/etc".into(),
            read_only: false,
            recursive: true,
        });
        assert_eq!(
            targets(&o),
            [
                "/proc",
                "/dev",
                "/sys",
                "/etc",
                "/dev/pts",
                "/dev/mqueue",
                "/dev/shm",
                "/etc/resolv.conf",
                "/etc/hostname",
                "/etc/hosts",
                "/sys/fs/cgroup",
            ]
        );
    }

    #[test]
    fn a_bind_replaces_the_default_mount_of_its_target() {
        let mut o = container();
        for target in ["/dev/shm", "/etc/hosts"] {
            o.binds.push(BindOptions {
                source: "/srv/x".into(),
                target: target.into(),
                read_only: true,
                recursive: true,
            });
        }
        for target in ["/dev/shm", "/etc/hosts"] {
            assert_eq!(targets(&o).iter().filter(|t| *t == target).count(), 1);
            assert_eq!(options_of(&o, target).1, ["rbind", "rprivate", "rro"]);
        }
    }

    #[test]
    fn a_host_network_has_no_namespace_and_binds_sysfs() {
        let mut o = container();
        o.network = Network::Host;
        let spec = spec(&o);
        let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        assert!(
            namespaces
                .iter()
                .all(|n| n.typ() != LinuxNamespaceType::Network)
        );
        assert_eq!(options_of(&o, "/sys").0, "bind");
        o.network = Network::None;
        assert_eq!(options_of(&o, "/sys").0, "sysfs");
    }

    #[test]
    fn a_readonly_root_makes_the_files_of_etc_readonly() {
        let mut o = container();
        o.readonly_root = true;
        assert_eq!(options_of(&o, "/etc/hosts").1, ["bind", "rprivate", "ro"]);
    }

    #[test]
    fn users_keep_their_text_and_fill_in_ids() {
        let cases = [
            ("", 0, 0, "0"),
            ("www-data", 0, 0, "www-data"),
            ("1000", 1000, 0, "1000"),
            ("1000:50", 1000, 50, "1000:50"),
            ("app:50", 0, 50, "app:50"),
        ];
        for (text, uid, gid, name) in cases {
            let mut o = container().process;
            o.user = text.into();
            let user = user(&o);
            assert_eq!((user.uid(), user.gid()), (uid, gid), "{text}");
            assert_eq!(user.username().as_deref(), Some(name), "{text}");
        }
    }

    #[test]
    fn the_spec_survives_json() {
        let spec = spec(&container());
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }
}
