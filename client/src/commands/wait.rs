//! `rc wait`.

use rcd_proto::types::container::{ContainerId, WaitReply};

use crate::cli::Context;
use crate::error::Error;
use crate::{methods, text};

/// Wait until containers have ended, and print their exit codes
///
/// Waits for one after the other. A restart of the service does not disturb it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    super::for_each(&arguments.containers, |id| {
        let id = super::full_id(context, id)?;
        let reply: WaitReply = context
            .address
            .ask_patiently(methods::WAIT, &ContainerId { id })?;
        text::print_line(&reply.exit_code.to_string())
    })
}
