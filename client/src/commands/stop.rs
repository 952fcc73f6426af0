//! `rc stop`.

use rcd_proto::types::Empty;
use rcd_proto::types::container::StopParams;

use crate::cli::Context;
use crate::error::Error;
use crate::{methods, text};

/// Stop running containers
///
/// Sends each its stop signal (SIGTERM, or what the image or --stop-signal says), and SIGKILL if it
/// has not ended in time. Prints the names of those that have stopped.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Seconds before SIGKILL; 10, or the container's --stop-timeout, if absent
    #[arg(
        short = 't',
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let timeout_s = arguments.timeout.map(|seconds| match seconds {
        // Docker's way to say: wait as long as it takes.
        -1 => Ok(u32::MAX),
        seconds => u32::try_from(seconds)
            .map_err(|_| Error::Usage(format!("invalid timeout: {seconds} s"))),
    });
    let timeout_s = timeout_s.transpose()?;
    super::for_each(&arguments.containers, |id| {
        let parameters = StopParams {
            id: super::full_id(context, id)?,
            timeout_s,
        };
        let (result, again) = context.address.ask_again(methods::STOP, &parameters);
        match result {
            // The daemon restarted before it answered, and a --rm container has ended.
            Err(error) if again && super::is_missing(&error) => {}
            result => result.map(|Empty {}| ())?,
        }
        text::print_line(id)
    })
}
