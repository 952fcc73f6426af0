//! Manifests, indexes and configs: parsed, judged, and reduced to what a pull needs. No I/O.
//!
//! Understood are OCI image manifests and indexes (image-spec) and Docker's schema 2 and lists,
//! which have the same shape under other media types. Layers that a registry may not hold
//! ("foreign", "nondistributable") and anything that is no file system layer are refused.

use serde::Deserialize;

use crate::platform::Platform;
use crate::reference::is_sha256_digest;

/// The largest manifest or index in bytes: what registries accept (distribution-spec).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The largest image config in bytes. Real ones have some KiB; a long history a few hundred.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// The most layers of an image: Docker's own bound is 127 and a base (moby, `layer.maxLayerDepth`
/// 125); overlayfs takes 500.
pub const LAYERS_MAX: usize = 128;

/// The most entries of an index that are looked at.
const INDEX_ENTRIES_MAX: usize = 1024;

/// Media types asked for, with what they are called in errors.
pub(crate) const ACCEPTED: &[&str] = &[OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A layer to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the bytes that travel.
    pub digest: String,
    /// How many they are.
    pub size: u64,
    /// Digest of the tar inside, as the config says; the unpacker verifies it.
    pub diff_id: String,
    /// From the media type.
    pub compression: Compression,
}

/// A blob by digest and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    pub(crate) size: u64,
}

/// What a manifest document turned out to be.
#[derive(Debug)]
pub(crate) enum Document {
    /// An image.
    Image {
        config: Descriptor,
        layers: Vec<(Descriptor, Compression)>,
    },
    /// One image for each platform.
    Index(Vec<(Descriptor, Option<Platform>)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct RawConfig {
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<String>,
}

impl RawDescriptor {
    fn check(&self) -> Result<Descriptor, String> {
        if is_sha256_digest(&self.digest) {
            Ok(Descriptor {
                digest: self.digest.clone(),
                size: self.size,
            })
        } else {
            let shown: String = self.digest.chars().take(80).collect();
            Err(format!("digest `{shown}` is not sha256 and 64 hex digits"))
        }
    }
}

/// Reads a manifest or an index. `content_type` is the server's word, used where the document has
/// none of its own.
pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Document, String> {
    let raw: RawDocument =
        serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
    if raw.schema_version == 1 {
        return Err("it is of schema 1, which Docker retired: push the image anew".to_owned());
    }
    if raw.schema_version != 2 {
        return Err(format!("unknown schema version {}", raw.schema_version));
    }
    let media_type = raw.media_type.as_deref().unwrap_or(content_type);
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => image(raw),
        OCI_INDEX | DOCKER_LIST => index(raw),
        // Old OCI tools name no media type and servers then say application/json: the shape tells.
        "" | "application/json" | "application/octet-stream" => {
            match (&raw.manifests, &raw.config) {
                (Some(_), None) => index(raw),
                (None, Some(_)) => image(raw),
                _ => Err("neither an image nor an index".to_owned()),
            }
        }
        other => Err(format!(
            "media type `{}` is no image",
            other.chars().take(80).collect::<String>()
        )),
    }
}

fn image(raw: RawDocument) -> Result<Document, String> {
    if raw.manifests.is_some() {
        return Err("an image and an index at once".to_owned());
    }
    let config = raw.config.ok_or("it has no config")?.check()?;
    if config.size > CONFIG_BYTES_MAX {
        return Err(format!(
            "its config has {} bytes, more than {CONFIG_BYTES_MAX}",
            config.size
        ));
    }
    let layers = raw.layers.ok_or("it has no layers")?;
    if layers.len() > LAYERS_MAX {
        return Err(format!(
            "it has {} layers, more than {LAYERS_MAX}",
            layers.len()
        ));
    }
    let layers = layers
        .iter()
        .map(|layer| Ok((layer.check()?, compression(&layer.media_type)?)))
        .collect::<Result<_, String>>()?;
    Ok(Document::Image { config, layers })
}

fn compression(media_type: &str) -> Result<Compression, String> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
        other if other.contains("foreign") || other.contains("nondistributable") => {
            Err("it has a layer that registries may not hold (foreign)".to_owned())
        }
        other => {
            let shown: String = other.chars().take(80).collect();
            Err(format!("layer of media type `{shown}` is no file system"))
        }
    }
}

fn index(raw: RawDocument) -> Result<Document, String> {
    if raw.config.is_some() || raw.layers.is_some() {
        return Err("an image and an index at once".to_owned());
    }
    let entries = raw.manifests.ok_or("it has no manifests")?;
    if entries.len() > INDEX_ENTRIES_MAX {
        return Err(format!(
            "it has {} entries, more than {INDEX_ENTRIES_MAX}",
            entries.len()
        ));
    }
    let entries = entries
        .into_iter()
        .map(|entry| {
            let descriptor = entry.check()?;
            let platform = entry.platform.map(|platform| Platform {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant,
            });
            Ok((descriptor, platform))
        })
        .collect::<Result<_, String>>()?;
    Ok(Document::Index(entries))
}

/// The entry that serves `wish` best; the first of equals. On failure, the platforms there are.
pub(crate) fn choose<'a>(
    entries: &'a [(Descriptor, Option<Platform>)],
    wish: &Platform,
) -> Result<&'a Descriptor, Vec<String>> {
    let ranked = entries
        .iter()
        .filter_map(|(entry, platform)| Some((platform.as_ref()?.rank(wish)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    if let Some((_, entry)) = ranked {
        return Ok(entry);
    }
    if let [(entry, None)] = entries {
        // An index of one image that says nothing: its config is the only word on it.
        return Ok(entry);
    }
    // Attestations are entries for `unknown/unknown`.
    let known = entries.iter().filter_map(|(_, platform)| platform.as_ref());
    let mut available: Vec<String> = known
        .filter(|platform| platform.os != "unknown")
        .map(Platform::to_string)
        .collect();
    available.dedup();
    if available.is_empty() {
        available.push("none that names its platform".to_owned());
    }
    Err(available)
}

/// Joins a manifest's layers with the diff ids of its config.
pub(crate) fn layers(
    config: &[u8],
    layers: Vec<(Descriptor, Compression)>,
) -> Result<Vec<Layer>, String> {
    let raw: RawConfig =
        serde_json::from_slice(config).map_err(|error| format!("not a config: {error}"))?;
    let diff_ids = raw.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(format!(
            "it has {} diff ids, the manifest {} layers",
            diff_ids.len(),
            layers.len()
        ));
    }
    diff_ids
        .into_iter()
        .zip(layers)
        .map(|(diff_id, (descriptor, compression))| {
            if !is_sha256_digest(&diff_id) {
                return Err("a diff id is not sha256 and 64 hex digits".to_owned());
            }
            let Descriptor { digest, size } = descriptor;
            Ok(Layer {
                digest,
                size,
                diff_id,
                compression,
            })
        })
        .collect()
}
