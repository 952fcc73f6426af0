//! `rc rm`.

use rcd_proto::types::Empty;
use rcd_proto::types::container::RemoveParams;

use crate::cli::Context;
use crate::error::Error;
use crate::{methods, text};

/// Remove containers
///
/// Removes each with its files and logs, and prints its name. Images stay.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Kill it first if it runs; that it does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    super::for_each(&arguments.containers, |id| {
        let remove = |id| {
            let force = arguments.force;
            let parameters = RemoveParams { id, force };
            context.address.ask_again(methods::REMOVE, &parameters)
        };
        let (result, again) = match super::full_id(context, id) {
            Ok(id) => remove(id),
            Err(error) => (Err(error), false),
        };
        match result {
            // The daemon restarted before it answered, and the removal had been made.
            Err(error) if again && super::is_missing(&error) => text::print_line(id),
            Err(error) if arguments.force && super::is_missing(&error) => {
                text::warn(&crate::error::report(&error));
                Ok(())
            }
            result => result.and_then(|Empty {}| text::print_line(id)),
        }
    })
}
