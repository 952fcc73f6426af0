//! The engine's handle: what the API calls, and what its tasks share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcd_registry::Registry;
use rcd_runtime::{ContainerOptions, Event};
use rcd_store::{ContainerConfig, ContainerRecord};
use rcd_store::{Durability, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::attach::AttachSession;
use crate::container::lifecycle::{Admission, Phase, Request, admit};
use crate::container::log::{Position, Reader};
use crate::container::{Container, start};
use crate::error::{Error, Result};
use crate::names::parse_signal;
use crate::platform::{DriverChoice, Network, Rootfs, Runtime};
use crate::recorder::Recorder;
use crate::tables::Tables;
use crate::types::{AttachRequest, ContainerInfo, ContainerPaths, ContainerRequest, View};
use crate::{create, reconcile};

/// How long a shutdown waits for tasks: records being written, trash being emptied.
const SHUTDOWN_MS_MAX: u64 = 5_000;

/// Pause between looks at whether all containers of a stopped holder have ended.
const ENDS_POLL_MS: u64 = 10;

/// What an engine is made of.
pub struct Parts {
    /// The open store.
    pub store: Store,
    /// Processes.
    pub runtime: Arc<dyn Runtime>,
    /// What the runtime reports.
    pub events: mpsc::Receiver<Event>,
    /// Root file systems.
    pub rootfs: Box<dyn Rootfs>,
    /// Networks.
    pub network: Box<dyn Network>,
    /// Registries.
    pub registry: Registry,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// What the engine's tasks share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) rootfs: Box<dyn Rootfs>,
    pub(crate) network: Box<dyn Network>,
    pub(crate) registry: Registry,
    pub(crate) recorder: Recorder,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// Cancelled when the holder is gone: the daemon must begin anew.
    pub(crate) holder_gone: CancellationToken,
    /// Cancelled when the holder says that it stops its containers in order to end.
    pub(crate) holder_stopping: CancellationToken,
    pub(crate) pulls: crate::image::pull::Pulls,
    tables: Mutex<Tables>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// The tables. Never held over an await or a system call.
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with the store on a blocking thread.
    pub(crate) async fn with_store<T: Send + 'static>(
        &self,
        operation: impl Into<String>,
        work: impl FnOnce(&Store) -> Result<T, rcd_store::Error> + Send + 'static,
    ) -> Result<T> {
        let store = self.store.clone();
        let operation = operation.into();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result.map_err(Error::store(operation)),
            Err(e) => Err(Error::io(operation)(std::io::Error::other(e))),
        }
    }

    pub(crate) fn lower_dirs(&self, record: &ContainerRecord) -> Vec<PathBuf> {
        record
            .layers
            .iter()
            .rev()
            .map(|layer| self.store.layer_path(layer))
            .collect()
    }

    pub(crate) fn container_options(&self, record: &ContainerRecord) -> ContainerOptions {
        let dirs = self.store.container_dirs(&record.id);
        let lowers = self.lower_dirs(record);
        start::container_options(record, lowers, &dirs, &*self.rootfs, &*self.network)
    }

    pub(crate) fn forget(&self, container: &Container) {
        self.tables().forget(container);
    }

    pub(crate) fn remember_ended(&self, container: &Arc<Container>) {
        self.tables().remember_ended(Arc::clone(container));
    }

    /// Takes a container off the record and its directory away.
    pub(crate) async fn remove_files(&self, container: &Container, how: Durability) -> Result<()> {
        let id = container.id().to_owned();
        let what = format!("remove container {}", container.name());
        self.with_store(what, move |store| store.remove_container(&id, how))
            .await
    }

    /// Deletes, in the background, what removals left.
    pub(crate) fn empty_trash(&self) {
        let store = self.store.clone();
        self.tasks.spawn_blocking(move || {
            if let Err(error) = store.empty_trash() {
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "cannot empty the trash"
                );
            }
        });
    }

    /// Removes a dead container's cgroup in the background.
    pub(crate) fn remove_cgroup(&self, container: &Container) {
        // Called here and not in the task: a start that comes first must not lose its cgroup.
        let removal = self.runtime.remove_cgroup(container.id());
        self.tasks.spawn(removal);
    }
}

/// The engine. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

impl Engine {
    /// Starts an engine: takes up what a daemon before it left, then serves.
    ///
    /// # Errors
    /// The store cannot be read, or the runtime does not answer.
    pub async fn start(parts: Parts) -> Result<Engine> {
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let (store, runtime) = (parts.store.clone(), Arc::clone(&parts.runtime));
        let recorder = Recorder::start(store, runtime, &tasks, shutdown.clone());
        let shared = Arc::new(Shared {
            store: parts.store,
            runtime: parts.runtime,
            rootfs: parts.rootfs,
            network: parts.network,
            registry: parts.registry,
            recorder,
            tasks,
            shutdown,
            holder_gone: CancellationToken::new(),
            holder_stopping: CancellationToken::new(),
            pulls: crate::image::pull::Pulls::default(),
            tables: Mutex::new(Tables::default()),
        });
        reconcile::take_up(&shared, parts.events).await?;
        Ok(Engine { shared })
    }

    /// Resolves when the holder is gone: its namespaces are no more, and the daemon must end. Yields
    /// whether it was told to end, which is no failure.
    pub async fn holder_gone(&self) -> bool {
        self.shared.holder_gone.cancelled().await;
        self.shared.holder_stopping.is_cancelled()
    }

    /// Stops the engine's tasks. Containers go on.
    pub async fn stop(&self) {
        if self.shared.holder_stopping.is_cancelled() {
            self.ends_recorded().await;
        }
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        let patience = Duration::from_millis(SHUTDOWN_MS_MAX);
        if tokio::time::timeout(patience, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("tasks were still running when the engine stopped");
        }
    }

    /// Waits, within bounds, until the ends that a stopped holder told are known: no other daemon will
    /// hear of them, and the recorder takes no more once the shutdown has begun.
    async fn ends_recorded(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(SHUTDOWN_MS_MAX);
        while tokio::time::Instant::now() < deadline {
            let containers: Vec<_> = self.shared.tables().containers.values().cloned().collect();
            let live = |phase| matches!(phase, Phase::Running | Phase::Stopping);
            if !containers.iter().any(|each| live(each.view().phase)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(ENDS_POLL_MS)).await;
        }
    }

    /// The root file system driver that containers get by default, and why.
    pub fn default_driver(&self) -> DriverChoice {
        self.shared.rootfs.choose(&ContainerConfig::default())
    }

    // ---- containers ----

    /// Makes a container. On record, durably, before it answers; see [`ContainerRequest`].
    ///
    /// # Errors
    /// A field that cannot be honoured, a name in use, no such image, or the store.
    pub async fn create(&self, request: ContainerRequest) -> Result<ContainerInfo> {
        create::create(&self.shared, request).await
    }

    /// All containers, newest first.
    pub fn containers(&self) -> Vec<ContainerInfo> {
        let tables = self.shared.tables();
        let mut all: Vec<_> = tables.containers.values().map(|c| c.info()).collect();
        drop(tables);
        all.sort_by_key(|info| std::cmp::Reverse(info.record.created_at_ns));
        all
    }

    /// One container.
    ///
    /// # Errors
    /// No such container, or more than one.
    pub fn container(&self, id: &str) -> Result<ContainerInfo> {
        Ok(self.find(id)?.info())
    }

    /// Where a container's files are.
    ///
    /// # Errors
    /// No such container, or more than one.
    pub fn paths(&self, id: &str) -> Result<ContainerPaths> {
        let container = self.find(id)?;
        let of_container = |key: &rcd_runtime::ProcessKey| key.container == container.id();
        let tables = self.shared.tables();
        let execs = tables
            .execs
            .values()
            .filter(|e| of_container(&e.key) && e.exit.borrow().is_none());
        let execs = execs.filter_map(|e| e.key.exec.clone()).collect();
        drop(tables);
        Ok(ContainerPaths {
            lowers: self.shared.lower_dirs(&container.record),
            dirs: self.shared.store.container_dirs(container.id()),
            cgroup: self.shared.runtime.cgroup(container.id()),
            execs,
        })
    }

    /// The root file system driver of a container, and why.
    pub fn driver_of(&self, record: &ContainerRecord) -> DriverChoice {
        self.shared.rootfs.choose(&record.config)
    }

    /// Starts a container; success if it runs already.
    ///
    /// # Errors
    /// [`Error::StartFailed`] with the exit code for `rc`; a phase that forbids it.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        self.find(id)?.start(None).await
    }

    /// Asks a container to end; kills it after `timeout` (its own if absent). Answers at its end;
    /// success if it does not run.
    ///
    /// # Errors
    /// No such container; the signal cannot be sent.
    pub async fn stop_container(&self, id: &str, timeout: Option<Duration>) -> Result<()> {
        self.find(id)?.stop(timeout).await
    }

    /// Sends a signal (SIGKILL if absent) to a container's first process. After SIGKILL it answers
    /// when the container has ended.
    ///
    /// # Errors
    /// It does not run; not a signal.
    pub async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()> {
        let container = self.find(id)?;
        let signal = parse_signal("signal", signal.unwrap_or("KILL"))?;
        container.kill(signal).await
    }

    /// Removes a container, and its files. With `force` it is killed first.
    ///
    /// # Errors
    /// It runs and `force` was not given; its files cannot be removed.
    pub async fn remove_container(&self, id: &str, force: bool) -> Result<()> {
        self.find(id)?.remove(force).await
    }

    /// Waits until a container does not run. Returns its exit code; none if nobody saw it.
    ///
    /// # Errors
    /// No such container.
    pub async fn wait(&self, id: &str) -> Result<Option<i32>> {
        let container = self.shared.tables().container_or_ended(id)?;
        let mut view = container.watch();
        let ended = view.wait_for(|view| !view.phase.is_live()).await;
        let view: View = match ended {
            Ok(view) => view.clone(),
            Err(_) => container.view(),
        };
        Ok(if view.phase == Phase::Created {
            Some(0)
        } else {
            view.exit_code
        })
    }

    /// Attaches to a container, starting it first if asked: no output is missed.
    ///
    /// # Errors
    /// It does not run and is not to be started; its start failed.
    pub async fn attach(&self, request: AttachRequest) -> Result<AttachSession> {
        let container = self
            .shared
            .tables()
            .container_or_ended(&request.container)?;
        let view = container.view();
        if !request.start && request.offsets.is_none() {
            self.must_run(&container, &view)?;
        }
        let position = match request.offsets {
            // Nothing can be in the log of a container that never ran.
            None | Some((0, 0)) if view.run == 0 && view.phase == Phase::Created => None,
            Some((stdout, stderr)) => Some(Position::Offsets(stdout, stderr)),
            None => Some(Position::End),
        };
        let shared = Arc::clone(&self.shared);
        let mut session = AttachSession::open(shared, Arc::clone(&container), position).await?;
        if request.start {
            container.start(request.size).await?;
            session.follow_present_run();
        }
        if let Some((rows, columns)) = request.size {
            session.input().resize(rows, columns)?;
        }
        Ok(session)
    }

    /// A reader of a container's log.
    ///
    /// # Errors
    /// No such container; its log cannot be read.
    pub async fn logs(&self, id: &str, position: Position) -> Result<Reader> {
        let container = self.shared.tables().container_or_ended(id)?;
        Reader::new(Arc::clone(&container.log), position)
            .await
            .map_err(Error::io(format!(
                "read the log of container {}",
                container.name()
            )))
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// It does not run.
    pub fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.find(id)?;
        self.must_run(&container, &container.view())?;
        container.io().map_or(Ok(()), |io| io.resize(rows, columns))
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Container>> {
        self.shared.tables().container(id)
    }

    /// Refuses what needs a live first process if there is none.
    pub(crate) fn must_run(&self, container: &Container, view: &View) -> Result<()> {
        match admit(view.phase, Request::Kill) {
            Admission::Accept => Ok(()),
            _ => Err(Error::NotRunning {
                id: container.name().to_owned(),
                state: view.phase.as_str(),
            }),
        }
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
