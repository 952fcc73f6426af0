//! What the engine holds in memory: containers, images, execs, by id and by name.
//!
//! One lock over plain maps, held for look-ups and edits only, never over a system call or an await.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcd_store::ImageRecord;

use crate::container::Container;
use crate::container::exec::Exec;
use crate::error::{Error, Result};
use crate::names::{is_id_prefix, short_id};

/// How long the exit code and the log of a container removed at its end (`--rm`) can be asked for by
/// id: a client whose connection broke comes back for them.
const ENDED_S_MAX: u64 = 60;

/// How many such containers are remembered.
const ENDED_MAX: usize = 1024;

/// How many containers there can be. Each costs a task and some kilobytes.
pub(crate) const CONTAINERS_MAX: usize = 16_384;

/// How many execs run, or have just ended, at once.
pub(crate) const EXECS_MAX: usize = 4096;

/// How many containers are told when a prefix fits several.
const CANDIDATES_MAX: usize = 8;

/// Everything by id and name.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) containers: HashMap<String, Arc<Container>>,
    /// Name to id. A name is entered before its container is made, so that it is taken once.
    pub(crate) names: HashMap<String, String>,
    pub(crate) execs: HashMap<String, Arc<Exec>>,
    pub(crate) images: HashMap<String, Arc<ImageRecord>>,
    /// How many containers that are being made use an image that they are not in the table for yet.
    pub(crate) image_holds: HashMap<String, usize>,
    /// Layers that a pull has made or found and that no image names yet, with a count.
    pub(crate) layer_holds: HashMap<String, usize>,
    /// Pulls whose layers are held.
    pub(crate) pulls: usize,
    /// Imports under way.
    pub(crate) imports: usize,
    ended: VecDeque<(Instant, Arc<Container>)>,
}

impl Tables {
    /// Finds a container by name, id, or the beginning of an id or else of a name.
    pub(crate) fn container(&self, wanted: &str) -> Result<Arc<Container>> {
        if let Some(found) = self.containers.get(wanted) {
            return Ok(Arc::clone(found));
        }
        if let Some(found) = self
            .names
            .get(wanted)
            .and_then(|id| self.containers.get(id))
        {
            return Ok(Arc::clone(found));
        }
        let missing = || Error::NoSuchContainer {
            id: wanted.to_owned(),
        };
        let all = || self.containers.values();
        let begins = |c: &&Arc<Container>| is_id_prefix(wanted) && c.id().starts_with(wanted);
        if let Some(found) = only(wanted, all().filter(begins), |c| short_id(c.id()))? {
            return Ok(found);
        }
        let begins = |c: &&Arc<Container>| !wanted.is_empty() && c.name().starts_with(wanted);
        only(wanted, all().filter(begins), Container::name)?.ok_or_else(missing)
    }

    /// The same, or by full id one that was removed at its end a moment ago.
    pub(crate) fn container_or_ended(&self, wanted: &str) -> Result<Arc<Container>> {
        let ended = || {
            self.ended
                .iter()
                .find(|(_, c)| c.id() == wanted)
                .map(|(_, c)| c.clone())
        };
        self.container(wanted).or_else(|error| ended().ok_or(error))
    }

    /// Remembers a container that was removed at its end.
    pub(crate) fn remember_ended(&mut self, container: Arc<Container>) {
        let now = Instant::now();
        let old = |at: &Instant| now.duration_since(*at) > Duration::from_secs(ENDED_S_MAX);
        while self.ended.len() >= ENDED_MAX || self.ended.front().is_some_and(|(at, _)| old(at)) {
            self.ended.pop_front();
        }
        self.ended.push_back((now, container));
    }

    /// Takes a container and its name out.
    pub(crate) fn forget(&mut self, container: &Container) {
        self.containers.remove(container.id());
        if self
            .names
            .get(container.name())
            .is_some_and(|id| id == container.id())
        {
            self.names.remove(container.name());
        }
    }

    /// Containers that use an image, by name.
    pub(crate) fn users_of(&self, image_id: &str) -> Vec<Arc<Container>> {
        let uses = |c: &&Arc<Container>| c.record.image_id == image_id;
        self.containers.values().filter(uses).cloned().collect()
    }

    /// Blobs that an image needs. Those of pulls and imports under way are not among them.
    pub(crate) fn blobs_in_use(&self) -> Vec<String> {
        let images = self.images.values();
        let digests = images.flat_map(|image| [&image.id, &image.manifest_digest]);
        digests.cloned().collect()
    }

    /// Layers that an image, a container, or a pull under way needs.
    pub(crate) fn layers_in_use(&self) -> Vec<String> {
        let of_images = self.images.values().flat_map(|image| image.diff_ids.iter());
        let of_containers = self
            .containers
            .values()
            .flat_map(|c| c.record.layers.iter());
        let all = of_images
            .chain(of_containers)
            .chain(self.layer_holds.keys());
        let mut layers: Vec<String> = all.cloned().collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }
}

/// The one container that fits `wanted`, if any does. Several are told as `shown`.
fn only<'a>(
    wanted: &str,
    fits: impl Iterator<Item = &'a Arc<Container>>,
    shown: impl Fn(&'a Container) -> &'a str,
) -> Result<Option<Arc<Container>>> {
    let fits: Vec<_> = fits.collect();
    match fits.as_slice() {
        [] => Ok(None),
        [found] => Ok(Some(Arc::clone(found))),
        _ => {
            let mut candidates: Vec<_> = fits.iter().map(|c| shown(c).to_owned()).collect();
            candidates.sort_unstable();
            candidates.truncate(CANDIDATES_MAX);
            Err(Error::AmbiguousContainer {
                id: wanted.to_owned(),
                candidates,
            })
        }
    }
}

/// Counts one up in a table of holds.
pub(crate) fn hold(holds: &mut HashMap<String, usize>, key: &str) {
    *holds.entry(key.to_owned()).or_insert(0) += 1;
}

/// Counts one down.
pub(crate) fn release(holds: &mut HashMap<String, usize>, key: &str) {
    if let Some(count) = holds.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            holds.remove(key);
        }
    }
}
