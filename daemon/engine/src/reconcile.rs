//! At start: compares what is on record with what lives, and takes up both.
//!
//! The holder knows which processes live and which exits nobody has put on record. The store knows
//! which containers were made. Together:
//!
//! | on record | at the holder | then |
//! |---|---|---|
//! | any | lives | it runs: its output, input and exit are taken up |
//! | any | has ended | the exit is handled as if it came now |
//! | running | nothing | the holder or the machine went down: exited, code unknown |
//! | `--rm`, ever started | nothing | removed |
//! | `--rm`, never started | nothing | as it is |
//! | created, exited | nothing | as it is |
//! | nothing | a process | nobody owns it: killed, acknowledged |

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use rcd_runtime::{Event, Process};
use rcd_store::Durability;
use rcd_store::{ContainerRecord, ContainerStatus};
use tokio::sync::{mpsc, oneshot};

use crate::container::driver::Driver;
use crate::container::exec::Exec;
use crate::container::lifecycle::Phase;
use crate::container::log::Log;
use crate::container::{Container, DriverEnds};
use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::execs;
use crate::types::View;

/// Said of a container that ended while nobody looked.
const UNSEEN: &str = "it ended with its holder, or with the machine, and nobody saw how";

/// Loads everything, takes up what lives, and begins to listen to `events`.
pub(crate) async fn take_up(shared: &Arc<Shared>, events: mpsc::Receiver<Event>) -> Result<()> {
    // Events are taken from the start, so that the holder's connection never waits for us, and
    // handled once the tables are complete.
    let (ready, tables_ready) = oneshot::channel();
    shared
        .tasks
        .spawn(dispatch(Arc::clone(shared), events, tables_ready));

    let images = shared
        .with_store("read the images", |store| store.images())
        .await?;
    let containers = shared
        .with_store("read the containers", |store| store.containers())
        .await?;
    let list = shared.runtime.list().await;
    let processes = list.map_err(Error::runtime("list the holder's processes"))?;
    // Those that have ended are removed when their end is handled.
    let live: Vec<String> = processes
        .iter()
        .map(|process| process.key.container.clone())
        .collect();
    let (mut inits, execs): (Vec<_>, Vec<_>) = processes
        .into_iter()
        .partition(|process| process.key.exec.is_none());
    let mut inits: HashMap<String, Process> = inits
        .drain(..)
        .map(|process| (process.key.container.clone(), process))
        .collect();

    shared.tables().images = images
        .into_iter()
        .map(|image| (image.id.clone(), Arc::new(image)))
        .collect();
    for record in containers {
        let process = inits.remove(&record.id);
        take_up_container(shared, record, process).await;
    }
    for process in inits.into_values() {
        end_orphan(shared, process).await;
    }
    for process in execs {
        take_up_exec(shared, process);
    }
    shared.empty_trash();
    for container in shared.runtime.remove_stray_cgroups(live).await {
        shared.tasks.spawn(shared.runtime.remove_cgroup(&container));
    }
    let _ = ready.send(());
    Ok(())
}

async fn take_up_container(
    shared: &Arc<Shared>,
    mut record: ContainerRecord,
    process: Option<Process>,
) {
    let dirs = shared.store.container_dirs(&record.id);
    let unstarted =
        process.is_none() && record.config.auto_remove && !shared.rootfs.was_mounted(&dirs);
    if unstarted {
        // No state of such a container is recorded, and its row may have been made from its files.
        record.status = ContainerStatus::Created;
    } else if process.is_none() && record.config.auto_remove {
        let id = record.id.clone();
        let what = format!("remove container {}", record.name);
        let gone = shared
            .with_store(what, move |store| {
                store.remove_container(&id, Durability::Relaxed)
            })
            .await;
        if let Err(error) = gone {
            tracing::error!(
                container.id = record.id,
                error = crate::error::chain(&error)
            );
        }
        return;
    }
    let view = view_of(&record);
    // Killed between a start and its record.
    let unrecorded = process.is_some() && !matches!(record.status, ContainerStatus::Running { .. });
    let unseen = process.is_none() && matches!(record.status, ContainerStatus::Running { .. });
    let (container, ends) = insert(shared, record, view);
    if unseen {
        let status = ContainerStatus::Exited {
            started_at_ns: container.view().started_at_ns,
            finished_at_ns: container.view().finished_at_ns,
            code: None,
            error: Some(UNSEEN.to_owned()),
        };
        shared.recorder.record(&container.record, status, false);
    }
    let driver = Driver::new(Arc::clone(shared), container, ends, process);
    if unrecorded {
        driver.record_status();
    }
    shared.tasks.spawn(driver.drive());
}

/// Puts a container into the table.
pub(crate) fn insert(
    shared: &Shared,
    record: ContainerRecord,
    view: View,
) -> (Arc<Container>, DriverEnds) {
    let log = Log::new(shared.store.container_dirs(&record.id).log);
    let (container, ends) = Container::new(Arc::new(record), log, view);
    let mut tables = shared.tables();
    tables
        .names
        .insert(container.name().to_owned(), container.id().to_owned());
    tables
        .containers
        .insert(container.id().to_owned(), Arc::clone(&container));
    (container, ends)
}

/// What the record says, for a container whose process is not there.
pub(crate) fn view_of(record: &ContainerRecord) -> View {
    let mut view = View {
        phase: Phase::Created,
        run: 0,
        pid: None,
        started_at_ns: 0,
        finished_at_ns: 0,
        exit_code: None,
        error: None,
    };
    match &record.status {
        ContainerStatus::Created => {}
        ContainerStatus::Running { started_at_ns } => {
            view.phase = Phase::Exited;
            view.started_at_ns = *started_at_ns;
            view.finished_at_ns = crate::engine::now_ns();
            view.error = Some(UNSEEN.to_owned());
        }
        ContainerStatus::Exited {
            started_at_ns,
            finished_at_ns,
            code,
            error,
        } => {
            view.phase = Phase::Exited;
            view.started_at_ns = *started_at_ns;
            view.finished_at_ns = *finished_at_ns;
            view.exit_code = *code;
            view.error.clone_from(error);
        }
    }
    view
}

/// Ends a process that no container on record owns.
async fn end_orphan(shared: &Arc<Shared>, process: Process) {
    tracing::warn!(
        container.id = process.key.container,
        "a process without a record is ended"
    );
    if let Some(pidfd) = &process.pidfd {
        let _ = rcd_sys::pidfd::send_signal(pidfd.as_fd(), nix::sys::signal::SIGKILL as i32);
    }
    if process.exit.is_some() {
        let container = &process.key.container;
        shared.runtime.remove_cgroup(container).await;
        shared.runtime.acknowledge(process.key).await;
    }
}

fn take_up_exec(shared: &Arc<Shared>, process: Process) {
    let exec = Exec::new(process.key.clone());
    if let Err(error) = exec.take_up(process.stdio) {
        tracing::error!(
            error = crate::error::chain(&error),
            "cannot take up an exec"
        );
    }
    let id = process.key.exec.clone().unwrap_or_default();
    shared.tables().execs.insert(id, Arc::clone(&exec));
    exec.read_unless_taken(shared, crate::container::exec::reattach_patience());
}

/// Hands the runtime's events to whom they concern. Never waits for the runtime, which may be
/// waiting for its events to be taken.
async fn dispatch(
    shared: Arc<Shared>,
    mut events: mpsc::Receiver<Event>,
    tables_ready: oneshot::Receiver<()>,
) {
    let mut early = Vec::new();
    tokio::pin!(tables_ready);
    loop {
        tokio::select! {
            _ = &mut tables_ready => break,
            event = events.recv() => match event {
                Some(event) => early.push(event),
                None => break,
            },
        }
    }
    for event in early {
        handle(&shared, event);
    }
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => handle(&shared, event),
                None => return,
            },
        }
    }
}

fn handle(shared: &Arc<Shared>, event: Event) {
    match event {
        Event::Exited { key, exit } if key.exec.is_some() => execs::ended(shared, key, exit),
        Event::Exited { key, exit } => {
            let container = shared.tables().containers.get(&key.container).cloned();
            match container {
                Some(container) => container.report_exit(exit),
                // An orphan that was just ended, or one whose start was abandoned.
                None => {
                    let runtime = Arc::clone(&shared.runtime);
                    shared.tasks.spawn(async move {
                        runtime.remove_cgroup(&key.container).await;
                        runtime.acknowledge(key).await;
                    });
                }
            }
        }
        Event::HolderStopping => {
            tracing::info!("the holder is stopping all containers");
            shared.holder_stopping.cancel();
        }
        Event::HolderGone => {
            tracing::warn!("the holder is gone");
            shared.holder_gone.cancel();
        }
    }
}
