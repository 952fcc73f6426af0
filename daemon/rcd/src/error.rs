//! What can keep the daemon from starting.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the daemon cannot start or go on. The chain of sources is printed by `main`.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{problem}; see: rcd --help")]
    Usage {
        /// What is wrong.
        problem: String,
    },
    /// The process is root outside any user namespace.
    #[error(
        "rcd does not run as root: start it as the user who owns the containers, with: systemctl --user start rcd"
    )]
    Root,
    /// A directory of the XDG specification is unknown.
    #[error("cannot find the {what} directory: {advice}")]
    NoDirectory {
        /// Which one.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A directory cannot be made or is not private.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory belongs to somebody else.
    #[error("the directory {} belongs to uid {owner}, not to you; containers' files must be yours alone", path.display())]
    Owner {
        /// Which one.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The configuration cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration is malformed.
    #[error("the configuration {} is wrong", path.display())]
    ParseConfig {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A log level is none.
    #[error(
        "the log level {level:?} (from {origin}) is wrong; use a level such as info, or a list such as warn,rcd_engine=debug"
    )]
    LogLevel {
        /// As given.
        level: String,
        /// `RCD_LOG` or the configuration's path.
        origin: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A socket cannot be listened on.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon answers on the socket.
    #[error("another rcd serves {} already", path.display())]
    Serving {
        /// The socket.
        path: PathBuf,
    },
    /// What the service manager passed is not a listening socket.
    #[error("cannot use the sockets that the service manager passed")]
    Activation {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The holder's program cannot be started.
    #[error("cannot start the holder {}", program.display())]
    StartHolder {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The holder ended, or never answered.
    #[error("the holder, which owns the user namespace of your containers, {what}{log}")]
    Holder {
        /// What happened.
        what: String,
        /// What it said, beginning with a colon or a semicolon; may be empty.
        log: String,
    },
    /// The holder answers and its namespaces cannot be joined.
    #[error("cannot join the holder")]
    Join(#[source] rcd_runtime::Error),
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store {
        /// Why.
        #[source]
        source: Box<rcd_store::Error>,
    },
    /// The engine cannot start.
    #[error("cannot start the engine")]
    Engine(#[source] Box<rcd_engine::Error>),
    /// The async runtime cannot start.
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    /// The holder ended while the daemon was running.
    #[error("the holder has ended, and its containers with it")]
    HolderGone,
}

/// An error and its causes, joined by colons.
pub fn chain(error: &dyn std::error::Error) -> String {
    rcd_engine::chain(error)
}
