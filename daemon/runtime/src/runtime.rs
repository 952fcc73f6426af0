//! The engine's handle: starts, execs, and what becomes of them.

use std::path::PathBuf;
use std::sync::Arc;

use rcd_init::protocol::{ProcessKey, Slot};
use rcd_sys::failpoint;
use tokio::sync::{mpsc, oneshot};

use crate::cgroup::Cgroups;
use crate::client::{Client, Command, Start};
use crate::idmap::IdMaps;
use crate::join::Joined;
use crate::netns::Pool;
use crate::options::{ContainerOptions, ExecOptions, Network};
use crate::{Error, Event, Process, prepare};

/// Requests on their way to the task. Each start takes its place here before it makes anything, so
/// this also bounds how many prepare at once.
const COMMANDS_QUEUED_MAX: usize = 64;

/// Events on their way to the engine. More are held by the task.
const EVENTS_QUEUED_MAX: usize = 256;

/// Network namespaces that are ready by default. The thread makes one in about 0.5 ms and two cores
/// start a container every 2 ms, so a few cover any burst; 8 leave room for a thread that does not
/// get its processor at once.
pub const NETNS_POOL_LEN: usize = 8;

/// What a runtime is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many network namespaces are kept ready, at least 1.
    pub netns_pool_len: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            netns_pool_len: NETNS_POOL_LEN,
        }
    }
}

/// Handle to the connection with the holder. Clones share it; it closes with the last one.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: mpsc::Sender<Command>,
    cgroups: Option<Cgroups>,
    netns: Pool,
    ids: IdMaps,
    holder_pid: i32,
    protocol: u32,
}

impl Runtime {
    /// Starts the task and the network namespace pool. Must be called within the async runtime.
    ///
    /// The receiver must be read all the time, by a task that never waits for a call of this
    /// runtime: events are kept for it up to a bound, and then replies wait too.
    ///
    /// # Errors
    /// [`Error::Proc`] without id maps, [`Error::Setup`] without a thread or an event queue.
    pub fn start(
        joined: Joined,
        settings: Settings,
    ) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        let ids = IdMaps::current()?;
        let cgroups = joined.cgroup().map(|base| Cgroups::new(base.to_owned()));
        let netns = Pool::start(settings.netns_pool_len, ids.gid_max())?;
        let (commands, queue) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let (events, receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (holder_pid, protocol) = (joined.holder_pid(), joined.protocol());
        let client =
            Client::new(joined.socket, queue, events, cgroups.clone()).map_err(|source| {
                Error::Setup {
                    what: "watch the holder's socket",
                    source,
                }
            })?;
        tokio::spawn(client.run());
        // Compiled at its first use: not in the first container's start.
        tokio::task::spawn_blocking(crate::seccomp::default_filter);
        let inner = Inner {
            commands,
            cgroups,
            netns,
            ids,
            holder_pid,
            protocol,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            receiver,
        ))
    }

    /// Starts a container; returns when its first process has called `execve`.
    ///
    /// Cancellation: once this was polled, dropping the future stops nothing. A process that comes
    /// to be is in [`Runtime::list`], and its exit is reported. If it does not, its cgroup goes.
    ///
    /// # Errors
    /// [`Error::Start`] with what the child met; [`Error::Unsupported`], [`Error::Invalid`],
    /// [`Error::Id`] for options that cannot be honoured; others for the host's failures. After
    /// each of them nothing is left of the process.
    pub async fn spawn(&self, o: ContainerOptions) -> Result<Process, Error> {
        prepare::id(&o.id)?;
        let netns = match o.network {
            Network::None => Some(self.inner.netns.take().await?),
            Network::Host => None,
        };
        self.start_process(move |inner| {
            prepare::container(&o, inner.cgroups.as_ref(), netns, inner.ids.gid_max())
        })
        .await
    }

    /// Starts another process in a running container; as [`Runtime::spawn`] otherwise.
    ///
    /// # Errors
    /// As [`Runtime::spawn`]; [`Error::Start`] at the step `Admit` if the container does not run.
    pub async fn exec(&self, o: ExecOptions) -> Result<Process, Error> {
        self.start_process(move |inner| prepare::exec(&o, inner.cgroups.as_ref()))
            .await
    }

    /// Every process that lives or whose exit is not acknowledged, with duplicates of all that the
    /// holder keeps for it.
    ///
    /// # Errors
    /// [`Error::HolderGone`].
    pub async fn list(&self) -> Result<Vec<Process>, Error> {
        let (answer, answered) = oneshot::channel();
        let sent = self.inner.commands.send(Command::List { answer }).await;
        sent.map_err(|_| Error::HolderGone)?;
        answered.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Says that an exit is on record: the holder forgets the process and closes what it kept.
    /// With the holder gone there is nothing to forget.
    pub async fn acknowledge(&self, key: ProcessKey) {
        drop(self.inner.commands.send(Command::Acknowledge { key }).await);
    }

    /// Closes the holder's duplicate of one descriptor, such as the last writer of a stdin.
    pub async fn drop_kept(&self, key: ProcessKey, slot: Slot) {
        drop(self.inner.commands.send(Command::Drop { key, slot }).await);
    }

    /// Removes a dead container's cgroup and all beneath it, trying for some seconds while the
    /// kernel lets go of the last process. What is left then is reported in the log.
    ///
    /// It is the run that was the newest at the call whose cgroup goes, whenever the future is
    /// polled: a start that comes in between keeps its own.
    pub fn remove_cgroup(&self, container: &str) -> impl Future<Output = ()> + Send + use<> {
        let known = prepare::id(container).is_ok();
        let cgroups = self.inner.cgroups.as_ref().filter(|_| known);
        let removal = cgroups.map(|cgroups| cgroups.remove_or_warn(container));
        async move {
            if let Some(removal) = removal {
                removal.await;
            }
        }
    }

    /// Removes the cgroups of containers that are not in `live`: a daemon that was killed between a
    /// container's end and the removal of its cgroup left them. Others' cgroups stay: a container's
    /// is named by its id, of 64 hexadecimal digits. Returns those that are busy still, for
    /// [`Runtime::remove_cgroup`]. To be called before anything is started.
    pub async fn remove_stray_cgroups(&self, live: &[String]) -> Vec<String> {
        let Some(cgroups) = &self.inner.cgroups else {
            return Vec::new();
        };
        let (all, live) = (cgroups.clone(), live.to_vec());
        let stray = move |name: &str| {
            let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_id && !live.iter().any(|id| id == name)
        };
        let removed = tokio::task::spawn_blocking(move || all.remove_strays(stray));
        removed.await.unwrap_or_default()
    }

    /// The cgroup directory of a container, where the host delegates one.
    pub fn cgroup_path(&self, container: &str) -> Option<PathBuf> {
        let id = prepare::id(container).ok()?;
        Some(self.inner.cgroups.as_ref()?.path(&id))
    }

    /// The controllers that containers can be limited with; none without a delegated cgroup. Reads
    /// a file of the kernel's, which takes microseconds.
    ///
    /// # Errors
    /// [`Error::Proc`] if the delegated cgroup cannot be read (any more).
    pub fn controllers(&self) -> Result<Vec<String>, Error> {
        self.inner
            .cgroups
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), Cgroups::controllers)
    }

    /// Id maps of the user namespace that all containers share.
    pub fn ids(&self) -> &IdMaps {
        &self.inner.ids
    }

    /// The holder's pid on the host.
    pub fn holder_pid(&self) -> i32 {
        self.inner.holder_pid
    }

    /// The protocol version spoken with the holder.
    pub fn protocol(&self) -> u32 {
        self.inner.protocol
    }

    /// A place in the queue, one blocking step, and the answer. Hops: blocking thread, task, holder,
    /// task, caller. The blocking thread hands on to the task itself, because its way back to the
    /// caller would be one hop more and a place where a cancelled caller loses what was prepared.
    async fn start_process(
        &self,
        prepare: impl FnOnce(&Inner) -> Result<Start, Error> + Send + 'static,
    ) -> Result<Process, Error> {
        let place = self.inner.commands.clone().reserve_owned().await;
        let place = place.map_err(|_| Error::HolderGone)?;
        let (answer, answered) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || match prepare(&inner) {
            Ok(start) => {
                failpoint::reach("spawn.prepared");
                drop(place.send(Command::Spawn(Box::new(start), answer)));
            }
            Err(error) => drop(answer.send(Err(error))),
        });
        answered.await.map_err(|_| Error::ShuttingDown)?
    }
}
