//! The container around its first process, in the order of [`run`].

use std::convert::Infallible;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::sethostname;

use super::beneath::Root;
use super::failure::{At, Result, refuse};
use super::{Child, devices, masks, mounts, process, rootfs, terminal};
use crate::plan::{InitPlan, Mount, MountKind};
use crate::protocol::Step;

/// Makes the container and becomes its first process.
pub(super) fn run(child: &mut Child, plan: &InitPlan) -> Result<Infallible> {
    super::set_oom_score(&plan.process)?;
    join_network(child.netns.take())?;
    root_cgroup_namespace(&plan.mounts)?;
    let root = make_root(plan, &child.mount_point)?;
    let terminal = match plan.process.terminal {
        Some(size) => {
            let slave = terminal::open(&root, size, &child.status)?;
            terminal::bind_console(&root, &slave)?;
            Some(slave)
        }
        None => None,
    };
    plan.sysctls
        .iter()
        .try_for_each(|(key, value)| set_sysctl(&root, key, value))?;
    masks::make_readonly(&root, &plan.readonly_paths)?;
    masks::hide(&root, &plan.masked_paths)?;
    process::make_working_directory(&root, &plan.process)?;
    if plan.readonly_root {
        rootfs::make_readonly(&root)?;
    }
    rootfs::pivot(&root)?;
    if let Some(name) = &plan.hostname {
        sethostname(name).at(Step::Hostname, name)?;
    }
    let streams = child.streams(terminal);
    process::start(&root, &plan.process, streams, &child.status)
}

fn make_root(plan: &InitPlan, mount_point: &Path) -> Result<Root> {
    let root = rootfs::mount_root(&plan.rootfs, mount_point)?;
    plan.mounts
        .iter()
        .try_for_each(|mount| mounts::apply(&root, mount))?;
    devices::bind_all(&root, &plan.devices)?;
    if plan
        .mounts
        .iter()
        .any(|mount| mount.target == "/dev" && fstype(mount) == Some("tmpfs"))
    {
        devices::link_all(&root)?;
    }
    Ok(root)
}

fn join_network(netns: Option<OwnedFd>) -> Result<()> {
    match netns {
        Some(netns) => {
            setns(netns, CloneFlags::CLONE_NEWNET).at(Step::Join, "the network namespace")
        }
        None => Ok(()),
    }
}

/// Where a cgroup2 is mounted, its root is to be the container's cgroup. A cgroup namespace made by
/// clone3 has the cgroup of the *parent* for its root, even with CLONE_INTO_CGROUP
/// (`kernel/cgroup/namespace.c` reads `current`); one made here has this process's.
fn root_cgroup_namespace(mounts: &[Mount]) -> Result<()> {
    if mounts.iter().any(|mount| fstype(mount) == Some("cgroup2")) {
        return unshare(CloneFlags::CLONE_NEWCGROUP).at(Step::Join, "a cgroup namespace");
    }
    Ok(())
}

fn fstype(mount: &Mount) -> Option<&str> {
    match &mount.kind {
        MountKind::Filesystem { fstype, .. } => Some(fstype),
        MountKind::Bind { .. } => None,
    }
}

/// Writes a setting through the container's procfs, which is checked to be one (CVE-2025-52881).
fn set_sysctl(root: &Root, key: &str, value: &str) -> Result<()> {
    let path =
        sysctl_path(key).ok_or_else(|| refuse(Step::Sysctl, key, "it is no setting's name"))?;
    let file =
        root.open_without_links(&path, OFlag::O_WRONLY)
            .at_because(Step::Sysctl, key, |errno| match errno {
                Errno::ENOENT => "this kernel has no such setting, or not for a container".into(),
                Errno::EACCES => "it belongs to the host, not to the container's namespaces".into(),
                _ => String::new(),
            })?;
    if fstatfs(&file).at(Step::Sysctl, key)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(refuse(
            Step::Sysctl,
            key,
            "the container's /proc is not a procfs",
        ));
    }
    let object = format!("{key}={value}");
    std::fs::File::from(file)
        .write_all(value.as_bytes())
        .at(Step::Sysctl, object)
}

/// As sysctl(8): dots separate, and a slash stands for a dot within a name (an interface's).
fn sysctl_path(key: &str) -> Option<String> {
    let name = |name: &str| !name.is_empty() && name != "." && name != "..";
    let names: Vec<String> = key.split('.').map(|part| part.replace('/', ".")).collect();
    names
        .iter()
        .all(|part| name(part))
        .then(|| format!("/proc/sys/{}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_stay_below_proc_sys() {
        let cases = [
            (
                "net.ipv4.ping_group_range",
                Some("/proc/sys/net/ipv4/ping_group_range"),
            ),
            (
                "net.ipv4.conf.eth0/7.rp_filter",
                Some("/proc/sys/net/ipv4/conf/eth0.7/rp_filter"),
            ),
            ("kernel.//.x", None),
            ("kernel./.x", None),
            ("", None),
            (".kernel", None),
        ];
        for (key, want) in cases {
            assert_eq!(sysctl_path(key).as_deref(), want, "{key}");
        }
    }
}
