//! `rc start`.

use std::rc::Rc;

use clap::ArgAction;
use rcd_proto::types::Empty;
use rcd_proto::types::container::{AttachReply, ContainerId, InspectReply};

use super::run::{Interactive, attach_parameters};
use crate::attach::detach;
use crate::cli::Context;
use crate::error::Error;
use crate::signals::Signals;
use crate::{methods, terminal, text};

/// Start containers that do not run
///
/// Prints their names; with -a or -i, connects to the one container as rc run does.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Show the container's output, pass signals on, and exit as it does
    #[arg(short, long)]
    attach: bool,
    /// Forward input, if the container was made with -i
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running in the background
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: String,
    /// Pass signals on to the process (not with a terminal)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    if arguments.attach || arguments.interactive {
        let [container] = arguments.containers.as_slice() else {
            return Err(Error::Usage("only one container can be attached to".into()));
        };
        return start_attached(&arguments, context, container);
    }
    super::for_each(&arguments.containers, |id| {
        let result = context
            .address
            .connect()?
            .call_patiently(methods::START, &ContainerId { id: id.to_owned() });
        match result {
            // As in Docker, that it runs already is what was asked for.
            Err(error) if matches!(error.api(), Some(rcd_proto::Error::AlreadyRunning { .. })) => {}
            result => result.map(|Empty {}| ())?,
        }
        text::print_line(id)
    })
}

fn start_attached(arguments: &Arguments, context: &Context, container: &str) -> Result<u8, Error> {
    let id = ContainerId {
        id: container.to_owned(),
    };
    let detail = context
        .address
        .ask::<_, InspectReply>(methods::INSPECT, &id)?
        .container;
    let stdin = arguments.interactive && detail.config.open_stdin;
    let interactive = Interactive::new(stdin, detail.config.tty, &arguments.detach_keys)?;
    interactive.check()?;
    let signals = Rc::new(Signals::block(arguments.sig_proxy && !detail.config.tty)?);
    let size = detail
        .config
        .tty
        .then(|| terminal::size(std::io::stdout()))
        .flatten();
    let mut parameters = attach_parameters(&detail.summary.id, stdin, size);
    parameters.start = true;
    let connection = context.address.connect_with(&signals)?;
    let (reply, stream) =
        connection.upgrade::<_, AttachReply>(methods::ATTACH, &parameters, None)?;
    interactive.session(context, &signals, &reply, arguments.sig_proxy, stream)
}
