//! The API: adapters between the wire and the engine, nothing more.
//!
//! [`server`] accepts, [`connection`] speaks varlink, [`Daemon`] implements the traits of
//! [`rcd_proto::api`] (a file per interface), [`convert`] is the only place that knows both the
//! wire's types and the engine's, [`session`] carries the bytes of upgraded connections.

use std::path::PathBuf;

use rcd_engine::Engine;
use rcd_proto::Error;
use rcd_proto::table::Server;

pub mod connection;
pub mod convert;
pub mod server;
pub mod session;

mod containers;
mod execs;
mod images;
mod system;

/// What the API serves.
#[derive(Debug)]
pub struct Daemon {
    /// The engine, or why there is none: then every call that needs it says so, instead of a socket
    /// that answers nobody.
    pub engine: Result<Engine, String>,
    /// What `GetInfo` tells about this process.
    pub facts: Facts,
}

/// Where this daemon works, for `GetInfo`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Data directory.
    pub data_root: PathBuf,
    /// Runtime directory.
    pub run_root: PathBuf,
    /// The holder's pid on the host; 0 without one.
    pub holder_pid: i32,
    /// Version of the holder's protocol in use; 0 without one.
    pub holder_protocol: u32,
    /// The holder's delegated cgroup.
    pub cgroup: Option<PathBuf>,
    /// Name of the user on the host, if it has one.
    pub user: Option<String>,
    /// A service manager started this process.
    pub managed: bool,
}

impl Daemon {
    fn engine(&self) -> Result<&Engine, Error> {
        self.engine
            .as_ref()
            .map_err(|reason| Error::HostUnsupported {
                message: reason.clone(),
                what: "holder".to_owned(),
            })
    }
}

impl Server for Daemon {
    type Session = connection::Session;
}
