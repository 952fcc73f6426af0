//! Puts state changes on record, behind everybody's back.
//!
//! Starts and exits must survive a SIGKILL of the daemon, but nobody waits for the disk: until an
//! exit is written, the holder remembers it. One task takes records in order, writes them in batches
//! on a blocking thread, and acknowledges to the holder the exits that are written. A full queue
//! drops nothing: the entry is kept by the sender's task.

use std::sync::Arc;

use rcd_runtime::ProcessKey;
use rcd_store::{ContainerRecord, ContainerStatus};
use rcd_store::{Durability, Store};
use rcd_sys::failpoint;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::chain;
use crate::platform::Runtime;

/// How many records are written in one go.
const BATCH_MAX: usize = 128;

enum Entry {
    /// A state to write.
    State {
        record: Box<ContainerRecord>,
        /// The exit that this puts on record.
        acknowledge: Option<ProcessKey>,
    },
    /// Answered when all before it is written.
    Barrier(oneshot::Sender<()>),
}

/// Queue to the recording task.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    // Unbounded by type, bounded by use: a driver adds one entry a start and one an end, and both
    // take longer than writing one.
    queue: mpsc::UnboundedSender<Entry>,
}

impl Recorder {
    /// Starts the task. At `shutdown` it writes what is queued, and ends.
    pub(crate) fn start(
        store: Store,
        runtime: Arc<dyn Runtime>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Recorder {
        let (queue, entries) = mpsc::unbounded_channel();
        tasks.spawn(run(store, runtime, entries, shutdown));
        Recorder { queue }
    }

    /// Queues `status` for `record`; `ended` says that an exit may be acknowledged by it.
    pub(crate) fn record(&self, record: &ContainerRecord, status: ContainerStatus, ended: bool) {
        let record = Box::new(ContainerRecord {
            status,
            ..record.clone()
        });
        let key = ProcessKey {
            container: record.id.clone(),
            exec: None,
        };
        let entry = Entry::State {
            record,
            acknowledge: ended.then_some(key),
        };
        if self.queue.send(entry).is_err() {
            tracing::debug!("a state change came after the recorder had stopped");
        }
    }

    /// Waits until everything queued so far is written: a removal must not be overtaken by a record
    /// of what it removes.
    pub(crate) async fn settle(&self) {
        let (answer, answered) = oneshot::channel();
        if self.queue.send(Entry::Barrier(answer)).is_ok() {
            let _ = answered.await;
        }
    }
}

async fn run(
    store: Store,
    runtime: Arc<dyn Runtime>,
    mut entries: mpsc::UnboundedReceiver<Entry>,
    shutdown: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        let count = tokio::select! {
            count = entries.recv_many(&mut batch, BATCH_MAX) => count,
            () = shutdown.cancelled(), if !entries.is_closed() => {
                entries.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let store = store.clone();
        let work = std::mem::take(&mut batch);
        let written = tokio::task::spawn_blocking(move || write(&store, work)).await;
        failpoint::reach("state.recorded");
        for key in written.unwrap_or_default() {
            runtime.acknowledge(key).await;
            failpoint::reach("state.acknowledged");
        }
    }
}

/// Writes a batch, the last entry with a flush that covers all of it. Returns the exits on record.
fn write(store: &Store, batch: Vec<Entry>) -> Vec<ProcessKey> {
    let states = batch
        .iter()
        .filter(|entry| matches!(entry, Entry::State { .. }))
        .count();
    let mut written = Vec::new();
    let mut barriers = Vec::new();
    let mut number = 0;
    for entry in batch {
        let (record, acknowledge) = match entry {
            Entry::State {
                record,
                acknowledge,
            } => (record, acknowledge),
            Entry::Barrier(answer) => {
                barriers.push(answer);
                continue;
            }
        };
        number += 1;
        let durability = if number == states {
            Durability::Written
        } else {
            Durability::Relaxed
        };
        match store.put_container(&record, durability) {
            Ok(()) => written.extend(acknowledge),
            Err(error) => tracing::error!(
                container.id = record.id,
                error = chain(&error),
                "cannot record a state change"
            ),
        }
    }
    for answer in barriers {
        let _ = answer.send(());
    }
    written
}
