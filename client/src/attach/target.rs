//! What an attached connection leads to, and how it is taken up again on a new one.
//!
//! Offsets count bytes that were taken over from complete frames, so that a stream continues
//! exactly where it broke: no byte is lost or doubled.

use std::time::Instant;

use rcd_proto::frame::Kind;
use rcd_proto::types::container::{AttachParams, AttachReply, ContainerId, WaitReply};
use rcd_proto::types::exec::{ExecId, ExecReply};

use crate::connection::{Connection, Upgraded};
use crate::error::Error;
use crate::methods;
use crate::resume::Backoff;
use crate::terminal::Size;

/// The far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A container's first process, or its log.
    Container {
        /// Full id.
        id: String,
        /// Where stdout and stderr are in the log; unknown for a part of a log.
        offsets: Option<[i64; 2]>,
        /// Its stdin is fed.
        stdin: bool,
    },
    /// A process made by exec.
    Exec {
        /// Exec id.
        id: String,
    },
}

/// A stream taken up again, or what became of it.
#[derive(Debug)]
pub enum Resumed {
    /// It goes on.
    Stream(Upgraded),
    /// It had ended meanwhile, with this exit code.
    Ended(i32),
}

impl Target {
    /// Notes that output was taken over.
    pub fn advance(&mut self, kind: Kind, count: usize) {
        if let Target::Container {
            offsets: Some([stdout, stderr]),
            ..
        } = self
        {
            let offset = if kind == Kind::Stderr { stderr } else { stdout };
            *offset = offset.saturating_add_unsigned(count as u64);
        }
    }

    /// Attaches again on a new connection.
    ///
    /// # Errors
    /// A connection that broke again ([`Error::is_lost`]), or [`Error::NotResumed`].
    pub fn reopen(
        &self,
        connection: Connection,
        backoff: &Backoff,
        size: Option<Size>,
    ) -> Result<Resumed, Error> {
        let limit = Some(backoff.left(Instant::now()));
        let result = match self {
            Target::Container { offsets: None, .. } => {
                return Err(Error::NotResumed {
                    what: "its place in the log is not known; run rc logs again".into(),
                });
            }
            Target::Container {
                id,
                offsets: Some([stdout, stderr]),
                stdin,
            } => {
                let parameters = AttachParams {
                    id: id.clone(),
                    start: false,
                    stdin: *stdin,
                    stdout: true,
                    stderr: true,
                    stdout_offset: Some(*stdout),
                    stderr_offset: Some(*stderr),
                    rows: size.map(|size| size.rows.into()),
                    columns: size.map(|size| size.columns.into()),
                };
                connection
                    .upgrade::<_, AttachReply>(methods::ATTACH, &parameters, limit)
                    .map(|(_, stream)| stream)
            }
            Target::Exec { id } => connection
                .upgrade::<_, ExecReply>(methods::EXEC_ATTACH, &ExecId { id: id.clone() }, limit)
                .map(|(_, stream)| stream),
        };
        result
            .map(Resumed::Stream)
            .map_err(|error| match error.api() {
                Some(rcd_proto::Error::NoSuchContainer { id, .. }) => Error::NotResumed {
                    what: format!("container {id} is gone, so its exit code is unknown"),
                },
                Some(rcd_proto::Error::NoSuchExec { .. }) => Error::NotResumed {
                    what: "the process has ended meanwhile, so its exit code is unknown".into(),
                },
                _ => error,
            })
    }

    /// The exit code of a container that ended while nobody was attached.
    ///
    /// # Errors
    /// As any call.
    pub fn exit_code(&self, connection: &mut Connection) -> Result<Option<i32>, Error> {
        let Target::Container { id, .. } = self else {
            return Ok(None);
        };
        let reply: WaitReply =
            connection.call_patiently(methods::WAIT, &ContainerId { id: id.clone() })?;
        Ok(i32::try_from(reply.exit_code).ok())
    }
}
