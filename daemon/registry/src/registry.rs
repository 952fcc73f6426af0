//! From a reference to verified bytes: the manifest, the config, and the layers as streams.

use bytes::Bytes;
use futures_util::Stream;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::failure::Subject;
use crate::http::{Http, Request};
use crate::manifest::{self, CONFIG_BYTES_MAX, Descriptor, Document, Layer, MANIFEST_BYTES_MAX};
use crate::platform::Platform;
use crate::{Error, Reference, layer};

/// A client of registries. Clones share connections, tokens and settings.
#[derive(Debug, Clone)]
pub struct Registry {
    http: Http,
}

/// An image as a registry has it: everything but the layers' bytes.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// As asked.
    pub reference: Reference,
    /// Digest of the image's manifest; of an index, the one chosen from it.
    pub manifest_digest: String,
    /// The manifest's bytes, verified.
    pub manifest: Bytes,
    /// Digest of the config, which is the image's id.
    pub config_digest: String,
    /// The config's bytes, verified.
    pub config: Bytes,
    /// From the base upwards.
    pub layers: Vec<Layer>,
}

impl Registry {
    /// A client that has connected to nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            http: Http::new(config),
        }
    }

    /// Fetches manifest and config. From an index it takes the image for `platform`, or for this
    /// machine.
    ///
    /// # Errors
    /// Any of [`Error`]. May be cancelled at any point.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Resolved, Error> {
        let wish = platform.cloned().unwrap_or_else(Platform::native);
        let (manifest_digest, manifest, config, layers) = self.image(reference, &wish).await?;
        let subject = subject(reference, &format!("config {}", config.digest));
        let path = format!("blobs/{}", config.digest);
        let request = Request {
            path: &path,
            accept: &["*/*"],
            offset: 0,
        };
        let (config_bytes, _) = self.http.fetch(&subject, request, CONFIG_BYTES_MAX).await?;
        verify(&subject, &config_bytes, &config)?;
        let layers =
            manifest::layers(&config_bytes, layers).map_err(|reason| unusable(&subject, reason))?;
        if let Some(wish) = platform {
            check_platform(reference, &config_bytes, wish)?;
        }
        Ok(Resolved {
            reference: reference.clone(),
            manifest_digest,
            manifest,
            config_digest: config.digest,
            config: config_bytes,
            layers,
        })
    }

    /// A layer's bytes as they travel, compressed. Length and digest are verified at the end, so
    /// nothing read may be believed before the stream has ended without an error. A broken
    /// connection is resumed where it broke.
    ///
    /// # Errors
    /// [`Error::Manifest`] if there is no layer of that index; the stream gives the others. It may
    /// be dropped at any point.
    pub async fn layer(
        &self,
        resolved: &Resolved,
        index: usize,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        let Some(layer) = resolved.layers.get(index) else {
            let subject = subject(&resolved.reference, "layer");
            return Err(unusable(&subject, format!("it has no layer {index}")));
        };
        Ok(layer::stream(
            self.http.clone(),
            resolved.reference.clone(),
            layer,
        ))
    }

    /// The image's manifest, through an index if there is one.
    async fn image(&self, reference: &Reference, wish: &Platform) -> Result<Image, Error> {
        let name = reference.api_reference();
        let top = subject(reference, &format!("manifest {name}"));
        let (bytes, content_type) = self.manifest(&top, name).await?;
        if let Some(digest) = reference.digest() {
            let size = bytes.len() as u64;
            verify(
                &top,
                &bytes,
                &Descriptor {
                    digest: digest.to_owned(),
                    size,
                },
            )?;
        }
        let document =
            manifest::parse(&bytes, &content_type).map_err(|reason| unusable(&top, reason))?;
        let entries = match document {
            Document::Image { config, layers } => {
                return Ok((sha256(&bytes), bytes, config, layers));
            }
            Document::Index(entries) => entries,
        };
        let chosen = manifest::choose(&entries, wish).map_err(|available| Error::NoPlatform {
            reference: Box::new(reference.clone()),
            wanted: wish.to_string(),
            available,
        })?;
        let subject = subject(reference, &format!("manifest {}", chosen.digest));
        let (bytes, content_type) = self.manifest(&subject, &chosen.digest).await?;
        verify(&subject, &bytes, chosen)?;
        match manifest::parse(&bytes, &content_type).map_err(|reason| unusable(&subject, reason))? {
            Document::Image { config, layers } => {
                Ok((chosen.digest.clone(), bytes, config, layers))
            }
            Document::Index(_) => Err(unusable(&subject, "an index within an index".to_owned())),
        }
    }

    async fn manifest(&self, subject: &Subject, name: &str) -> Result<(Bytes, String), Error> {
        let path = format!("manifests/{name}");
        let request = Request {
            path: &path,
            accept: manifest::ACCEPTED,
            offset: 0,
        };
        self.http.fetch(subject, request, MANIFEST_BYTES_MAX).await
    }
}

/// Digest and bytes of a manifest, and what it names.
type Image = (
    String,
    Bytes,
    Descriptor,
    Vec<(Descriptor, manifest::Compression)>,
);

/// `sha256:` and the digest in hex.
fn sha256(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

/// The digest that a hash has come to.
pub(crate) fn digest_text(hash: Sha256) -> String {
    use std::fmt::Write;
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn subject(reference: &Reference, object: &str) -> Subject {
    Subject {
        reference: Box::new(reference.clone()),
        object: object.to_owned(),
    }
}

fn unusable(subject: &Subject, reason: String) -> Error {
    let Subject { reference, object } = subject.clone();
    Error::Manifest {
        reference,
        object,
        reason,
    }
}

/// Compares bytes with what was promised.
fn verify(subject: &Subject, bytes: &[u8], promised: &Descriptor) -> Result<(), Error> {
    let size = bytes.len() as u64;
    if size != promised.size {
        let expected = format!("{} bytes", promised.size);
        return Err(corrupt(subject, expected, format!("{size} bytes")));
    }
    let digest = sha256(bytes);
    if digest == promised.digest {
        Ok(())
    } else {
        Err(corrupt(subject, promised.digest.clone(), digest))
    }
}

pub(crate) fn corrupt(subject: &Subject, expected: String, actual: String) -> Error {
    let Subject { reference, object } = subject.clone();
    let host = reference.host().to_owned();
    Error::Corrupt {
        reference,
        host,
        object,
        expected,
        actual,
    }
}

/// Refuses a lone image of another platform than the one that was asked for by name.
fn check_platform(reference: &Reference, config: &[u8], wish: &Platform) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct RawConfig {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        variant: Option<String>,
    }
    let Ok(RawConfig {
        os,
        architecture,
        variant,
    }) = serde_json::from_slice(config)
    else {
        return Ok(());
    };
    let platform = Platform {
        os,
        architecture,
        variant,
    };
    if platform.architecture.is_empty() || platform.rank(wish).is_some() {
        return Ok(());
    }
    let (wanted, available) = (wish.to_string(), vec![platform.to_string()]);
    Err(Error::NoPlatform {
        reference: Box::new(reference.clone()),
        wanted,
        available,
    })
}
