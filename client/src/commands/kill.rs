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
            id: super::full_id(context, id)?,
            signal: Some(arguments.signal.clone()),
        };
        let Empty {} = if is_kill(&arguments.signal) {
            let (result, again) = context.address.ask_again(methods::KILL, &parameters);
            match result {
                // The daemon restarted before it answered, and the container has ended.
                Err(error) if again && has_ended(&error) => Empty {},
                result => result?,
            }
        } else {
            // Sent twice, it might do twice what it does.
            context
                .address
                .connect()?
                .call(methods::KILL, &parameters)?
        };
        text::print_line(id)
    })
}

fn is_kill(signal: &str) -> bool {
    let name = signal.to_ascii_uppercase();
    matches!(name.trim_start_matches("SIG"), "KILL" | "9")
}

fn has_ended(error: &Error) -> bool {
    use rcd_proto::Error::{NoSuchContainer, NotRunning};
    matches!(
        error.api(),
        Some(NotRunning { .. } | NoSuchContainer { .. })
    )
}
