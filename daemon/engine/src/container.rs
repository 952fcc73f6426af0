//! One container: its shared handle, and the task that drives it.
//!
//! A [`Container`] is what everybody may hold: identity, a queue to its driver, a view of its
//! state, its log and its input. The driver (`driver.rs`) is one task a container and the only
//! writer of that state; requests and the news of the init's end meet there in one order, so that
//! a stop and an exit, or two removes, cannot race.

pub(crate) mod attach;
pub(crate) mod driver;
pub(crate) mod exec;
pub(crate) mod io;
pub(crate) mod lifecycle;
pub(crate) mod log;
pub(crate) mod start;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcd_runtime::{Exit, ProcessKey};
use rcd_store::ContainerRecord;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::types::{ContainerInfo, View};
use io::Io;
use log::Log;

/// Requests that may wait for one container. More are refused rather than queued.
const REQUESTS_MAX: usize = 64;

/// Exits that may wait for a driver: one a run, and a run begins only after the last one's end was
/// taken.
const EXITS_MAX: usize = 4;

type Answer<T = ()> = oneshot::Sender<Result<T>>;

/// A request to a driver.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        /// Rows and columns of its terminal, if a client has one.
        size: Option<(u16, u16)>,
        answer: Answer,
    },
    Stop {
        timeout: Option<Duration>,
        answer: Answer,
    },
    Kill {
        signal: i32,
        answer: Answer,
    },
    Remove {
        force: bool,
        answer: Answer,
    },
}

/// Shared handle of one container.
#[derive(Debug)]
pub(crate) struct Container {
    /// As created. Its status is stale; `view` is live.
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) log: Arc<Log>,
    commands: mpsc::Sender<Command>,
    exits: mpsc::Sender<Exit>,
    view: watch::Receiver<View>,
    io: Mutex<Option<Arc<Io>>>,
}

/// The ends of a container's channels that its driver holds.
#[derive(Debug)]
pub(crate) struct DriverEnds {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) exits: mpsc::Receiver<Exit>,
    pub(crate) view: watch::Sender<View>,
}

impl Container {
    pub(crate) fn new(
        record: Arc<ContainerRecord>,
        log: Arc<Log>,
        view: View,
    ) -> (Arc<Container>, DriverEnds) {
        let (commands, command_ends) = mpsc::channel(REQUESTS_MAX);
        let (exits, exit_ends) = mpsc::channel(EXITS_MAX);
        let (view_sender, view) = watch::channel(view);
        let container = Container {
            record,
            log,
            commands,
            exits,
            view,
            io: Mutex::new(None),
        };
        let ends = DriverEnds {
            commands: command_ends,
            exits: exit_ends,
            view: view_sender,
        };
        (Arc::new(container), ends)
    }

    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.record.name
    }

    pub(crate) fn key(&self) -> ProcessKey {
        ProcessKey {
            container: self.record.id.clone(),
            exec: None,
        }
    }

    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    pub(crate) fn info(&self) -> ContainerInfo {
        ContainerInfo {
            record: Arc::clone(&self.record),
            view: self.view(),
        }
    }

    /// Hands the end of the init to the driver.
    pub(crate) fn report_exit(&self, exit: Exit) {
        if self.exits.try_send(exit).is_err() {
            tracing::error!(
                container.id = self.id(),
                "an exit came that no run explains"
            );
        }
    }

    /// Input and terminal of the present run, if it lives.
    pub(crate) fn io(&self) -> Option<Arc<Io>> {
        self.io
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_io(&self, io: Option<Arc<Io>>) {
        *self.io.lock().unwrap_or_else(PoisonError::into_inner) = io;
    }

    pub(crate) async fn start(&self, size: Option<(u16, u16)>) -> Result<()> {
        self.ask(|answer| Command::Start { size, answer }).await
    }

    pub(crate) async fn stop(&self, timeout: Option<Duration>) -> Result<()> {
        self.ask(|answer| Command::Stop { timeout, answer }).await
    }

    pub(crate) async fn kill(&self, signal: i32) -> Result<()> {
        self.ask(|answer| Command::Kill { signal, answer }).await
    }

    pub(crate) async fn remove(&self, force: bool) -> Result<()> {
        self.ask(|answer| Command::Remove { force, answer }).await
    }

    /// Queues a request and waits for its answer. Dropping the future does not take it back.
    async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .try_send(command(answer))
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => Error::Busy {
                    what: "requests for one container",
                    max: REQUESTS_MAX,
                },
                mpsc::error::TrySendError::Closed(_) => self.gone(),
            })?;
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> Error {
        Error::NoSuchContainer {
            id: self.record.id.clone(),
        }
    }
}
