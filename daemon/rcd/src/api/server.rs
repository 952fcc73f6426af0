//! Accepts connections and gives each a task of its own.
//!
//! Who may connect: the user who owns the daemon, nobody else. Inside the holder's user namespace
//! that user is uid 0, and so is every peer of the same user; other users' peers have the overflow
//! uid there, root's too, and are refused. The socket's mode (0600) and directory (0700) say the
//! same once more.
//!
//! Shutdown: the token stops the accept loop, ends streams and upgraded connections at once, and
//! leaves calls under way [`CALL_GRACE`](super::connection::CALL_GRACE). Connections then close
//! without a last reply, which tells a client to connect again and ask anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::unistd::geteuid;
use rcd_proto::Error;
use rcd_proto::table::Table;
use rcd_proto::wire;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::connection::{self, Service};

/// Connections at a time. Each attached client and each stream holds one, and one file descriptor;
/// 200 containers with a client each, and as many short calls beside them, fit twice.
const CONNECTIONS_MAX: usize = 1024;

/// Pause after accept(2) failed, which it does when file descriptors have run out: without one the
/// loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `shutdown`, then waits for its connections to end.
pub async fn serve<A: Service>(
    listener: UnixListener,
    server: Arc<A>,
    table: Arc<Table<A>>,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    let numbers = AtomicU64::new(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match admit(&stream, &slots) {
            Ok(slot) => {
                let (server, table) = (Arc::clone(&server), Arc::clone(&table));
                let shutdown = shutdown.clone();
                let span = tracing::debug_span!(
                    "connection",
                    connection.id = numbers.fetch_add(1, Ordering::Relaxed)
                );
                let work = async move {
                    connection::serve(stream, server, &table, shutdown).await;
                    drop(slot);
                };
                tasks.spawn(work.instrument(span));
            }
            Err(error) => refuse(&stream, &error),
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn admit(stream: &UnixStream, slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    let uid = stream.peer_cred().map(|peer| peer.uid());
    if !uid.as_ref().is_ok_and(|uid| *uid == geteuid().as_raw()) {
        return Err(Error::PermissionDenied {
            message: "this rcd belongs to another user; start your own with: systemctl --user start rcd.socket"
                .to_owned(),
        });
    }
    Arc::clone(slots)
        .try_acquire_owned()
        .map_err(|_| Error::Busy {
            message: format!(
                "rcd has {CONNECTIONS_MAX} connections already; close some and try again"
            ),
        })
}

/// Says why, as far as the socket's buffer takes it without waiting, and closes.
fn refuse(stream: &UnixStream, error: &Error) {
    tracing::warn!(%error, "connection refused");
    let mut reply = Vec::new();
    wire::encode_error(error, &mut reply);
    // A peer that is gone already, or cannot be told, is refused all the same.
    let _ = stream.try_write(&reply);
}
