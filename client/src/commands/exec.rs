//! `rc exec`.

use std::rc::Rc;

use rcd_proto::types::exec::{ExecConfig, ExecParams, ExecReply};

use super::run::Interactive;
use crate::attach::detach;
use crate::attach::target::Target;
use crate::cli::Context;
use crate::error::Error;
use crate::signals::Signals;
use crate::{methods, options, terminal};

/// Run a command in a running container
///
/// The exit code is the command's. 125 means that rc or the service failed, 126 that the command
/// cannot be run, 127 that it does not exist.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Forward input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Set a variable of the environment; KEY alone takes its value from rc's own
    #[arg(short, long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User to run as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Keys that leave the command running in the background
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: String,
    /// The container, and the command; flags end at the container
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let interactive =
        Interactive::new(arguments.interactive, arguments.tty, &arguments.detach_keys)?;
    if !arguments.detach {
        interactive.check()?;
    }
    let parameters = ExecParams {
        config: config(&arguments)?,
    };
    if arguments.detach {
        let ExecReply { id: _ } = context
            .address
            .connect()?
            .call(methods::EXEC_START, &parameters)?;
        return Ok(0);
    }
    let signals = Rc::new(Signals::block(false)?);
    let connection = context.address.connect_with(&signals)?;
    let (reply, stream) =
        connection.upgrade::<_, ExecReply>(methods::EXEC_RUN, &parameters, None)?;
    interactive.pump(
        context,
        &signals,
        Target::Exec { id: reply.id },
        arguments.tty,
        None,
        stream,
    )
}

fn config(arguments: &Arguments) -> Result<ExecConfig, Error> {
    let missing = || Error::Usage("a container and a command must be named".into());
    let (container, command) = arguments.words.split_first().ok_or_else(missing)?;
    let size = arguments
        .tty
        .then(|| terminal::size(std::io::stdout()))
        .flatten();
    Ok(ExecConfig {
        container: container.clone(),
        command: command.to_vec(),
        env: options::environment(&arguments.env)?,
        working_dir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        tty: arguments.tty,
        stdin: arguments.interactive && !arguments.detach,
        rows: size.map(|size| size.rows.into()),
        columns: size.map(|size| size.columns.into()),
    })
}
