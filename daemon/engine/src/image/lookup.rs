//! Finding a local image by what a user calls it.
//!
//! In this order: the full reference; the reference as Docker completes it (`debian` is
//! `docker.io/library/debian:latest`); an image of any registry whose repository ends in that name
//! and whose tag fits, if there is just one; an id or the beginning of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcd_registry::Reference;
use rcd_store::ImageRecord;

use crate::error::{Error, Result};
use crate::names::is_id_prefix;
use crate::tables::Tables;

/// Finds the image that `wanted` names.
pub(crate) fn image(tables: &Tables, wanted: &str) -> Result<Arc<ImageRecord>> {
    let images = || tables.images.values();
    if let Some(image) = tables.images.get(wanted) {
        return Ok(Arc::clone(image));
    }
    let reference = wanted.parse::<Reference>().ok();
    if let Some(reference) = &reference {
        let full = reference.to_string();
        if let Some(image) = images().find(|image| is_named(image, reference, &full)) {
            return Ok(Arc::clone(image));
        }
        let ends = images().filter(|image| has_short_name(image, wanted, reference));
        if let Some(image) = only(wanted, ends)? {
            return Ok(image);
        }
    }
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    if is_id_prefix(digits) {
        let begins = |image: &&Arc<ImageRecord>| {
            image
                .id
                .strip_prefix("sha256:")
                .is_some_and(|id| id.starts_with(digits))
        };
        if let Some(image) = only(wanted, images().filter(begins))? {
            return Ok(image);
        }
    }
    Err(Error::NoSuchImage {
        reference: wanted.to_owned(),
    })
}

/// Whether the full reference names `image`. One with a digest names it by that.
fn is_named(image: &ImageRecord, reference: &Reference, full: &str) -> bool {
    match reference.digest() {
        None => image.references.iter().any(|r| r == full),
        Some(digest) => {
            let repository = format!("{}/{}", reference.registry(), reference.repository());
            image.manifest_digest == digest
                && image
                    .references
                    .iter()
                    .any(|r| repository_of(r) == repository)
        }
    }
}

/// Whether a name without a registry fits `image` whatever registry it came from.
fn has_short_name(image: &ImageRecord, wanted: &str, reference: &Reference) -> bool {
    let first = wanted.split(['/', '@']).next().unwrap_or_default();
    let names_registry =
        wanted.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let Some(tag) = reference
        .tag()
        .filter(|_| !names_registry && reference.digest().is_none())
    else {
        return false;
    };
    let path = wanted.split(':').next().unwrap_or_default();
    let ending = format!("/{path}:{tag}");
    image.references.iter().any(|r| r.ends_with(&ending))
}

/// `registry/repository` of a full reference.
fn repository_of(full: &str) -> &str {
    let bare = full.split('@').next().unwrap_or(full);
    match bare.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => bare,
    }
}

fn only<'a>(
    wanted: &str,
    images: impl Iterator<Item = &'a Arc<ImageRecord>>,
) -> Result<Option<Arc<ImageRecord>>> {
    let found: BTreeMap<&str, &Arc<ImageRecord>> = images.map(|i| (i.id.as_str(), i)).collect();
    if found.len() > 1 {
        let name =
            |image: &&Arc<ImageRecord>| image.references.first().unwrap_or(&image.id).clone();
        return Err(Error::AmbiguousImage {
            reference: wanted.to_owned(),
            candidates: found.values().take(8).map(name).collect(),
        });
    }
    Ok(found.into_values().next().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let mut tables = Tables::default();
        for (id, references) in [
            (
                "sha256:aa11",
                vec![
                    "docker.io/library/alpine:3",
                    "docker.io/library/busybox:latest",
                ],
            ),
            ("sha256:aa22", vec!["127.0.0.1:5000/debian:12"]),
            (
                "sha256:bb33",
                vec!["127.0.0.1:5000/team/app:1", "localhost/tool:1"],
            ),
            ("sha256:bb44", vec!["example.org/tool:1"]),
        ] {
            let image = ImageRecord {
                id: id.to_owned(),
                manifest_digest: format!("sha256:{}", "0".repeat(64)),
                references: references.into_iter().map(str::to_owned).collect(),
                ..Default::default()
            };
            tables.images.insert(id.to_owned(), Arc::new(image));
        }
        tables
    }

    #[test]
    fn an_image_is_found_by_every_name_that_fits_it_alone() {
        let tables = tables();
        let check = |wanted: &str, id: Option<&str>| {
            assert_eq!(
                image(&tables, wanted).ok().map(|i| i.id.clone()).as_deref(),
                id,
                "{wanted}"
            );
        };
        check("alpine:3", Some("sha256:aa11"));
        check("docker.io/library/alpine:3", Some("sha256:aa11"));
        check("busybox", Some("sha256:aa11"));
        check("alpine", None);
        check("debian:12", Some("sha256:aa22"));
        check("127.0.0.1:5000/debian:12", Some("sha256:aa22"));
        check("127.0.0.1:5001/debian:12", None);
        check("app:1", Some("sha256:bb33"));
        check("team/app:1", Some("sha256:bb33"));
        check("am/app:1", None);
        check("tool:1", None); // two fit
        check("sha256:bb33", Some("sha256:bb33"));
        check("bb3", Some("sha256:bb33"));
        check("bb", None); // two fit
        check("cc", None);
        check("", None);
        check("UPPER", None);
    }
}
