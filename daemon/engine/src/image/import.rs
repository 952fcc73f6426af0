//! Importing a root file system from a tar archive as an image of one layer.

use std::sync::Arc;

use bytes::Bytes;
use rcd_store::{Compression, LayerSource, UnpackedLayer};
use rcd_sys::failpoint;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::layers::{self, Pipe};
use super::{parse_reference, record, tag};
use crate::create::check_process;
use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};

/// An import under way: bytes go in, an image comes out. Dropping it gives the import up.
#[derive(Debug)]
pub struct ImportSession {
    shared: Arc<Shared>,
    reference: Option<String>,
    command: Vec<String>,
    env: Vec<String>,
    pipe: Pipe,
    received_bytes: u64,
    unpacking: JoinHandle<Result<UnpackedLayer>>,
    _under_way: UnderWay,
}

/// Counts as an import: its layer has no name until it is unpacked, so nothing is collected
/// meanwhile.
#[derive(Debug)]
struct UnderWay {
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl UnderWay {
    fn new(shared: &Arc<Shared>) -> Result<UnderWay> {
        let place = shared.pulls.admit_import()?;
        shared.tables().imports += 1;
        let shared = Arc::clone(shared);
        Ok(UnderWay {
            shared,
            _place: place,
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.tables().imports -= 1;
    }
}

impl Engine {
    /// Begins to import an archive (tar, plain or compressed with gzip or zstd).
    ///
    /// # Errors
    /// `reference` is none; `env` is malformed.
    pub fn import(
        &self,
        reference: Option<&str>,
        command: Vec<String>,
        env: Vec<String>,
    ) -> Result<ImportSession> {
        check_process(&env, None)?;
        let reference = reference.map(full_reference).transpose()?;
        let (pipe, reader) = layers::pipe();
        let source = LayerSource {
            digest: None,
            size: None,
            diff_id: None,
            compression: Compression::Detect,
        };
        let shared = Arc::clone(&self.shared);
        let under_way = UnderWay::new(&shared)?;
        let unpacking = self.shared.tasks.spawn(async move {
            // A collection under way ends first; a later one sees this import and waits its turn.
            drop(shared.pulls.tagging.lock().await);
            layers::unpack(&shared, reader, source).await
        });
        let shared = Arc::clone(&self.shared);
        Ok(ImportSession {
            shared,
            reference,
            command,
            env,
            pipe,
            received_bytes: 0,
            unpacking,
            _under_way: under_way,
        })
    }
}

/// The full form of a reference that is to be given to an image.
fn full_reference(reference: &str) -> Result<String> {
    let parsed = parse_reference(reference)?;
    match parsed.digest() {
        None => Ok(parsed.to_string()),
        Some(_) => Err(Error::invalid(
            "reference",
            "an image cannot be given a digest as its name",
        )),
    }
}

impl ImportSession {
    /// Takes the next bytes of the archive. False says that it is of no use to send more:
    /// [`ImportSession::finish`] says why.
    pub async fn write(&mut self, bytes: Bytes) -> bool {
        self.received_bytes = self.received_bytes.saturating_add(bytes.len() as u64);
        self.pipe.send(bytes).await
    }

    /// Says that the archive is complete. Returns the image's id once it is on record.
    ///
    /// # Errors
    /// The archive is malformed, or the store failed.
    pub async fn finish(self) -> Result<String> {
        self.pipe.end().await;
        drop(self.pipe);
        let import = |source| Error::Import { source };
        let unpacked = self.unpacking.await.map_err(|e| import(Box::new(e)))?;
        let unpacked = unpacked.map_err(|e| import(Box::new(e)))?;
        let (shared, bytes) = (&self.shared, self.received_bytes);
        put(
            shared,
            &unpacked,
            bytes,
            self.command,
            self.env,
            self.reference,
        )
        .await
    }
}

async fn put(
    shared: &Arc<Shared>,
    unpacked: &UnpackedLayer,
    archive_bytes: u64,
    command: Vec<String>,
    env: Vec<String>,
    reference: Option<String>,
) -> Result<String> {
    failpoint::reach("import.layer");
    let layer = record::ImportedLayer {
        digest: unpacked.digest.clone(),
        archive_bytes,
        diff_id: unpacked.diff_id.clone(),
    };
    let blobs = record::compose(&layer, command, env, chrono::Utc::now())?;
    let mut image = record::parse(&blobs.config_digest, &blobs.manifest_digest, &blobs.config)?;
    image.size_bytes = unpacked.size_bytes;
    shared
        .with_store("keep the image's manifest", move |store| {
            store.put_blob(&blobs.config_digest, &blobs.config)?;
            store.put_blob(&blobs.manifest_digest, &blobs.manifest)
        })
        .await?;
    failpoint::reach("import.blobs");
    Ok(tag(shared, image, reference).await?.id.clone())
}
