//! A layer's stream: hashed as it passes, resumed where it broke, judged at its end.

use bytes::{Buf, Bytes};
use futures_util::stream;
use futures_util::{Stream, StreamExt};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::failure::{Subject, broken, protocol};
use crate::http::{ATTEMPTS_MAX, Http, Request};
use crate::manifest::Layer;
use crate::registry::{corrupt, digest_text};
use crate::{Error, Reference};

/// Progress, in bytes, after which earlier breaks are forgotten: a bad line that still moves is
/// worth staying on.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The state between two pieces.
struct Transfer {
    http: Http,
    subject: Subject,
    path: String,
    digest: String,
    size: u64,
    /// Of all bytes given out; none after the end.
    hash: Option<Sha256>,
    /// How many bytes were given out.
    offset: u64,
    /// Bytes to drop, because the server began again from 0.
    skip: u64,
    response: Option<Response>,
    attempts: u32,
    /// `offset` when the attempts were last counted from 0.
    counted_from: u64,
}

/// How a connection came to its end.
enum Break {
    Stalled,
    Failed(reqwest::Error),
    /// A proper end, too early.
    Short,
}

pub(crate) fn stream(
    http: Http,
    reference: Reference,
    layer: &Layer,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<> {
    let transfer = Transfer {
        http,
        subject: Subject {
            reference: Box::new(reference),
            object: format!("layer {}", layer.digest),
        },
        path: format!("blobs/{}", layer.digest),
        digest: layer.digest.clone(),
        size: layer.size,
        hash: Some(Sha256::new()),
        offset: 0,
        skip: 0,
        response: None,
        attempts: 0,
        counted_from: 0,
    };
    let pieces = stream::unfold(transfer, |mut transfer| async move {
        let item = transfer.next().await.transpose()?;
        if item.is_err() {
            transfer.hash = None;
        }
        Some((item, transfer))
    });
    // Fused: being asked again after the end must not panic.
    Box::pin(pieces.fuse())
}

impl Transfer {
    /// The next piece, or nothing after the verified end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.hash.is_some() {
            let Some(response) = &mut self.response else {
                self.connect().await?;
                continue;
            };
            let stall = self.http.config.timeouts.stall;
            let ended = match tokio::time::timeout(stall, response.chunk()).await {
                Ok(Ok(Some(piece))) => match self.take(piece)? {
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                },
                Ok(Ok(None)) => Break::Short,
                Ok(Err(error)) => Break::Failed(error),
                Err(_) => Break::Stalled,
            };
            if self.offset == self.size {
                // All is there, however the connection ended.
                self.finish()?;
            } else {
                self.interrupted(ended).await?;
            }
        }
        Ok(None)
    }

    /// Asks for what is missing.
    async fn connect(&mut self) -> Result<(), Error> {
        self.attempts += 1;
        let request = Request {
            path: &self.path,
            accept: &["*/*"],
            offset: self.offset,
        };
        let response = match self.http.open(&self.subject, request).await {
            Err(Error::Status { status: 416, .. }) if self.offset > 0 => {
                return Err(self.wrong_size(format!("{} bytes", self.offset)));
            }
            result => result?,
        };
        self.skip = match (response.status(), self.offset) {
            (StatusCode::PARTIAL_CONTENT, offset) if starts_at(&response, offset) => 0,
            (StatusCode::OK, offset) => offset,
            (status, _) => {
                let reason = format!("HTTP {} for bytes from {}", status.as_u16(), self.offset);
                return Err(protocol(&self.subject, &reason));
            }
        };
        self.response = Some(response);
        Ok(())
    }

    /// Counts and hashes a piece; nothing is left of one that was received before.
    fn take(&mut self, mut piece: Bytes) -> Result<Option<Bytes>, Error> {
        let skipped = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(piece.len());
        piece.advance(skipped);
        self.skip -= skipped as u64;
        if piece.is_empty() {
            return Ok(None);
        }
        self.offset += piece.len() as u64;
        if self.offset > self.size {
            return Err(self.wrong_size("more".to_owned()));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&piece);
        }
        if self.offset - self.counted_from >= PROGRESS_BYTES {
            self.counted_from = self.offset;
            self.attempts = 1;
        }
        Ok(Some(piece))
    }

    /// Judges the whole.
    fn finish(&mut self) -> Result<(), Error> {
        self.response = None;
        let actual = self.hash.take().map(digest_text).unwrap_or_default();
        if actual == self.digest {
            Ok(())
        } else {
            Err(corrupt(&self.subject, self.digest.clone(), actual))
        }
    }

    /// Waits before the next connection, or gives up.
    async fn interrupted(&mut self, how: Break) -> Result<(), Error> {
        self.response = None;
        if self.attempts < ATTEMPTS_MAX {
            tracing::debug!(
                image.reference = %self.subject.reference,
                layer.digest = %self.digest,
                layer.offset = self.offset,
                "transfer broke, resuming"
            );
            self.http.back_off(self.attempts).await;
            return Ok(());
        }
        Err(match how {
            Break::Stalled => self.http.stalled(&self.subject),
            Break::Failed(source) => broken(&self.subject, self.attempts, Some(source)),
            Break::Short => self.wrong_size(format!("{} bytes", self.offset)),
        })
    }

    fn wrong_size(&self, actual: String) -> Error {
        corrupt(&self.subject, format!("{} bytes", self.size), actual)
    }
}

/// Whether a partial answer begins where it was asked to (`Content-Range: bytes 5-9/10`).
fn starts_at(response: &Response, offset: u64) -> bool {
    let header = response.headers().get(reqwest::header::CONTENT_RANGE);
    let range = header
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("bytes "));
    let first = range.and_then(|range| range.split('-').next());
    first.is_some_and(|first| first.trim().parse() == Ok(offset))
}
