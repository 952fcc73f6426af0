//! Finds the cgroup that the holder was given to manage, and makes it ready for containers.
//!
//! cgroup2 lets processes live only in leaves once controllers are on, so the holder moves itself into
//! the leaf `holder` and leaves its unit's cgroup to be the parent of containers. Where the
//! cgroup is not the user's (no systemd, no `Delegate=yes`), all works but limits.

use std::fs;
use std::path::{Path, PathBuf};

/// The leaf of the holder itself.
const LEAF: &str = "holder";

/// Controllers that containers' limits need.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Takes the cgroup over and gives its directory, or says why there is none.
pub(super) fn delegated() -> Result<PathBuf, String> {
    let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let base = base(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
    let leaf = base.join(LEAF);
    let denied = |path: &Path, error| format!("{}: {error}", path.display());
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(denied(&leaf, error));
        }
        _ => {}
    }
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string()).map_err(|error| denied(&procs, error))?;
    // One at a time, as one that is not there (or another process in the way) refuses them all.
    // The daemon sees in cgroup.subtree_control what came of it, and refuses limits accordingly.
    for controller in CONTROLLERS {
        let _ = fs::write(
            base.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    Ok(base)
}

/// The directory of the process's cgroup, without the leaf if it is in it already.
fn base(cgroup: &str, mountinfo: &str) -> Result<PathBuf, String> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let own = Path::new(own.ok_or("this host has no cgroup2 hierarchy")?);
    let own = if own.ends_with(LEAF) {
        own.parent().unwrap_or(own)
    } else {
        own
    };
    let mount = |line: &str| {
        // proc_pid_mountinfo(5): 4 is the root within the file system, 5 the mount point, and the
        // type follows the separator.
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = own.strip_prefix(root).ok()?;
        (rest.split(' ').next() == Some("cgroup2")).then(|| Path::new(point).join(below))
    };
    mountinfo
        .lines()
        .find_map(mount)
        .ok_or_else(|| "no cgroup2 is mounted".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "29 24 0:6 / /dev rw - devtmpfs udev rw\n\
        31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_directory_is_the_mount_point_and_the_path() {
        let check = |cgroup: &str, mounts: &str, expected: Option<&str>| {
            assert_eq!(
                base(cgroup, mounts).ok(),
                expected.map(PathBuf::from),
                "{cgroup:?}"
            );
        };
        let unit = "/sys/fs/cgroup/user.slice/rcd-holder.service";
        check("0::/user.slice/rcd-holder.service\n", MOUNTS, Some(unit));
        check(
            "0::/user.slice/rcd-holder.service/holder\n",
            MOUNTS,
            Some(unit),
        );
        check("1:cpu:/a\n0::/\n", MOUNTS, Some("/sys/fs/cgroup"));
        check("1:cpu:/a\n", MOUNTS, None);
        check("0::/a\n", "", None);
        let bound = "31 23 0:27 /a /mnt rw - cgroup2 cgroup2 rw\n";
        check("0::/a/b\n", bound, Some("/mnt/b"));
        check("0::/ab\n", bound, None);
    }
}
