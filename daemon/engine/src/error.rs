//! What can go wrong in the engine.
//!
//! One variant a failed operation, with the object it failed on. A `Display` never prints its
//! source; the edge (`rcd`) prints chains.

use thiserror::Error;

/// Result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation.
#[derive(Debug, Error)]
pub enum Error {
    /// No container has this name, id or prefix.
    #[error("no such container: {id}")]
    NoSuchContainer {
        /// As asked.
        id: String,
    },
    /// A prefix fits more than one container.
    #[error("{id} fits more than one container: {}; give more of it", candidates.join(", "))]
    AmbiguousContainer {
        /// As asked.
        id: String,
        /// Short ids, or names, that fit.
        candidates: Vec<String>,
    },
    /// The name is taken.
    #[error(
        "the name {name} is in use by container {id}; remove or rename that one, or take another name"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The request needs a running container.
    #[error("container {id} is not running (it is {state})")]
    NotRunning {
        /// Its short id or name.
        id: String,
        /// Its phase.
        state: &'static str,
    },
    /// The request cannot be done in this phase.
    #[error("cannot {action} container {id} while it is {state}{hint}")]
    WrongPhase {
        /// What was asked.
        action: &'static str,
        /// Its short id or name.
        id: String,
        /// Its phase.
        state: &'static str,
        /// What the user can do, beginning with a semicolon; may be empty.
        hint: &'static str,
    },
    /// The container did not start.
    #[error("cannot start container {id}")]
    StartFailed {
        /// Its name.
        id: String,
        /// What `rc run` exits with: 125, 126 or 127.
        exit_code: i32,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A process could not be run in a container.
    #[error("cannot run {program:?} in container {container}")]
    ExecFailed {
        /// The container.
        container: String,
        /// The program.
        program: String,
        /// What `rc exec` exits with.
        exit_code: i32,
        /// Why.
        #[source]
        source: Box<rcd_runtime::Error>,
    },
    /// No exec has this id, or it ended a while ago.
    #[error("no such exec: {id}")]
    NoSuchExec {
        /// As asked.
        id: String,
    },
    /// Another client is attached to this exec.
    #[error("exec {id} is attached to another client")]
    ExecAttached {
        /// Its id.
        id: String,
    },
    /// A value in a configuration cannot be honoured.
    #[error("{field}: {reason}")]
    InvalidConfig {
        /// Which field.
        field: &'static str,
        /// Why not.
        reason: String,
    },
    /// No image has this reference or id.
    #[error("no such image: {reference}")]
    NoSuchImage {
        /// As asked.
        reference: String,
    },
    /// A short name or prefix fits more than one image.
    #[error("{reference} fits more than one image: {}", candidates.join(", "))]
    AmbiguousImage {
        /// As asked.
        reference: String,
        /// Those that fit.
        candidates: Vec<String>,
    },
    /// Containers use the image.
    #[error("image {reference} is in use by {}", containers.join(", "))]
    ImageInUse {
        /// As asked.
        reference: String,
        /// Names of the containers.
        containers: Vec<String>,
    },
    /// Several references name an image that is to be removed by id.
    #[error("image {id} is named by {}; remove those, or use force", references.join(", "))]
    ImageNamedTwice {
        /// Its short id.
        id: String,
        /// Its references.
        references: Vec<String>,
    },
    /// Not a reference.
    #[error("{reason}")]
    InvalidReference {
        /// As given.
        reference: String,
        /// What is wrong with it, naming it.
        reason: String,
    },
    /// An image could not be fetched.
    #[error("cannot pull {reference}")]
    Pull {
        /// Its full reference.
        reference: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A root file system could not be imported.
    #[error("cannot import the archive")]
    Import {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image's configuration does not parse or contradicts its manifest.
    #[error("image configuration {digest} is malformed: {reason}")]
    MalformedImage {
        /// Digest of the configuration.
        digest: String,
        /// What is wrong.
        reason: String,
    },
    /// The store failed.
    #[error("cannot {operation}")]
    Store {
        /// What was being done, with its object.
        operation: String,
        /// Why.
        #[source]
        source: Box<rcd_store::Error>,
    },
    /// The runtime failed.
    #[error("cannot {operation}")]
    Runtime {
        /// What was being done, with its object.
        operation: String,
        /// Why.
        #[source]
        source: Box<rcd_runtime::Error>,
    },
    /// A file of a container could not be read or written.
    #[error("cannot {operation}")]
    Io {
        /// What was being done, with its object.
        operation: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A bound was reached.
    #[error("too many {what}: at most {max}")]
    Busy {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The daemon is shutting down.
    #[error("rcd is stopping")]
    Stopping,
}

impl Error {
    pub(crate) fn store(operation: impl Into<String>) -> impl FnOnce(rcd_store::Error) -> Error {
        let operation = operation.into();
        move |source| Error::Store {
            operation,
            source: Box::new(source),
        }
    }

    pub(crate) fn runtime(
        operation: impl Into<String>,
    ) -> impl FnOnce(rcd_runtime::Error) -> Error {
        let operation = operation.into();
        move |source| Error::Runtime {
            operation,
            source: Box::new(source),
        }
    }

    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let operation = operation.into();
        move |source| Error::Io { operation, source }
    }

    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Error {
        Error::InvalidConfig {
            field,
            reason: reason.into(),
        }
    }
}

/// What `rc` exits with when the engine, and not the program, is at fault. Docker's.
const EXIT_CODE_ENGINE: i32 = 125;

/// What `rc run` and `rc exec` exit with after `error`.
pub(crate) fn exit_code(error: &rcd_runtime::Error) -> i32 {
    match error {
        rcd_runtime::Error::Start { exit_code, .. } => *exit_code,
        _ => EXIT_CODE_ENGINE,
    }
}

/// An error and its causes in one line, as it is kept and shown: `what: why: why`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let why = cause.to_string();
        // Some libraries print their source too, which then says nothing new.
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        source = cause.source();
    }
    text
}
