//! Unpacking a layer while it arrives.
//!
//! Bytes come from the runtime's tasks and are unpacked on a blocking thread, so a bounded channel
//! lies between. Its end is said in so many words: a sender that merely vanished (an aborted pull)
//! reads as an error, never as a short archive.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use rcd_store::{LayerSource, UnpackedLayer};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Shared;
use crate::error::{Error, Result};

/// Pieces that may wait for the unpacking thread; each is as large as it came from the socket, some
/// 16 KiB.
const PIECES_MAX: usize = 32;

/// How much unpacking gives way to the rest of the daemon.
const UNPACK_NICENESS: i32 = 10;

/// Writing end: the layer's bytes go in here.
#[derive(Debug, Clone)]
pub(super) struct Pipe(mpsc::Sender<Piece>);

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End,
}

/// Reading end, for the unpacking thread.
#[derive(Debug)]
pub(super) struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    present: Bytes,
    ended: bool,
}

pub(super) fn pipe() -> (Pipe, PipeReader) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (
        Pipe(sender),
        PipeReader {
            pieces,
            present: Bytes::new(),
            ended: false,
        },
    )
}

impl Pipe {
    /// Sends bytes; false if the reader has given up (its own error says why).
    pub(super) async fn send(&self, bytes: Bytes) -> bool {
        self.0.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// Says that all has been sent.
    pub(super) async fn end(&self) {
        let _ = self.0.send(Piece::End).await;
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.present = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the transfer was given up",
                    ));
                }
            }
        }
        let count = buffer.len().min(self.present.len());
        self.present.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Unpacks what `reader` gives on a thread of its own, which gives way to starts: an unpacking keeps
/// a processor busy for seconds. Lowered priority cannot be taken back, so the thread ends with it.
pub(super) async fn unpack(
    shared: &Shared,
    reader: PipeReader,
    source: LayerSource,
) -> Result<UnpackedLayer> {
    let what = match &source.digest {
        Some(digest) => format!("unpack layer {digest}"),
        None => "unpack the archive".to_owned(),
    };
    let store = shared.store.clone();
    let (answer, answered) = oneshot::channel();
    let work = move || {
        if let Err(error) = rcd_sys::process::lower_own_priority(UNPACK_NICENESS) {
            tracing::debug!(%error, "unpacking at full priority");
        }
        let _ = answer.send(store.unpack_layer(reader, &source));
    };
    let thread = std::thread::Builder::new().name("rcd-unpack".to_owned());
    thread.spawn(work).map_err(Error::io(what.clone()))?;
    match answered.await {
        Ok(unpacked) => unpacked.map_err(Error::store(what)),
        Err(_) => Err(Error::io(what)(io::Error::other("its thread panicked"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_abandoned_transfer_is_an_error_and_an_ended_one_is_not() {
        for (end, want) in [(true, Ok(5)), (false, Err(io::ErrorKind::UnexpectedEof))] {
            let (pipe, mut reader) = pipe();
            assert!(pipe.send(Bytes::from_static(b"abc")).await);
            assert!(pipe.send(Bytes::from_static(b"de")).await);
            if end {
                pipe.end().await;
            }
            drop(pipe);
            let read = tokio::task::spawn_blocking(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).map_err(|e| e.kind())
            });
            assert_eq!(read.await.unwrap(), want);
        }
    }
}
