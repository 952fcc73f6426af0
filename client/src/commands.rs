//! One module per verb: its flags, and what it does with them.
//!
//! A verb's `run` gets its parsed arguments and returns the exit code. It calls the daemon, and
//! prints what [`crate::format`] makes of the reply.

pub mod attach;
pub mod create;
pub mod exec;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod ps;
pub mod pull;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod start;
pub mod stop;
pub mod version;
pub mod wait;

use rcd_proto::types::container::{ContainerId, InspectReply};

use crate::cli::Context;
use crate::error::{Error, report};
use crate::{methods, text};

/// Does something with each of several objects. Every error is shown as it comes; one of them makes
/// the exit code 1.
fn for_each(names: &[String], mut act: impl FnMut(&str) -> Result<(), Error>) -> Result<u8, Error> {
    let mut failed = false;
    for name in names {
        match act(name) {
            Ok(()) => {}
            Err(
                error @ (Error::OutputClosed
                | Error::Connect { .. }
                | Error::NotBack { .. }
                | Error::Interrupted { .. }),
            ) => {
                return Err(error);
            }
            Err(error) => {
                text::warn(&report(&error));
                failed = true;
            }
        }
    }
    if failed { Err(Error::Shown) } else { Ok(0) }
}

/// The full id of a container, for calls that may have to be made again: by then its name, or the
/// beginning of its id, might lead to another one.
///
/// # Errors
/// No such container, or those of any call.
fn full_id(context: &Context, name: &str) -> Result<String, Error> {
    let id = ContainerId {
        id: name.to_owned(),
    };
    let reply: InspectReply = context.address.ask(methods::INSPECT, &id)?;
    Ok(reply.container.summary.id)
}

/// Whether the daemon knows no such container.
fn is_missing(error: &Error) -> bool {
    matches!(error.api(), Some(rcd_proto::Error::NoSuchContainer { .. }))
}

/// The exit code of a process, as ours.
fn exit_code(code: i32) -> u8 {
    // wait(2) gives eight bits; anything else is not an exit code.
    u8::try_from(code).unwrap_or(crate::error::EXIT_ENGINE)
}
