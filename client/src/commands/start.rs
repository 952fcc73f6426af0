//! `rc start`.

use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::ArgAction;
use rcd_proto::types::Empty;
use rcd_proto::types::container::{
    ContainerId, ContainerState, ContainerSummary, InspectReply, LogsParams, LogsReply,
};

use super::run::{Interactive, attach_parameters};
use crate::attach::detach;
use crate::cli::Context;
use crate::connection::Connection;
use crate::error::Error;
use crate::resume::Backoff;
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
        start(context, context.address.connect()?, None, id)?;
        text::print_line(id)
    })
}

/// Starts a container. If the daemon restarts before it answers, the container's state says whether
/// it was started.
///
/// # Errors
/// Those of Start; a daemon that does not come back; a signal.
pub fn start(
    context: &Context,
    mut connection: Connection,
    signals: Option<&Rc<Signals>>,
    id: &str,
) -> Result<(), Error> {
    let begun_ns = now_ns();
    let id = ContainerId { id: id.to_owned() };
    let mut result = connection.call_patiently(methods::START, &id);
    let mut backoff = Backoff::default();
    while result.as_ref().is_err_and(Error::is_lost) {
        let what = "the container may have been started";
        let mut connection = backoff.reconnect(&context.address, signals, what)?;
        let limit = Some(backoff.left(Instant::now()));
        result = match connection.call_within::<_, InspectReply>(methods::INSPECT, &id, limit) {
            Ok(reply) if has_started(&reply.container.summary, begun_ns) => Ok(Empty {}),
            Ok(_) => connection.call_patiently(methods::START, &id),
            Err(error) => Err(error),
        };
    }
    match result {
        // As in Docker, that it runs already is what was asked for.
        Err(error) if matches!(error.api(), Some(rcd_proto::Error::AlreadyRunning { .. })) => {
            Ok(())
        }
        result => result.map(|Empty {}| ()),
    }
}

/// Whether a container runs, or has run since a moment.
pub fn has_started(summary: &ContainerSummary, since_ns: i64) -> bool {
    match summary.state {
        ContainerState::Created => false,
        ContainerState::Exited => summary.started_at_ns.is_some_and(|at| at >= since_ns),
        _ => true,
    }
}

/// Nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
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
    // Where this run's output begins, should the daemon restart before it says so.
    let end = LogsParams {
        id: detail.summary.id,
        follow: false,
        tail: Some(0),
    };
    let address = &context.address;
    let (log, _) = address.upgrade::<_, LogsReply>(&signals, methods::LOGS, &end)?;
    (parameters.stdout_offset, parameters.stderr_offset) =
        (Some(log.stdout_offset), Some(log.stderr_offset));
    let connection = context.address.connect_with(&signals)?;
    let (reply, stream) = super::run::attach_started(connection, context, &signals, parameters)?;
    interactive.session(context, &signals, &reply, arguments.sig_proxy, stream)
}
