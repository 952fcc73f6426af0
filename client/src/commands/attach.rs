//! `rc attach`.

use std::rc::Rc;

use clap::ArgAction;
use rcd_proto::types::container::{AttachReply, ContainerId, ContainerState, InspectReply};

use super::run::{Interactive, attach_parameters};
use crate::attach::detach;
use crate::cli::Context;
use crate::error::Error;
use crate::signals::Signals;
use crate::{methods, terminal};

/// Connect the terminal to a running container
///
/// Shows what the container writes from now on, and passes on what is typed. The exit code is the
/// container's.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Do not forward input
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave the container running in the background
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: String,
    /// Pass signals on to the process (not with a terminal)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// Name, id, or beginning of an id
    container: String,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let id = ContainerId {
        id: arguments.container,
    };
    let detail = context
        .address
        .ask::<_, InspectReply>(methods::INSPECT, &id)?
        .container;
    if !matches!(
        detail.summary.state,
        ContainerState::Running | ContainerState::Starting | ContainerState::Stopping
    ) {
        return Err(Error::Usage(format!(
            "container {} does not run; start it with rc start -a",
            detail.summary.name
        )));
    }
    let stdin = !arguments.no_stdin && detail.config.open_stdin;
    let interactive = Interactive::new(stdin, detail.config.tty, &arguments.detach_keys)?;
    interactive.check()?;
    let signals = Rc::new(Signals::block(arguments.sig_proxy && !detail.config.tty)?);
    let size = detail
        .config
        .tty
        .then(|| terminal::size(std::io::stdout()))
        .flatten();
    let parameters = attach_parameters(&detail.summary.id, stdin, size);
    let address = &context.address;
    let (reply, stream) =
        address.upgrade::<_, AttachReply>(&signals, methods::ATTACH, &parameters)?;
    interactive.session(context, &signals, &reply, arguments.sig_proxy, stream)
}
