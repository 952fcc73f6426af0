//! Pulling: all layers at once, each unpacked while it arrives, then the record.
//!
//! A layer becomes visible when it is whole and verified, an image when all its layers are. So an
//! interrupted pull leaves whole layers, which the next one finds, and nothing else. Two pulls that
//! need the same layer fetch it once: the second waits for the first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use rcd_registry::{Layer, Platform, Reference, Resolved};
use rcd_store::LayerSource;
use rcd_sys::failpoint;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

use super::{layers, parse_reference, record, tag};
use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};
use crate::tables::{hold, release};
use crate::types::{LayerProgress, LayerState, PullEvent};

/// How many layers of all pulls together are fetched and unpacked at once. Each has a thread of its
/// own.
const LAYERS_AT_ONCE_MAX: usize = 16;

/// How many imports go on at once, for the same reason; their threads wait for clients.
const IMPORTS_AT_ONCE_MAX: usize = 8;

/// How often progress is told.
const PROGRESS_MS: u64 = 100;

/// Events that wait for a slow listener. A full queue slows down the progress, not the pull.
const EVENTS_MAX: usize = 16;

/// What pulls share.
#[derive(Debug)]
pub(crate) struct Pulls {
    /// One lock for each layer that is being unpacked.
    layers: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while references move from image to image, and while layers are collected.
    pub(crate) tagging: tokio::sync::Mutex<()>,
    layers_at_once: Arc<Semaphore>,
    imports_at_once: Arc<Semaphore>,
}

impl Default for Pulls {
    fn default() -> Pulls {
        Pulls {
            layers: Mutex::default(),
            tagging: tokio::sync::Mutex::default(),
            layers_at_once: Arc::new(Semaphore::new(LAYERS_AT_ONCE_MAX)),
            imports_at_once: Arc::new(Semaphore::new(IMPORTS_AT_ONCE_MAX)),
        }
    }
}

impl Pulls {
    /// A place for an import, until it is dropped.
    pub(super) fn admit_import(&self) -> Result<OwnedSemaphorePermit> {
        let admitted = Arc::clone(&self.imports_at_once).try_acquire_owned();
        admitted.map_err(|_| Error::Busy {
            what: "imports at once",
            max: IMPORTS_AT_ONCE_MAX,
        })
    }

    fn layer(&self, diff_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(layers.entry(diff_id.to_owned()).or_default())
    }
}

/// A pull under way. Dropping it gives the pull up.
#[derive(Debug)]
pub struct PullSession {
    events: mpsc::Receiver<Result<PullEvent>>,
    _cancel: DropGuard,
}

impl PullSession {
    /// The next event; none after [`PullEvent::Done`] or an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<PullEvent>> {
        self.events.recv().await
    }
}

impl Engine {
    /// Begins to pull `reference` for `platform` (`os/architecture[/variant]`, the machine's own if
    /// absent).
    ///
    /// # Errors
    /// Not a reference, not a platform. What goes wrong later is an event.
    pub fn pull(&self, reference: &str, platform: Option<&str>) -> Result<PullSession> {
        let parsed = parse_reference(reference)?;
        let platform = platform
            .map(str::parse::<Platform>)
            .transpose()
            .map_err(|source| Error::invalid("platform", crate::error::chain(&source)))?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let cancel = self.shared.shutdown.child_token();
        let shared = Arc::clone(&self.shared);
        let token = cancel.clone();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = run(shared, parsed, platform, sender) => {}
            }
        });
        Ok(PullSession {
            events,
            _cancel: cancel.drop_guard(),
        })
    }
}

type Events = mpsc::Sender<Result<PullEvent>>;

async fn run(
    shared: Arc<Shared>,
    reference: Reference,
    platform: Option<Platform>,
    events: Events,
) {
    let result = pull(&shared, &reference, platform.as_ref(), &events).await;
    let last = result.map_err(|error| match error {
        error @ Error::Pull { .. } => error,
        error => Error::Pull {
            reference: reference.to_string(),
            source: Box::new(error),
        },
    });
    let _ = events.send(last).await;
}

async fn pull(
    shared: &Arc<Shared>,
    reference: &Reference,
    platform: Option<&Platform>,
    events: &Events,
) -> Result<PullEvent> {
    let resolved = shared
        .registry
        .resolve(reference, platform)
        .await
        .map_err(failed(reference))?;
    let resolved = Arc::new(resolved);
    let _held = {
        // Either a collection under way ends first, or it sees that these layers are needed.
        let _no_collection = shared.pulls.tagging.lock().await;
        HeldLayers::new(shared, &resolved)
    };
    let wanted = Arc::clone(&resolved);
    let present = shared
        .with_store("look for layers", move |store| {
            let diff_ids = wanted.layers.iter().map(|layer| &layer.diff_id);
            Ok(diff_ids.map(|diff_id| store.has_layer(diff_id)).collect())
        })
        .await?;
    let progress = Arc::new(Progress::new(&resolved, present));
    let first = PullEvent::Resolved {
        reference: reference.to_string(),
        layers: progress.all(),
    };
    let _ = events.send(Ok(first)).await;

    let size_bytes = tokio::select! {
        fetched = fetch_layers(shared, reference, &resolved, &progress) => fetched?,
        () = tell(&progress, events) => 0,
    };
    let changed = progress.changed();
    if !changed.is_empty() {
        let _ = events.send(Ok(PullEvent::Progress(changed))).await;
    }
    failpoint::reach("pull.layers");

    let mut image = record::parse(
        &resolved.config_digest,
        &resolved.manifest_digest,
        &resolved.config,
    )?;
    image.size_bytes = size_bytes;
    let blobs = Arc::clone(&resolved);
    shared
        .with_store(format!("keep the manifest of {reference}"), move |store| {
            store.put_blob(&blobs.config_digest, &blobs.config)?;
            failpoint::reach("pull.config");
            store.put_blob(&blobs.manifest_digest, &blobs.manifest)
        })
        .await?;
    failpoint::reach("pull.blobs");
    let image = tag(shared, image, Some(reference.to_string())).await?;
    Ok(PullEvent::Done {
        image_id: image.id.clone(),
        manifest_digest: image.manifest_digest.clone(),
    })
}

fn failed(reference: &Reference) -> impl FnOnce(rcd_registry::Error) -> Error + '_ {
    |source| Error::Pull {
        reference: reference.to_string(),
        source: Box::new(source),
    }
}

/// Fetches and unpacks what is missing. Returns the unpacked bytes of all layers. On an error the
/// others are given up.
async fn fetch_layers(
    shared: &Arc<Shared>,
    reference: &Reference,
    resolved: &Arc<Resolved>,
    progress: &Arc<Progress>,
) -> Result<u64> {
    let at_once = &shared.pulls.layers_at_once;
    let mut tasks = JoinSet::new();
    for index in 0..resolved.layers.len() {
        let (shared, resolved) = (Arc::clone(shared), Arc::clone(resolved));
        let (progress, at_once) = (Arc::clone(progress), Arc::clone(at_once));
        let reference = reference.clone();
        tasks.spawn(async move {
            let _place = at_once.acquire_owned().await;
            fetch_layer(&shared, &reference, &resolved, index, &progress).await
        });
    }
    let mut size_bytes = 0_u64;
    while let Some(done) = tasks.join_next().await {
        let done = done.unwrap_or_else(|e| Err(Error::io("fetch a layer")(e.into())));
        size_bytes = size_bytes.saturating_add(done?);
    }
    Ok(size_bytes)
}

async fn fetch_layer(
    shared: &Arc<Shared>,
    reference: &Reference,
    resolved: &Resolved,
    index: usize,
    progress: &Progress,
) -> Result<u64> {
    let layer = &resolved.layers[index];
    let lock = shared.pulls.layer(&layer.diff_id);
    let _turn = lock.lock().await;
    let diff_id = layer.diff_id.clone();
    let size = shared
        .with_store("look for a layer", move |store| store.layer_size(&diff_id))
        .await?;
    if let Some(size) = size {
        progress.layers[index].set(LayerState::Exists);
        return Ok(size);
    }
    progress.layers[index].set(LayerState::Pulling);
    let (pipe, reader) = layers::pipe();
    let fetched = async {
        // Dropped at the end whatever happens: the reader must not wait for a sender that is done.
        let pipe = pipe;
        let mut bytes = shared.registry.layer(resolved, index).await?;
        while let Some(piece) = bytes.next().await {
            let piece = piece?;
            progress.layers[index]
                .received
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            if !pipe.send(piece).await {
                break;
            }
        }
        pipe.end().await;
        Ok::<(), rcd_registry::Error>(())
    };
    let (fetched, unpacked) = tokio::join!(fetched, layers::unpack(shared, reader, source(layer)));
    // What the registry did wrong explains what the unpacking then met.
    fetched.map_err(failed(reference))?;
    let unpacked = unpacked?;
    progress.layers[index].set(LayerState::Done);
    failpoint::reach("pull.layer");
    Ok(unpacked.size_bytes)
}

fn source(layer: &Layer) -> LayerSource {
    LayerSource {
        digest: Some(layer.digest.clone()),
        size: Some(layer.size),
        diff_id: Some(layer.diff_id.clone()),
        compression: match layer.compression {
            rcd_registry::Compression::None => rcd_store::Compression::None,
            rcd_registry::Compression::Gzip => rcd_store::Compression::Gzip,
            rcd_registry::Compression::Zstd => rcd_store::Compression::Zstd,
        },
    }
}

/// Tells what has changed, from time to time, for ever.
async fn tell(progress: &Progress, events: &Events) {
    let mut ticks = tokio::time::interval(Duration::from_millis(PROGRESS_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let changed = progress.changed();
        if !changed.is_empty() {
            let _ = events.send(Ok(PullEvent::Progress(changed))).await;
        }
    }
}

/// Keeps a pull's layers from being collected before its image is on record.
struct HeldLayers {
    shared: Arc<Shared>,
    resolved: Arc<Resolved>,
}

impl HeldLayers {
    fn new(shared: &Arc<Shared>, resolved: &Arc<Resolved>) -> HeldLayers {
        let mut tables = shared.tables();
        tables.pulls += 1;
        for layer in &resolved.layers {
            hold(&mut tables.layer_holds, &layer.diff_id);
        }
        HeldLayers {
            shared: Arc::clone(shared),
            resolved: Arc::clone(resolved),
        }
    }
}

impl Drop for HeldLayers {
    fn drop(&mut self) {
        let mut tables = self.shared.tables();
        tables.pulls -= 1;
        for layer in &self.resolved.layers {
            release(&mut tables.layer_holds, &layer.diff_id);
        }
    }
}

/// Progress of all layers, and what of it was told.
struct Progress {
    layers: Vec<LayerCounters>,
    told: Mutex<Vec<LayerProgress>>,
}

struct LayerCounters {
    digest: String,
    total: u64,
    received: AtomicU64,
    state: Mutex<LayerState>,
}

impl LayerCounters {
    fn set(&self, state: LayerState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn now(&self) -> LayerProgress {
        LayerProgress {
            digest: self.digest.clone(),
            state: *self.state.lock().unwrap_or_else(PoisonError::into_inner),
            received_bytes: self.received.load(Ordering::Relaxed),
            total_bytes: self.total,
        }
    }
}

impl Progress {
    fn new(resolved: &Resolved, present: Vec<bool>) -> Progress {
        let counters = |(layer, present): (&Layer, bool)| LayerCounters {
            digest: layer.digest.clone(),
            total: layer.size,
            received: AtomicU64::new(0),
            state: Mutex::new(match present {
                true => LayerState::Exists,
                false => LayerState::Waiting,
            }),
        };
        let layers: Vec<_> = resolved.layers.iter().zip(present).map(counters).collect();
        let told = layers.iter().map(LayerCounters::now).collect();
        Progress {
            layers,
            told: Mutex::new(told),
        }
    }

    fn all(&self) -> Vec<LayerProgress> {
        self.layers.iter().map(LayerCounters::now).collect()
    }

    /// Layers that differ from what was told last.
    fn changed(&self) -> Vec<LayerProgress> {
        let now = self.all();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = now
            .iter()
            .zip(told.iter())
            .filter(|(now, told)| now != told);
        let changed = changed.map(|(now, _)| now.clone()).collect();
        *told = now;
        changed
    }
}
