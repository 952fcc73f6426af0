//! Removing images: a reference at a time, and the image with its last one.

use std::sync::Arc;

use rcd_registry::Reference;
use rcd_store::ImageRecord;
use rcd_sys::failpoint;

use super::lookup;
use crate::container::Container;
use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};
use crate::names::short_id;

/// What a removal took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRemoval {
    /// References.
    pub untagged: Vec<String>,
    /// Ids of images.
    pub deleted: Vec<String>,
}

/// What is to be done about an image.
enum Plan {
    /// Take one reference; others remain.
    Untag {
        image: Box<ImageRecord>,
        reference: String,
    },
    /// Delete it, its references and these ended containers.
    Delete {
        image: Arc<ImageRecord>,
        users: Vec<Arc<Container>>,
    },
}

impl Engine {
    /// Removes a reference, and the image if it was the last; by id, the image with all its
    /// references if `force` is given or there is one at most.
    ///
    /// # Errors
    /// No such image; containers use it (with `force`: running ones); several references name it.
    pub async fn remove_image(&self, wanted: &str, force: bool) -> Result<ImageRemoval> {
        let shared = &self.shared;
        let _one_at_a_time = shared.pulls.tagging.lock().await;
        match plan(shared, wanted, force)? {
            Plan::Untag { image, reference } => {
                let written = ImageRecord::clone(&image);
                let what = format!("take the name {reference} from image {}", image.id);
                shared
                    .with_store(what, move |store| store.put_image(&written))
                    .await?;
                failpoint::reach("rmi.untagged");
                shared
                    .tables()
                    .images
                    .insert(image.id.clone(), Arc::from(image));
                Ok(ImageRemoval {
                    untagged: vec![reference],
                    deleted: Vec::new(),
                })
            }
            Plan::Delete { image, users } => {
                for user in users {
                    user.remove(true).await?;
                }
                failpoint::reach("rmi.containers");
                delete(shared, &image).await?;
                Ok(ImageRemoval {
                    untagged: image.references.clone(),
                    deleted: vec![image.id.clone()],
                })
            }
        }
    }
}

fn plan(shared: &Shared, wanted: &str, force: bool) -> Result<Plan> {
    let tables = shared.tables();
    let image = lookup::image(&tables, wanted)?;
    let named = image
        .references
        .iter()
        .find(|reference| names(reference, wanted))
        .cloned();
    match named {
        Some(reference) if image.references.len() > 1 => {
            let mut image = Box::new(ImageRecord::clone(&image));
            image.references.retain(|r| *r != reference);
            return Ok(Plan::Untag { image, reference });
        }
        None if image.references.len() > 1 && !force => {
            let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
            return Err(Error::ImageNamedTwice {
                id: short_id(id).to_owned(),
                references: image.references.clone(),
            });
        }
        _ => {}
    }
    let users = tables.users_of(&image.id);
    let in_the_way = |c: &&Arc<Container>| !force || c.view().phase.is_live();
    let mut containers: Vec<String> = users
        .iter()
        .filter(in_the_way)
        .map(|c| c.name().to_owned())
        .collect();
    if tables.image_holds.contains_key(&image.id) {
        containers.push("a container that is being made".to_owned());
    }
    match containers.is_empty() {
        true => Ok(Plan::Delete { image, users }),
        false => Err(Error::ImageInUse {
            reference: wanted.to_owned(),
            containers,
        }),
    }
}

/// Whether `wanted`, which led to an image, meant it by this reference rather than by its id.
fn names(reference: &str, wanted: &str) -> bool {
    let full = wanted.parse::<Reference>().map(|r| r.to_string());
    full.is_ok_and(|full| full == reference)
        || reference.ends_with(&format!("/{wanted}"))
        || reference.ends_with(&format!("/{wanted}:latest"))
}

/// Takes an image off the record, then collects the layers and blobs that nobody needs any more.
async fn delete(shared: &Arc<Shared>, image: &ImageRecord) -> Result<()> {
    let id = image.id.clone();
    // Out of the table first: no container can be made of it from here on.
    shared.tables().images.remove(&image.id);
    let removed = shared
        .with_store(format!("remove image {id}"), move |store| {
            store.remove_image(&id)
        })
        .await;
    if let Err(error) = removed {
        shared
            .tables()
            .images
            .insert(image.id.clone(), Arc::new(image.clone()));
        return Err(error);
    }
    failpoint::reach("rmi.removed");
    let in_use = {
        let tables = shared.tables();
        let blobs = (tables.pulls == 0).then(|| tables.blobs_in_use());
        (tables.imports == 0).then(|| (tables.layers_in_use(), blobs))
    };
    // With an import, or for blobs a pull, under way, the next removal collects.
    if let Some((in_use, blobs)) = in_use {
        shared
            .with_store("collect layers and blobs", move |store| {
                store.collect_layers(&in_use)?;
                blobs.map_or(Ok(()), |blobs| store.collect_blobs(&blobs).map(drop))
            })
            .await?;
        shared.empty_trash();
    }
    Ok(())
}
