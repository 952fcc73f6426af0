//! `rc kill`.

use rcd_proto::types::Empty;
use rcd_proto::types::container::KillParams;

use crate::cli::Context;
use crate::error::Error;
use crate::{methods, text};

/// Send a signal to running containers
///
/// Prints the names of those that it was sent to.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Signal by name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    super::for_each(&arguments.containers, |id| {
        let parameters = KillParams {
            id: id.to_owned(),
            signal: Some(arguments.signal.clone()),
        };
        let Empty {} = context
            .address
            .connect()?
            .call(methods::KILL, &parameters)?;
        text::print_line(id)
    })
}
