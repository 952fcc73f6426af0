//! `rc create`, and the making of a container that `rc run` shares.

use std::rc::Rc;
use std::time::Duration;

use rcd_proto::types::Empty;
use rcd_proto::types::container::{CreateParams, CreateReply, RemoveParams};

use super::pull::{Progress, pull};
use crate::cli::Context;
use crate::connection::Connection;
use crate::error::Error;
use crate::options::{ContainerFlags, PullPolicy};
use crate::signals::Signals;
use crate::{methods, text};

/// How long clean-up after Ctrl-C may take.
const CLEAN_UP_S_MAX: u64 = 5;

/// Create a container without starting it
///
/// Fetches the image if it is not here, makes the container, and prints its id. Start it with rc
/// start.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    flags: ContainerFlags,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let signals = Rc::new(Signals::block(false)?);
    let mut connection = context.address.connect_with(&signals)?;
    let reply = create(&mut connection, context, &arguments.flags)?;
    text::print_line(&reply.id)?;
    Ok(0)
}

/// Makes a container; fetches its image first where the policy says so. Interrupted, it leaves none
/// behind.
///
/// # Errors
/// Those of Create and Pull, or a signal.
pub fn create(
    connection: &mut Connection,
    context: &Context,
    flags: &ContainerFlags,
) -> Result<CreateReply, Error> {
    let parameters = CreateParams {
        config: flags.config()?,
    };
    let image = &parameters.config.image;
    if flags.pull == PullPolicy::Always {
        pull(
            connection,
            image,
            flags.platform.as_deref(),
            Progress::Stderr,
        )?;
    }
    let reply = match create_once(connection, context, &parameters) {
        Err(error) if flags.pull == PullPolicy::Missing && is_missing(&error) => {
            text::warn(&format!(
                "Unable to find image '{}' locally\n",
                text::printable(image)
            ));
            pull(
                connection,
                image,
                flags.platform.as_deref(),
                Progress::Stderr,
            )?;
            create_once(connection, context, &parameters)?
        }
        result => result?,
    };
    for warning in &reply.warnings {
        text::warn(&format!("warning: {}\n", text::printable(warning)));
    }
    Ok(reply)
}

fn is_missing(error: &Error) -> bool {
    matches!(error.api(), Some(rcd_proto::Error::NoSuchImage { .. }))
}

fn create_once(
    connection: &mut Connection,
    context: &Context,
    parameters: &CreateParams,
) -> Result<CreateReply, Error> {
    match connection.call(methods::CREATE, parameters) {
        Err(interrupted @ Error::Interrupted { .. }) => {
            // The request is on its way: its answer names the container that must go again.
            connection.ignore_signals();
            let limit = Some(Duration::from_secs(CLEAN_UP_S_MAX));
            if let Ok((CreateReply { id, .. }, _)) = connection.receive(methods::CREATE, limit) {
                remove(context, &id, false);
            }
            Err(interrupted)
        }
        result => result,
    }
}

/// Removes a container that an interrupted command made, if that is possible at once.
pub fn remove(context: &Context, id: &str, force: bool) {
    let parameters = RemoveParams {
        id: id.to_owned(),
        force,
    };
    let limit = Some(Duration::from_secs(CLEAN_UP_S_MAX));
    let call = |mut connection: Connection| {
        connection.call_within::<_, Empty>(methods::REMOVE, &parameters, limit)
    };
    // It may be gone already; and there is nobody to tell.
    let _ = context.address.connect().and_then(call);
}
