//! The bytes of upgraded connections: frames on one side, engine sessions on the other.
//!
//! Both directions of a session run in one task, side by side: a program that does not read its
//! input holds up the reading of frames, never its output; a client that does not read holds up its
//! own output, which stays in the log meanwhile.
//!
//! The server ends a connection with one last frame (Exit, End, Error or Result). A connection that
//! ends without one broke: the daemon went away, and the client comes back with its offsets.
//!
//! A client that only ends its sending side has ended its input; one that is gone has detached,
//! which neither closes the container's input nor ends anything else.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rcd_engine::{AttachSession, ExecSession, ImportSession, Input, Output, Reader, Stream};
use rcd_proto::Error;
use rcd_proto::frame::{self, Decoder, FrameError, Kind};
use rcd_proto::types::image::ImportResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::connection::{Session, Upgraded, is_gone};
use super::convert;

/// Bytes read from a client at once: a frame and its header.
const READ_BYTES: usize = frame::CONTENT_BYTES_MAX + frame::HEADER_BYTES;

/// How often a client that cannot be read is asked whether it is still there.
const HANG_UP_CHECK: Duration = Duration::from_millis(500);

/// Which streams a client wants.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Its input goes to the program.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors.
    pub stderr: bool,
}

impl Wanted {
    /// All output, and input too if there is any.
    pub fn all(stdin: bool) -> Wanted {
        Wanted {
            stdin,
            stdout: true,
            stderr: true,
        }
    }
}

/// A session of `attach`.
pub fn attach(mut session: AttachSession, wanted: Wanted) -> Session {
    let input = session.input();
    Box::new(move |upgraded| {
        Box::pin(async move {
            let Upgraded { stream, early } = upgraded;
            let (read, mut write) = stream.into_split();
            let output = async {
                loop {
                    let next = session.next().await.map_err(convert::error);
                    if !send_output(&mut write, next, wanted).await? {
                        return Ok::<(), io::Error>(());
                    }
                }
            };
            tokio::select! {
                ended = output => log_end(ended),
                () = feed(read, early, Some(input), wanted.stdin) => {}
            }
        })
    })
}

/// A session of `exec`.
pub fn exec(mut session: ExecSession, wanted: Wanted) -> Session {
    let input = session.input();
    Box::new(move |upgraded| {
        Box::pin(async move {
            let Upgraded { stream, early } = upgraded;
            let (read, mut write) = stream.into_split();
            let output = async {
                loop {
                    let next = Ok(session.next().await);
                    if !send_output(&mut write, next, wanted).await? {
                        return Ok::<(), io::Error>(());
                    }
                }
            };
            tokio::select! {
                ended = output => log_end(ended),
                () = feed(read, early, input, wanted.stdin) => {}
            }
        })
    })
}

/// A session of `logs`.
pub fn logs(mut reader: Reader, follow: bool) -> Session {
    Box::new(move |upgraded| {
        Box::pin(async move {
            let Upgraded { stream, early } = upgraded;
            let (read, mut write) = stream.into_split();
            let output = async {
                loop {
                    let (kind, bytes) = match reader.next(follow).await {
                        Ok(Some(chunk)) => (stream_kind(chunk.stream), chunk.bytes),
                        Ok(None) => (Kind::End, Bytes::new()),
                        Err(error) => {
                            let message = format!("cannot read the log: {error}");
                            (Kind::Error, Error::Internal { message }.to_wire().into())
                        }
                    };
                    send(&mut write, kind, &bytes).await?;
                    if kind.is_last() {
                        return Ok::<(), io::Error>(());
                    }
                }
            };
            tokio::select! {
                ended = output => log_end(ended),
                () = feed(read, early, None, false) => {}
            }
        })
    })
}

/// A session of `import`.
pub fn import(session: ImportSession) -> Session {
    Box::new(move |upgraded| {
        Box::pin(async move {
            let Upgraded { stream, early } = upgraded;
            let (read, mut write) = stream.into_split();
            let Some(result) = receive(session, read, early).await else {
                tracing::debug!("import given up by its client");
                return;
            };
            let result = result.and_then(|image_id| {
                serde_json::to_string(&ImportResult { image_id }).map_err(|error| Error::Internal {
                    message: error.to_string(),
                })
            });
            log_end(match result {
                Ok(json) => send(&mut write, Kind::Result, json.as_bytes()).await,
                Err(error) => send(&mut write, Kind::Error, error.to_wire().as_bytes()).await,
            });
        })
    })
}

fn log_end(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "session broke");
    }
}

fn stream_kind(stream: Stream) -> Kind {
    match stream {
        Stream::Stdout => Kind::Stdout,
        Stream::Stderr => Kind::Stderr,
    }
}

async fn send(write: &mut OwnedWriteHalf, kind: Kind, content: &[u8]) -> io::Result<()> {
    let mut frames = Vec::with_capacity(frame::HEADER_BYTES + content.len());
    frame::encode(kind, content, &mut frames);
    write.write_all(&frames).await
}

/// Sends what a session shows. False after the last frame.
async fn send_output(
    write: &mut OwnedWriteHalf,
    output: Result<Output, Error>,
    wanted: Wanted,
) -> io::Result<bool> {
    match output {
        Ok(Output::Stdout(bytes)) if wanted.stdout => send(write, Kind::Stdout, &bytes).await?,
        Ok(Output::Stderr(bytes)) if wanted.stderr => send(write, Kind::Stderr, &bytes).await?,
        Ok(Output::Stdout(_) | Output::Stderr(_)) => {}
        Ok(Output::Exit(code)) => {
            send(write, Kind::Exit, &code.to_be_bytes()).await?;
            return Ok(false);
        }
        Ok(Output::Lost(message)) => {
            send(
                write,
                Kind::Error,
                Error::Internal { message }.to_wire().as_bytes(),
            )
            .await?;
            return Ok(false);
        }
        Err(error) => {
            send(write, Kind::Error, error.to_wire().as_bytes()).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a client's frames to `input` until the client is gone, or sends what is no frame of a
/// client.
async fn feed(mut read: OwnedReadHalf, early: Vec<u8>, input: Option<Input>, stdin: bool) {
    let mut decoder = Decoder::default();
    decoder.extend(&early);
    let mut bytes = vec![0; READ_BYTES];
    loop {
        loop {
            let (kind, content) = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return tracing::debug!(%error, "client sent no frame; detached"),
            };
            let fed = match &input {
                Some(input) => with_peer(&read, feed_frame(input, kind, content, stdin)).await,
                None => Some(()),
            };
            if fed.is_none() {
                return;
            }
        }
        match read.read(&mut bytes).await {
            Ok(0) => break,
            Ok(len) => decoder.extend(bytes.get(..len).unwrap_or_default()),
            Err(_) => return,
        }
    }
    if let Some(input) = input.filter(|_| stdin && !is_gone(read.as_ref())) {
        input.close().await;
    }
    with_peer(&read, std::future::pending())
        .await
        .unwrap_or_default()
}

async fn feed_frame(input: &Input, kind: Kind, content: &[u8], stdin: bool) {
    let fed = match kind {
        Kind::Stdin if !stdin => Ok(()),
        Kind::Stdin if content.is_empty() => {
            input.close().await;
            Ok(())
        }
        Kind::Stdin => input.write(content).await,
        Kind::Resize => match frame::decode_size(content) {
            Some((rows, columns)) => input.resize(rows, columns),
            None => Ok(()),
        },
        // Frames of a server's kind mean nothing here.
        _ => Ok(()),
    };
    if let Err(error) = fed {
        // A program that ended no longer takes input; its exit follows.
        tracing::debug!(error = rcd_engine::chain(&error), "input lost");
    }
}

/// Awaits `work` unless the client goes away meanwhile.
async fn with_peer<T>(read: &OwnedReadHalf, work: impl Future<Output = T>) -> Option<T> {
    let gone = async {
        while !is_gone(read.as_ref()) {
            tokio::time::sleep(HANG_UP_CHECK).await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = gone => None,
    }
}

/// Takes an archive in. None if the client went away before its end.
async fn receive(
    mut session: ImportSession,
    mut read: OwnedReadHalf,
    early: Vec<u8>,
) -> Option<Result<String, Error>> {
    let mut decoder = Decoder::default();
    decoder.extend(&early);
    let mut bytes = vec![0; READ_BYTES];
    loop {
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some((Kind::Stdin, []))) => {
                    return Some(session.finish().await.map_err(convert::error));
                }
                Ok(Some((Kind::Stdin, content))) => {
                    let content = Bytes::copy_from_slice(content);
                    if !session.write(content).await {
                        return Some(session.finish().await.map_err(convert::error));
                    }
                }
                Ok(Some(_)) => {
                    return Some(Err(not_an_archive("only Stdin frames carry an archive")));
                }
                Err(error) => return Some(Err(malformed(error))),
            }
        }
        match read.read(&mut bytes).await {
            Ok(len) if len > 0 => decoder.extend(bytes.get(..len).unwrap_or_default()),
            _ => return None,
        }
    }
}

fn malformed(error: FrameError) -> Error {
    not_an_archive(&error.to_string())
}

fn not_an_archive(why: &str) -> Error {
    Error::ImportFailed {
        message: format!("the client's frames are wrong: {why}"),
    }
}
