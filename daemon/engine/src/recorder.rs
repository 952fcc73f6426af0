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
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::error::chain;
use crate::platform::Runtime;

/// How many records are written in one go.
const BATCH_MAX: usize = 128;

struct Entry {
    record: ContainerRecord,
    /// The exit that this puts on record.
    acknowledge: Option<ProcessKey>,
}

/// Queue to the recording task.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    // Unbounded by type, bounded by use: a driver adds one entry a start and one an end, and both
    // take longer than writing one.
    queue: mpsc::UnboundedSender<Entry>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.record.id).finish()
    }
}

impl Recorder {
    /// Starts the task. It ends when every sender is gone and all is written.
    pub(crate) fn start(store: Store, runtime: Arc<dyn Runtime>, tasks: &TaskTracker) -> Recorder {
        let (queue, entries) = mpsc::unbounded_channel();
        tasks.spawn(run(store, runtime, entries));
        Recorder { queue }
    }

    /// Queues `status` for `record`; `ended` says that an exit may be acknowledged by it.
    pub(crate) fn record(&self, record: &ContainerRecord, status: ContainerStatus, ended: bool) {
        let record = ContainerRecord { status, ..record.clone() };
        let key = ProcessKey { container: record.id.clone(), exec: None };
        let entry = Entry { record, acknowledge: ended.then_some(key) };
        if self.queue.send(entry).is_err() {
            tracing::debug!("a state change came after the recorder had stopped");
        }
    }
}

async fn run(
    store: Store,
    runtime: Arc<dyn Runtime>,
    mut entries: mpsc::UnboundedReceiver<Entry>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while entries.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let store = store.clone();
        let work = std::mem::take(&mut batch);
        let written = tokio::task::spawn_blocking(move || write(&store, work)).await;
        for key in written.unwrap_or_default() {
            runtime.acknowledge(key).await;
        }
    }
}

/// Writes a batch, the last entry with a flush that covers all of it. Returns the exits on record.
fn write(store: &Store, batch: Vec<Entry>) -> Vec<ProcessKey> {
    let last = batch.len().saturating_sub(1);
    let mut written = Vec::new();
    for (number, entry) in batch.into_iter().enumerate() {
        let durability = if number == last { Durability::Written } else { Durability::Relaxed };
        match store.put_container(&entry.record, durability) {
            Ok(()) => written.extend(entry.acknowledge),
            Err(error) => tracing::error!(
                container.id = entry.record.id,
                error = chain(&error),
                "cannot record a state change"
            ),
        }
    }
    written
}
