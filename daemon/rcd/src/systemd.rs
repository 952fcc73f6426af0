//! The user's systemd, asked over D-Bus for what no file tells.
//!
//! Only `rc info` asks, so the connection is made for the question and dropped after it. Inside the
//! holder's user namespace this process is uid 0, but the bus knows its peers by their outer uid:
//! authentication has to name that one. Nothing else of rcd depends on the bus; where there is none,
//! the answer is none.

use std::time::Duration;

use zbus::connection::Builder;

/// How long the bus may take. It answers in a millisecond or is of no use.
const PATIENCE: Duration = Duration::from_millis(500);

/// The unit that starts rcd for the first client.
const SOCKET_UNIT: &str = "rcd.socket";

/// `org.freedesktop.systemd1(5)`
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    fn get_unit_file_state(&self, file: &str) -> zbus::Result<String>;
}

/// What the user's systemd says of itself and of rcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its version, e.g. `252.39-1`.
    pub version: String,
    /// The socket is there after the next login.
    pub socket_enabled: bool,
}

/// Asks the user's systemd. `outer_uid` is this process's uid as the host sees it.
pub async fn ask(outer_uid: u32) -> Option<Facts> {
    match tokio::time::timeout(PATIENCE, question(outer_uid)).await {
        Ok(Ok(facts)) => Some(facts),
        Ok(Err(error)) => {
            tracing::debug!(%error, "systemd does not answer");
            None
        }
        Err(_) => None,
    }
}

async fn question(outer_uid: u32) -> zbus::Result<Facts> {
    let connection = Builder::session().user_id(outer_uid).build().await?;
    let manager = ManagerProxy::new(&connection).await?;
    let version = manager.version().await?;
    // A unit that is not installed for systemd has no state: an error, and as good as disabled.
    let state = manager.get_unit_file_state(SOCKET_UNIT).await;
    let socket_enabled = state.is_ok_and(|state| state.starts_with("enabled"));
    Ok(Facts {
        version,
        socket_enabled,
    })
}
