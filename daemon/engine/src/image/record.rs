//! From an image's configuration blob to its record, and the other way for an imported archive.

use std::collections::HashMap;

use oci_spec::image::{
    Arch, Config, ConfigBuilder, DescriptorBuilder, Digest, ImageConfiguration,
    ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder,
};
use rcd_store::ImageRecord;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Reads a configuration blob. References and sizes are the caller's to add.
pub(super) fn parse(
    config_digest: &str,
    manifest_digest: &str,
    blob: &[u8],
) -> Result<ImageRecord> {
    let malformed = |reason: String| Error::MalformedImage {
        digest: config_digest.to_owned(),
        reason,
    };
    let parsed = ImageConfiguration::from_reader(blob).map_err(|e| malformed(e.to_string()))?;
    let none = Config::default();
    let config = parsed.config().as_ref().unwrap_or(&none);
    let architecture = match parsed.variant() {
        Some(variant) => format!("{}/{variant}", parsed.architecture()),
        None => parsed.architecture().to_string(),
    };
    Ok(ImageRecord {
        id: config_digest.to_owned(),
        manifest_digest: manifest_digest.to_owned(),
        references: Vec::new(),
        created_at_ns: parsed.created().as_deref().map_or(0, time_ns),
        size_bytes: 0,
        os: parsed.os().to_string(),
        architecture,
        author: parsed.author().clone(),
        diff_ids: parsed.rootfs().diff_ids().clone(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        command: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        labels: config
            .labels()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        exposed_ports: config.exposed_ports().clone().unwrap_or_default(),
        volumes: config.volumes().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
    })
}

/// Nanoseconds since the epoch of an RFC 3339 time; 0 if it is none or lies before.
fn time_ns(text: &str) -> u64 {
    chrono::DateTime::parse_from_rfc3339(text)
        .ok()
        .and_then(|time| time.timestamp_nanos_opt())
        .and_then(|ns| u64::try_from(ns).ok())
        .unwrap_or(0)
}

/// The one layer of an imported archive.
#[derive(Debug)]
pub(super) struct ImportedLayer {
    /// Digest of the archive as it came.
    pub(super) digest: String,
    /// Its length in bytes.
    pub(super) archive_bytes: u64,
    /// Digest of the tar in it.
    pub(super) diff_id: String,
}

/// Configuration and manifest blobs of an image, with their digests.
#[derive(Debug)]
pub(super) struct Blobs {
    pub(super) config_digest: String,
    pub(super) config: Vec<u8>,
    pub(super) manifest_digest: String,
    pub(super) manifest: Vec<u8>,
}

/// Writes the configuration and the manifest of an imported archive.
pub(super) fn compose(
    layer: &ImportedLayer,
    command: Vec<String>,
    env: Vec<String>,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Blobs> {
    let composed = (|| {
        let mut config = ConfigBuilder::default().env(env).labels(HashMap::new());
        if !command.is_empty() {
            config = config.cmd(command);
        }
        let rootfs = RootFsBuilder::default()
            .typ("layers")
            .diff_ids([layer.diff_id.clone()]);
        let config = ImageConfigurationBuilder::default()
            .created(now.to_rfc3339())
            .architecture(Arch::default())
            .os(Os::default())
            .config(config.build()?)
            .rootfs(rootfs.build()?)
            .build()?
            .to_string()?;
        let config_digest = digest(config.as_bytes());
        let descriptor = |media_type, digest: &str, size: u64| {
            let digest = digest.parse::<Digest>()?;
            DescriptorBuilder::default()
                .media_type(media_type)
                .digest(digest)
                .size(size)
                .build()
        };
        let size = config.len() as u64;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, &config_digest, size)?)
            .layers([descriptor(
                MediaType::ImageLayer,
                &layer.digest,
                layer.archive_bytes,
            )?])
            .build()?
            .to_string()?;
        Ok::<_, oci_spec::OciSpecError>(Blobs {
            config_digest,
            config: config.into_bytes(),
            manifest_digest: digest(manifest.as_bytes()),
            manifest: manifest.into_bytes(),
        })
    })();
    composed.map_err(|e| Error::Import {
        source: Box::new(e),
    })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compose_writes_parse_reads() {
        let layer = ImportedLayer {
            digest: format!("sha256:{}", "a".repeat(64)),
            archive_bytes: 10,
            diff_id: format!("sha256:{}", "b".repeat(64)),
        };
        let now = chrono::DateTime::from_timestamp_nanos(1_700_000_000_000_000_000);
        let blobs = compose(&layer, vec!["sh".to_owned()], vec!["A=1".to_owned()], now).unwrap();
        let record = parse(&blobs.config_digest, &blobs.manifest_digest, &blobs.config).unwrap();
        assert_eq!(record.diff_ids, [layer.diff_id]);
        assert_eq!(record.command, ["sh"]);
        assert_eq!(record.env, ["A=1"]);
        assert_eq!(record.created_at_ns, 1_700_000_000_000_000_000);
        assert_eq!(record.os, "linux");
    }

    #[test]
    fn nonsense_is_refused_with_its_digest() {
        for blob in [&b""[..], b"{}", b"[]", b"{\"rootfs\":1}", b"\xff\xfe"] {
            match parse("sha256:x", "sha256:y", blob) {
                Err(Error::MalformedImage { digest, .. }) => assert_eq!(digest, "sha256:x"),
                other => panic!("{other:?}"),
            }
        }
    }
}
