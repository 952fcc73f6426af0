//! An OCI runtime spec to the plan that the child between `clone3` and `execve` follows.
//!
//! Pure: a spec and what OCI has no place for ([`Extras`]) in, a [`Plan`] and the namespaces to
//! make out. A field that this runtime cannot honour is refused by its name, never ignored; so is
//! a string that no system call could take. Sub-modules compile mounts and the process.

mod mounts;
mod process;

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Spec};
use rcd_init::plan::{InitPlan, Plan, Rootfs};

use crate::options::{ContainerOptions, ProcessOptions, RootfsOptions};
use crate::{Error, seccomp};

pub use process::compile as compile_process;

/// Device nodes that every container has (runtime specification, "Default Devices").
const DEFAULT_DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// `__NEW_UTS_LEN`, the longest host name in bytes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Prefixes and names of sysctls that the network namespace isolates.
const NET_SYSCTLS: &str = "net.";

/// Those that the IPC namespace isolates (`namespaces(7)`).
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "fs.mqueue.",
];

/// What a spec does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extras {
    /// The container's id; the spec's `cgroupsPath` may be `/<id>` or absent.
    pub id: String,
    /// Layers of the root; none takes the spec's `root.path` as a directory.
    pub layers: Option<RootfsOptions>,
    /// Take Docker's default filter where the spec has no `linux.seccomp`; it is compiled once for
    /// all containers, where a profile in each spec would be built and compared at each start.
    pub default_seccomp: bool,
    /// See [`ProcessExtras`].
    pub process: ProcessExtras,
    /// The highest group id of the user namespace. Where `tty`'s group 5 is not mapped, terminals
    /// belong to group 0.
    pub gid_max: u32,
}

/// What a spec's `process` does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessExtras {
    /// Make the working directory if it is missing.
    pub create_cwd: bool,
    /// Additional groups by name; numbers are in the spec.
    pub groups: Vec<String>,
}

/// A compiled spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// For the child.
    pub plan: Plan,
    /// `CLONE_NEW*` bits of the spec's namespaces.
    pub namespaces: u64,
}

impl Extras {
    /// The part of `o` that its spec leaves out.
    pub fn new(o: &ContainerOptions, gid_max: u32) -> Self {
        Self {
            id: o.id.clone(),
            layers: Some(o.rootfs.clone()),
            default_seccomp: true,
            process: ProcessExtras::new(&o.process),
            gid_max,
        }
    }
}

impl ProcessExtras {
    /// The part of `o` that its spec leaves out.
    pub fn new(o: &ProcessOptions) -> Self {
        let names = o.groups.iter().filter(|g| g.parse::<u32>().is_err());
        Self {
            create_cwd: o.create_cwd,
            groups: names.cloned().collect(),
        }
    }
}

/// Compiles a spec.
///
/// # Errors
/// [`Error::Unsupported`] and [`Error::Invalid`], naming the field.
pub fn compile(spec: &Spec, extras: &Extras) -> Result<Compiled, Error> {
    refuse_unsupported(spec)?;
    let linux = required(spec.linux().as_ref(), "linux")?;
    refuse_unsupported_linux(linux, &extras.id)?;
    let namespaces = namespaces(linux)?;
    let seccomp = match linux.seccomp() {
        Some(profile) => seccomp::compile(profile).map_err(|source| Error::Seccomp { source })?,
        None if extras.default_seccomp => seccomp::default_filter().to_vec(),
        None => Vec::new(),
    };
    let process = required(spec.process().as_ref(), "process")?;
    let root = required(spec.root().as_ref(), "root")?;
    let plan = InitPlan {
        hostname: hostname(spec, namespaces)?,
        rootfs: rootfs(root.path(), extras.layers.as_ref())?,
        readonly_root: root.readonly().unwrap_or(false),
        mounts: mounts::compile(spec.mounts().as_deref().unwrap_or_default(), extras.gid_max)?,
        devices: DEFAULT_DEVICES.map(str::to_owned).to_vec(),
        masked_paths: paths(linux.masked_paths().as_deref(), "linux.maskedPaths")?,
        readonly_paths: paths(linux.readonly_paths().as_deref(), "linux.readonlyPaths")?,
        sysctls: sysctls(linux, namespaces)?,
        process: process::with_filter(process, &extras.process, seccomp)?,
    };
    Ok(Compiled {
        plan: Plan::Init(Box::new(plan)),
        namespaces,
    })
}

/// Refuses each (field, is set) that is set.
fn refuse(fields: &[(&str, bool)]) -> Result<(), Error> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Error::Unsupported {
            field: (*field).to_owned(),
        }),
        None => Ok(()),
    }
}

fn is_set<T: Default + PartialEq>(value: &Option<T>) -> bool {
    value.as_ref().is_some_and(|v| *v != T::default())
}

fn refuse_unsupported(spec: &Spec) -> Result<(), Error> {
    if !spec.version().starts_with("1.") {
        return Err(Error::invalid(
            "ociVersion",
            format!("`{}` is not 1.x", spec.version()),
        ));
    }
    refuse(&[
        ("domainname", is_set(spec.domainname())),
        ("hooks", is_set(spec.hooks())),
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ])
}

fn refuse_unsupported_linux(linux: &Linux, id: &str) -> Result<(), Error> {
    let resources = linux.resources().as_ref().is_some_and(|r| !no_resources(r));
    refuse(&[
        ("linux.netDevices", is_set(linux.net_devices())),
        ("linux.uidMappings", is_set(linux.uid_mappings())),
        ("linux.gidMappings", is_set(linux.gid_mappings())),
        ("linux.resources", resources),
        ("linux.devices", is_set(linux.devices())),
        (
            "linux.rootfsPropagation",
            is_set(linux.rootfs_propagation()),
        ),
        ("linux.mountLabel", is_set(linux.mount_label())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.timeOffsets", is_set(linux.time_offsets())),
    ])?;
    match linux.cgroups_path() {
        Some(path) if *path != Path::new("/").join(id) => Err(Error::invalid(
            "linux.cgroupsPath",
            format!("only `/{id}` is supported"),
        )),
        _ => Ok(()),
    }
}

/// Whether all of `resources` is absent or empty.
fn no_resources(resources: &LinuxResources) -> bool {
    let mut rest = resources.clone();
    if resources.devices().as_ref().is_some_and(Vec::is_empty) {
        rest.set_devices(None);
    }
    let mut none = LinuxResources::default();
    none.set_devices(None);
    rest == none
}

fn namespaces(linux: &Linux) -> Result<u64, Error> {
    let mut flags = 0;
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        let typ = namespace.typ();
        if namespace.path().is_some() {
            return Err(Error::Unsupported {
                field: format!("linux.namespaces: path of {typ}"),
            });
        }
        if matches!(typ, LinuxNamespaceType::User | LinuxNamespaceType::Time) {
            return Err(Error::Unsupported {
                field: format!("linux.namespaces: {typ}"),
            });
        }
        // The enumeration's values are the kernel's CLONE_NEW* bits.
        flags |= typ as u64;
    }
    for typ in [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid] {
        if flags & typ as u64 == 0 {
            let reason = format!("a {typ} namespace is required");
            return Err(Error::invalid("linux.namespaces", reason));
        }
    }
    Ok(flags)
}

fn hostname(spec: &Spec, namespaces: u64) -> Result<Option<String>, Error> {
    let Some(name) = spec.hostname().as_ref().filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    if namespaces & LinuxNamespaceType::Uts as u64 == 0 {
        return Err(Error::invalid("hostname", "needs a UTS namespace"));
    }
    if name.len() > HOSTNAME_BYTES_MAX {
        return Err(Error::invalid(
            "hostname",
            format!("longer than {HOSTNAME_BYTES_MAX} bytes"),
        ));
    }
    Ok(Some(string(name, "hostname")?))
}

fn rootfs(path: &Path, layers: Option<&RootfsOptions>) -> Result<Rootfs, Error> {
    let Some(layers) = layers else {
        return Ok(Rootfs::Directory {
            source: absolute(path, "root.path")?,
        });
    };
    if layers.lowers.is_empty() {
        return Err(Error::invalid("root.lowers", "no lower directory"));
    }
    let lowers = layers
        .lowers
        .iter()
        .map(|l| absolute(l, "root.lowers"))
        .collect::<Result<_, _>>();
    Ok(Rootfs::Overlay {
        lowers: lowers?,
        upper: absolute(&layers.upper, "root.upper")?,
        work: absolute(&layers.work, "root.work")?,
        volatile: layers.volatile,
    })
}

fn sysctls(linux: &Linux, namespaces: u64) -> Result<Vec<(String, String)>, Error> {
    let mut sysctls = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl.{key}");
        let ipc = IPC_SYSCTLS
            .iter()
            .any(|s| key == s || s.ends_with('.') && key.starts_with(s));
        let needed = match key {
            _ if key.starts_with(NET_SYSCTLS) => LinuxNamespaceType::Network,
            _ if ipc => LinuxNamespaceType::Ipc,
            _ => return Err(Error::Unsupported { field }),
        };
        if namespaces & needed as u64 == 0 {
            return Err(Error::invalid(field, format!("needs a {needed} namespace")));
        }
        // The child makes a path below /proc/sys of it.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if key.contains("..") || !key.chars().all(plain) {
            return Err(Error::invalid(field, "not a sysctl name"));
        }
        sysctls.push((key.clone(), string(value, &field)?));
    }
    sysctls.sort();
    Ok(sysctls)
}

fn paths(paths: Option<&[String]>, field: &str) -> Result<Vec<String>, Error> {
    paths
        .unwrap_or_default()
        .iter()
        .map(|p| absolute(Path::new(p), field))
        .collect()
}

fn required<'a, T>(value: Option<&'a T>, field: &str) -> Result<&'a T, Error> {
    value.ok_or_else(|| Error::invalid(field, "missing"))
}

/// A string that a system call can take.
fn string(text: &str, field: &str) -> Result<String, Error> {
    if text.contains('\0') {
        return Err(Error::invalid(field, "contains a NUL byte"));
    }
    Ok(text.to_owned())
}

/// An absolute path as the plan's text.
fn absolute(path: &Path, field: &str) -> Result<String, Error> {
    if !path.is_absolute() {
        return Err(Error::invalid(
            field,
            format!("`{}` is not absolute", path.display()),
        ));
    }
    let text = path.to_str();
    let text = text.ok_or_else(|| Error::invalid(field, format!("{path:?} is not UTF-8")))?;
    string(text, field)
}

#[cfg(test)]
mod tests;
