//! Images: found by name, pulled from registries, imported from archives, removed.

pub(crate) mod import;
mod layers;
pub(crate) mod lookup;
pub(crate) mod pull;
mod record;
pub(crate) mod remove;

use std::sync::Arc;

use rcd_registry::Reference;
use rcd_store::ImageRecord;
use rcd_sys::failpoint;

use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};
use crate::types::ImageInfo;

impl Engine {
    /// All images, newest first.
    pub fn images(&self) -> Vec<ImageInfo> {
        let tables = self.shared.tables();
        let info = |record: &Arc<ImageRecord>| ImageInfo {
            record: Arc::clone(record),
            containers: tables.users_of(&record.id).len(),
        };
        let mut all: Vec<_> = tables.images.values().map(info).collect();
        drop(tables);
        all.sort_by_key(|info| std::cmp::Reverse(info.record.created_at_ns));
        all
    }

    /// One image, by reference, id, or prefix of an id.
    ///
    /// # Errors
    /// No such image, or more than one.
    pub fn image(&self, wanted: &str) -> Result<ImageInfo> {
        let tables = self.shared.tables();
        let record = lookup::image(&tables, wanted)?;
        let containers = tables.users_of(&record.id).len();
        Ok(ImageInfo { record, containers })
    }
}

/// Reads a reference that a user gave.
fn parse_reference(text: &str) -> Result<Reference> {
    text.parse().map_err(|source| Error::InvalidReference {
        reference: text.to_owned(),
        reason: crate::error::chain(&source),
    })
}

/// Puts an image on record, durably, under `reference`, which another image loses.
pub(crate) async fn tag(
    shared: &Arc<Shared>,
    mut image: ImageRecord,
    reference: Option<String>,
) -> Result<Arc<ImageRecord>> {
    let _one_at_a_time = shared.pulls.tagging.lock().await;
    let mut changed = Vec::new();
    {
        let tables = shared.tables();
        if let Some(present) = tables.images.get(&image.id) {
            image.references.extend(present.references.iter().cloned());
        }
        if let Some(reference) = &reference {
            let loses = |other: &&Arc<ImageRecord>| {
                other.id != image.id && other.references.contains(reference)
            };
            for other in tables.images.values().filter(loses) {
                let mut other = ImageRecord::clone(other);
                other.references.retain(|r| r != reference);
                changed.push(other);
            }
        }
    }
    image.references.extend(reference);
    image.references.sort();
    image.references.dedup();
    // The new owner first: killed in between, two images claim the name, and the newer wins.
    changed.insert(0, image.clone());
    let written = changed.clone();
    shared
        .with_store(format!("record image {}", image.id), move |store| {
            written.iter().try_for_each(|image| {
                store.put_image(image)?;
                failpoint::reach("tag.recorded");
                Ok(())
            })
        })
        .await?;
    let mut tables = shared.tables();
    for image in changed {
        tables.images.insert(image.id.clone(), Arc::new(image));
    }
    tables.images.get(&image.id).cloned().ok_or(Error::Stopping)
}
