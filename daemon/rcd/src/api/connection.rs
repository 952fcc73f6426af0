//! One connection: varlink calls in, replies out, in order.
//!
//! ```text
//!   bytes ─► Messages ─► Call ─► Row::call ─► future ─┬ ready at once ─► out buffer ─┐
//!                                                     └ pending: flush, await it ────┤
//!   socket ◄──────────── flush when no whole message waits, or the buffer is full ◄──┘
//! ```
//!
//! Calls are answered one after the other, so replies to pipelined calls come in order; replies
//! that are ready are sent before a slow call is awaited. While it is awaited the socket is still
//! watched: a peer that hangs up cancels its call by dropping the future. A peer that only shuts
//! down its sending side still gets its replies.
//!
//! A slow reader blocks this task and nothing else; replies wait in a buffer that is flushed before
//! the next call is taken, so it holds [`FLUSH_BYTES`] and one reply. Bytes are read with `read(2)`,
//! so file descriptors that a peer passes are closed by the kernel: no method takes one.
//!
//! After a method of kind Upgrade has replied, the stream and the bytes that came after the call
//! belong to the method's session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use rcd_proto::Error;
use rcd_proto::table::{BoxFuture, Item, ItemStream, Kind, Outcome, Row, Server, Table};
use rcd_proto::wire::{self, Call, MESSAGE_BYTES_MAX, Messages};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// Replies that wait to be sent together.
const FLUSH_BYTES: usize = 64 << 10;

/// Bytes read at once; a short call fits many times.
const READ_BYTES: usize = 16 << 10;

/// Bytes of later calls that are read while one is awaited.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// How often a connection that cannot be read (half-closed, or enough read ahead) is asked whether
/// its peer is still there, while a call is awaited.
const HANG_UP_CHECK: Duration = Duration::from_millis(500);

/// How long a call may go on after shutdown began. Starts and removals need a few milliseconds; a
/// client that waits for longer (for a container's end) connects again to the next daemon.
pub const CALL_GRACE: Duration = Duration::from_millis(500);

/// A connection whose method took it over.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket.
    pub stream: UnixStream,
    /// What the peer sent after its call.
    pub early: Vec<u8>,
}

/// What takes a connection over. Dropping its future ends it.
pub type Session = Box<dyn FnOnce(Upgraded) -> BoxFuture<()> + Send>;

/// What this module can serve.
pub trait Service: Server<Session = Session> {}

impl<A: Server<Session = Session>> Service for A {}

/// Serves one connection until its peer, an I/O error or `shutdown` ends it.
pub async fn serve<A: Service>(
    stream: UnixStream,
    server: Arc<A>,
    table: &Table<A>,
    shutdown: CancellationToken,
) {
    let connection = Connection {
        stream,
        messages: Messages::default(),
        out: Vec::new(),
        ended: false,
        shutdown: shutdown.clone(),
    };
    // A peer that does not read its replies must not hold up the daemon's end.
    let over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(CALL_GRACE * 2).await;
    };
    tokio::select! {
        ended = connection.run(&server, table) => match ended {
            Ok(()) => tracing::trace!("connection ended"),
            Err(error) => tracing::debug!(%error, "connection broke"),
        },
        () = over => tracing::debug!("connection cut"),
    }
}

struct Connection {
    stream: UnixStream,
    messages: Messages,
    /// Replies to be sent.
    out: Vec<u8>,
    /// The peer will send no more.
    ended: bool,
    shutdown: CancellationToken,
}

/// What became of a call.
enum Next {
    /// Its reply waits to be sent.
    Replied,
    /// The connection is the session's.
    Upgrade(Session),
    /// The peer or the daemon goes: close.
    Close,
}

impl Connection {
    async fn run<A: Service>(mut self, server: &Arc<A>, table: &Table<A>) -> io::Result<()> {
        loop {
            let called = match self.messages.next_message() {
                Ok(Some(message)) => begin(message, server, table),
                Ok(None) => {
                    if !self.fill().await? {
                        return Ok(());
                    }
                    continue;
                }
                Err(too_long) => Called::refused(Error::InvalidParameter {
                    message: format!("{too_long} ({MESSAGE_BYTES_MAX} bytes)"),
                    parameter: String::new(),
                }),
            };
            match self.answer(called).await? {
                Next::Replied => {}
                Next::Upgrade(session) => return self.upgrade(session).await,
                Next::Close => return self.flush().await,
            }
            if self.out.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Sends what waits and reads more. False if the connection is to be closed.
    async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        if self.ended {
            return Ok(false);
        }
        let mut bytes = [0; READ_BYTES];
        tokio::select! {
            len = self.stream.read(&mut bytes) => {
                let read = bytes.get(..len?).unwrap_or_default();
                self.messages.extend(read);
                self.ended = read.is_empty();
                Ok(!self.ended)
            }
            () = self.shutdown.cancelled() => Ok(false),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        self.out.shrink_to(FLUSH_BYTES);
        Ok(())
    }

    async fn answer(&mut self, called: Called) -> io::Result<Next> {
        let Called {
            mut call,
            more,
            oneway,
            method,
        } = called;
        let outcome = match call.as_mut().now_or_never() {
            Some(outcome) => Some(outcome),
            None => {
                self.flush().await?;
                self.attend(call, CALL_GRACE).await
            }
        };
        let Some(outcome) = outcome else {
            tracing::debug!(method, "call cancelled");
            return Ok(Next::Close);
        };
        match outcome {
            Ok(Outcome::Stream(items)) => return self.answer_stream(items, more, oneway).await,
            Ok(_) | Err(_) if oneway => {}
            Ok(Outcome::Reply(reply)) => wire::encode_reply(&reply, false, &mut self.out),
            Ok(Outcome::Upgrade(reply, session)) => {
                wire::encode_reply(&reply, false, &mut self.out);
                return Ok(Next::Upgrade(session));
            }
            Err(error) => {
                tracing::debug!(method, %error, "call failed");
                wire::encode_error(&error, &mut self.out);
            }
        }
        Ok(Next::Replied)
    }

    /// Sends a stream's replies as they come; only the last one if the caller did not ask for more.
    async fn answer_stream(
        &mut self,
        mut items: ItemStream<Box<RawValue>>,
        more: bool,
        oneway: bool,
    ) -> io::Result<Next> {
        loop {
            let item = match poll_next(&mut items) {
                Some(item) => item,
                None => {
                    self.flush().await?;
                    match self.attend(items.next(), Duration::ZERO).await {
                        Some(item) => item,
                        None => return Ok(Next::Close),
                    }
                }
            };
            match item {
                Some(Ok(Item::More(reply))) if more && !oneway => {
                    wire::encode_reply(&reply, true, &mut self.out);
                }
                Some(Ok(Item::More(_))) => {}
                Some(Ok(Item::Last(reply))) => {
                    if !oneway {
                        wire::encode_reply(&reply, false, &mut self.out);
                    }
                    return Ok(Next::Replied);
                }
                Some(Err(error)) => {
                    if !oneway {
                        wire::encode_error(&error, &mut self.out);
                    }
                    return Ok(Next::Replied);
                }
                // Cut off: closing tells the peer that the reply is not complete.
                None => return Ok(Next::Close),
            }
            if self.out.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Awaits `work` while watching the peer. None if the peer hung up, or if the daemon shuts down
    /// and `grace` is over.
    async fn attend<T>(&mut self, work: impl Future<Output = T>, grace: Duration) -> Option<T> {
        let shutdown = self.shutdown.clone();
        let over = async {
            shutdown.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            done = work => Some(done),
            () = self.hung_up() => None,
            () = over => None,
        }
    }

    /// Reads ahead, within its bound, until the peer is gone.
    async fn hung_up(&mut self) {
        let mut bytes = [0; READ_BYTES];
        loop {
            if self.ended || self.messages.waiting_bytes() >= READ_AHEAD_BYTES_MAX {
                tokio::time::sleep(HANG_UP_CHECK).await;
            } else {
                if self.stream.readable().await.is_err() {
                    return;
                }
                match self.stream.try_read(&mut bytes) {
                    Ok(len) => {
                        self.messages.extend(bytes.get(..len).unwrap_or_default());
                        self.ended = len == 0;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            if is_gone(&self.stream) {
                return;
            }
        }
    }

    async fn upgrade(mut self, session: Session) -> io::Result<()> {
        self.flush().await?;
        let early = self.messages.into_rest();
        let session = session(Upgraded {
            stream: self.stream,
            early,
        });
        tokio::select! {
            () = session => {}
            () = self.shutdown.cancelled() => {}
        }
        Ok(())
    }
}

/// Whether the peer closed its socket, not only its sending side.
pub(crate) fn is_gone(stream: &UnixStream) -> bool {
    // Never waits: a socket that cannot be written to has a peer that holds it.
    let ready = stream.ready(Interest::WRITABLE).now_or_never();
    ready.is_some_and(|ready| ready.map_or(true, |ready| ready.is_write_closed()))
}

/// The next item if it is there; `None` if it has to be awaited.
fn poll_next<S: Stream + ?Sized>(items: &mut Pin<Box<S>>) -> Option<Option<S::Item>> {
    items.next().now_or_never()
}

/// A call that has begun.
struct Called {
    call: BoxFuture<Result<Outcome<Session>, Error>>,
    more: bool,
    oneway: bool,
    method: &'static str,
}

impl Called {
    fn refused(error: Error) -> Called {
        let call = Box::pin(std::future::ready(Err(error)));
        Called {
            call,
            more: false,
            oneway: false,
            method: "",
        }
    }
}

/// Reads a message and makes the call's future, which has not run yet.
fn begin<A: Service>(message: &[u8], server: &Arc<A>, table: &Table<A>) -> Called {
    let call = match Call::parse(message) {
        Ok(call) => call,
        Err(error) => return Called::refused(error),
    };
    let row = table
        .find(&call.method)
        .and_then(|row| check_mode(&call, row).map(|()| row));
    match row {
        Ok(row) => Called {
            call: (row.call)(Arc::clone(server), call.parameters),
            more: call.more,
            oneway: call.oneway,
            method: row.method.name,
        },
        Err(error) => Called {
            oneway: call.oneway,
            ..Called::refused(error)
        },
    }
}

/// A connection changes hands only if both sides say so.
fn check_mode<A: Server>(call: &Call<'_>, row: &Row<A>) -> Result<(), Error> {
    let method = row.method.name;
    let message = match (
        row.method.kind == Kind::Upgrade,
        call.upgrade && !call.oneway,
    ) {
        (true, false) => {
            format!("{method} takes the connection over: call it with \"upgrade\": true")
        }
        (false, true) => {
            format!("{method} does not take the connection over: call it without \"upgrade\"")
        }
        _ => return Ok(()),
    };
    Err(Error::InvalidParameter {
        message,
        parameter: "upgrade".to_owned(),
    })
}

#[cfg(test)]
mod tests;
