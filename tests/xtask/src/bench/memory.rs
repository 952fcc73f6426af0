//! Memory and processes, as the kernel counts them.

use std::{fs, path::Path};

/// PSS in MiB: private pages, and of shared ones this process's part (`/proc/PID/smaps_rollup`).
pub(super) fn pss_mib(pid: i32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

/// A process and those of its children that run the same command line: forks that are part of it,
/// as the holder's cleaner is.
pub(super) fn with_forks(pid: i32) -> Vec<i32> {
    let command = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let own = command(pid);
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = text
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    std::iter::once(pid)
        .chain(children.filter(|child| command(*child) == own))
        .collect()
}

/// How many processes a cgroup and everything below it hold.
pub(super) fn processes(cgroup: &Path) -> usize {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let below = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    own.lines().count() + below.map(|child| processes(&child)).sum::<usize>()
}
