//! Cgroups of containers: children of the holder's delegated cgroup.
//!
//! A container's cgroup is one `mkdir`; the holder clones its init straight into it. Without
//! delegation there is none, and everything but limits works. Only the unified hierarchy is used.
//!
//! A directory cannot be removed (`EBUSY`) until the kernel is done with the last process in it,
//! which is a little after that process was reaped, so removal retries. What a container made
//! inside goes first, deepest first.
//!
//! A container may start again while the cgroup of its last run is still being removed. So each
//! start begins a *run*, a removal belongs to the run that it was asked for in, and stops when there
//! is a newer one; a start waits for an attempt that is under way, which takes microseconds. No
//! lock is held over either.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Error;

/// Waits between attempts to remove a cgroup, in milliseconds: 4 s in all. The first hits the
/// common case, a process that is just being torn down.
const REMOVE_RETRY_MS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1000, 2500];

/// How deep cgroups inside a container are followed. systemd in a container nests 5 or 6.
const DEPTH_MAX: usize = 64;

/// The delegated cgroup.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    base: PathBuf,
    runs: Arc<Runs>,
}

/// Who uses which container's cgroup.
#[derive(Debug, Default)]
struct Runs {
    state: Mutex<State>,
    /// An attempt to remove one is over.
    attempted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// The newest run of each container whose cgroup may exist.
    newest: HashMap<String, u64>,
    /// Attempts to remove that are under way.
    removing: HashMap<String, usize>,
}

impl Runs {
    /// Whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on removals of earlier runs do nothing.
    fn begin(&self, container: &str) {
        let mut state = self.lock();
        state.last += 1;
        let run = state.last;
        state.newest.insert(container.to_owned(), run);
        while state.removing.contains_key(container) {
            state = self
                .attempted
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn newest(&self, container: &str) -> Option<u64> {
        self.lock().newest.get(container).copied()
    }

    /// Attempts a removal unless there is a newer run.
    fn attempt(
        &self,
        container: &str,
        run: Option<u64>,
        remove: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        {
            let mut state = self.lock();
            if state.newest.get(container).copied() != run {
                return Ok(());
            }
            *state.removing.entry(container.to_owned()).or_default() += 1;
        }
        let removed = remove();
        let mut state = self.lock();
        let left = state.removing.get(container).map_or(0, |count| count - 1);
        if left == 0 {
            state.removing.remove(container);
        } else {
            state.removing.insert(container.to_owned(), left);
        }
        if removed.is_ok() && state.newest.get(container).copied() == run {
            state.newest.remove(container);
        }
        drop(state);
        self.attempted.notify_all();
        removed
    }
}

impl Cgroups {
    pub(crate) fn new(base: PathBuf) -> Self {
        let runs = Arc::default();
        Self { base, runs }
    }

    pub(crate) fn path(&self, container: &str) -> PathBuf {
        self.base.join(container)
    }

    /// The controllers that containers can be limited with, e.g. `memory`: those that the holder
    /// could turn on for its children.
    pub(crate) fn controllers(&self) -> Result<Vec<String>, Error> {
        let path = self.base.join("cgroup.subtree_control");
        let text = fs::read_to_string(&path).map_err(|source| Error::Proc { path, source })?;
        Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
    }

    /// Makes a container's cgroup and opens it; says whether it is new. One that is there already,
    /// left by the container's last run, is used.
    pub(crate) fn create(&self, container: &str) -> Result<(OwnedFd, bool), Error> {
        self.runs.begin(container);
        let made = self.make(container);
        if made.is_err() {
            self.runs.lock().newest.remove(container);
        }
        made
    }

    fn make(&self, container: &str) -> Result<(OwnedFd, bool), Error> {
        let path = self.path(container);
        let new = match fs::create_dir(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(source) => {
                return Err(Error::Cgroup {
                    what: "create",
                    path,
                    source,
                });
            }
        };
        Ok((self.open(container)?, new))
    }

    /// Opens a container's cgroup as a directory descriptor for `CLONE_INTO_CGROUP`.
    pub(crate) fn open(&self, container: &str) -> Result<OwnedFd, Error> {
        let path = self.path(container);
        let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
        let opened: io::Result<File> = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path);
        match opened {
            Ok(file) => Ok(file.into()),
            Err(source) => Err(Error::Cgroup {
                what: "open",
                path,
                source,
            }),
        }
    }

    /// Removes a container's cgroup and all beneath it, trying again while processes are leaving.
    /// What is removed is that of the run which was the newest at the call, whenever the future is
    /// polled.
    /// A missing one is removed, and one that the container has started in again is left alone.
    /// Dropping the future stops the retries.
    pub(crate) fn remove(
        &self,
        container: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let path = self.path(container);
        let run = self.runs.newest(container);
        let (runs, container) = (Arc::clone(&self.runs), container.to_owned());
        async move { remove(path, runs, container, run).await }
    }

    /// Tries once to remove each cgroup whose name `stray` accepts. Returns those that are busy.
    /// The holder's own cgroups lie beside those of containers.
    pub(crate) fn remove_strays(&self, stray: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
        let strays = names.filter(|name| stray(name));
        strays
            .filter(|name| remove_tree(&self.path(name), DEPTH_MAX).is_err())
            .collect()
    }

    /// [`Cgroups::remove`] where nobody can do anything about a failure.
    pub(crate) fn remove_or_warn(
        &self,
        container: &str,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (removal, container) = (self.remove(container), container.to_owned());
        async move {
            if let Err(error) = removal.await {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(container.id = container, %error, source, "cgroup left behind");
            }
        }
    }
}

/// Removes the tree at `path`, unless a later run has taken it.
async fn remove(
    path: PathBuf,
    runs: Arc<Runs>,
    container: String,
    run: Option<u64>,
) -> Result<(), Error> {
    let mut waits = REMOVE_RETRY_MS.into_iter();
    loop {
        let (tree, runs, container) = (path.clone(), Arc::clone(&runs), container.clone());
        let attempt = move || runs.attempt(&container, run, || remove_tree(&tree, DEPTH_MAX));
        let removed = tokio::task::spawn_blocking(attempt).await;
        let source = match removed.map_err(|_| Error::ShuttingDown)? {
            Ok(()) => return Ok(()),
            Err(source) => source,
        };
        match waits.next() {
            Some(ms) if source.kind() == io::ErrorKind::ResourceBusy => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            _ => {
                return Err(Error::Cgroup {
                    what: "remove",
                    path,
                    source,
                });
            }
        }
    }
}

/// `rmdir` is enough for a cgroup without children: its files are the kernel's and go with it.
fn remove_tree(path: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if depth == 0 || !has_children_or_processes(&e) => return Err(e),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path(), depth - 1)?;
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn has_children_or_processes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rcd-cgroup-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    // Plain directories behave like cgroups without processes: `rmdir` wants them empty.
    #[tokio::test]
    async fn nested_cgroups_are_removed_deepest_first() {
        let base = scratch("nested");
        let cgroups = Cgroups::new(base.clone());
        cgroups.create("c1").unwrap();
        fs::create_dir_all(cgroups.path("c1").join("a/b/c")).unwrap();
        fs::create_dir_all(cgroups.path("c1").join("d")).unwrap();
        cgroups.remove("c1").await.unwrap();
        assert!(!cgroups.path("c1").exists());
        assert_eq!(cgroups.runs.newest("c1"), None);
        cgroups.remove("c1").await.unwrap();
        fs::remove_dir(base).unwrap();
    }

    #[test]
    fn a_leftover_cgroup_is_used_again() {
        let base = scratch("again");
        let cgroups = Cgroups::new(base.clone());
        assert!(cgroups.create("c1").unwrap().1);
        assert!(!cgroups.create("c1").unwrap().1);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_removal_leaves_the_next_run_its_cgroup() {
        let base = scratch("runs");
        let cgroups = Cgroups::new(base.clone());
        let path = cgroups.path("c1");
        for _ in 0..500 {
            cgroups.create("c1").unwrap();
            let run = cgroups.runs.newest("c1");
            let attempt = || {
                let removed = cgroups.runs.attempt("c1", run, || remove_tree(&path, 1));
                removed.unwrap();
            };
            std::thread::scope(|scope| {
                scope.spawn(attempt);
                cgroups.create("c1").unwrap();
            });
            assert!(path.exists());
        }
        let state = cgroups.runs.lock();
        assert_eq!((state.newest.len(), state.removing.len()), (1, 0));
        drop(state);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn errors_name_the_directory() {
        let cgroups = Cgroups::new("/nonexistent/base".into());
        let text = cgroups.create("c1").unwrap_err().to_string();
        assert_eq!(text, "cannot create the cgroup /nonexistent/base/c1");
    }

    #[test]
    fn a_symlink_is_not_a_cgroup() {
        let base = scratch("link");
        std::os::unix::fs::symlink("/", base.join("c1")).unwrap();
        assert!(Cgroups::new(base.clone()).open("c1").is_err());
        fs::remove_dir_all(base).unwrap();
    }
}
