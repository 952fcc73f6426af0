//! `rc run`: create, attach and start on one connection.

use std::rc::Rc;
use std::time::Instant;

use clap::ArgAction;
use rcd_proto::types::container::{AttachParams, AttachReply, ContainerId, InspectReply};

use super::create::{create, remove};
use super::start::has_started;
use crate::attach::detach::{self, DetachKeys};
use crate::attach::target::Target;
use crate::attach::{Ending, Options, Session, User};
use crate::cli::Context;
use crate::connection::{Connection, Upgraded};
use crate::error::{EXIT_ENGINE, Error};
use crate::options::ContainerFlags;
use crate::resume::Backoff;
use crate::signals::Signals;
use crate::terminal::{self, RawMode, Size};
use crate::{methods, text};

/// Create and run a new container from an image
///
/// Fetches the image if it is not here, makes a container, starts it, and connects its streams
/// until it ends; the exit code is then its own. 125 means that rc or the service failed, 126 that
/// the command cannot be run, 127 that it does not exist.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run in the background, and print the container's id
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    detach: bool,
    /// Keys that leave the container running in the background
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    detach_keys: String,
    /// Pass signals on to the process (not with a terminal)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    #[command(flatten)]
    flags: ContainerFlags,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let flags = &arguments.flags;
    let interactive = Interactive::new(flags.interactive, flags.tty, &arguments.detach_keys)?;
    if !arguments.detach {
        interactive.check()?;
    }
    let proxy = arguments.sig_proxy && !flags.tty && !arguments.detach;
    let signals = Rc::new(Signals::block(proxy)?);
    let mut connection = context.address.connect_with(&signals)?;
    let id = create(&mut connection, context, flags)?.id;
    let started = if arguments.detach {
        super::start::start(context, connection, Some(&signals), &id).map(|()| None)
    } else {
        start_attached(connection, context, &signals, &id, interactive.stdin).map(Some)
    };
    let attached = started.inspect_err(|error| {
        // The daemon removes it at its end; one that never began has none.
        if flags.rm {
            remove(context, &id, matches!(error, Error::Interrupted { .. }));
        }
    })?;
    let Some((reply, stream)) = attached else {
        text::print_line(&id)?;
        return Ok(0);
    };
    interactive.session(context, &signals, &reply, proxy, stream)
}

/// Attaches to a new container and starts it.
fn start_attached(
    connection: Connection,
    context: &Context,
    signals: &Rc<Signals>,
    id: &str,
    stdin: bool,
) -> Result<(AttachReply, Upgraded), Error> {
    let size = terminal::size(std::io::stdout());
    let mut parameters = attach_parameters(id, stdin, size);
    parameters.start = true;
    // It never ran: its log begins with its first byte.
    (parameters.stdout_offset, parameters.stderr_offset) = (Some(0), Some(0));
    attach_started(connection, context, signals, parameters)
}

/// Attaches to a container and starts it. If the daemon restarts before it answers, the container's
/// state says whether it was started.
///
/// # Errors
/// Those of Attach; a daemon that does not come back; a signal.
pub fn attach_started(
    connection: Connection,
    context: &Context,
    signals: &Rc<Signals>,
    mut parameters: AttachParams,
) -> Result<(AttachReply, Upgraded), Error> {
    let begun_ns = super::start::now_ns();
    let id = parameters.id.clone();
    let mut result = connection.upgrade(methods::ATTACH, &parameters, None);
    let mut backoff = Backoff::default();
    while result.as_ref().is_err_and(Error::is_lost) {
        let mut connection = backoff.reconnect(
            &context.address,
            Some(signals),
            "the container may have been started",
        )?;
        let limit = Some(backoff.left(Instant::now()));
        result = match connection.call_within::<_, InspectReply>(
            methods::INSPECT,
            &ContainerId { id: id.clone() },
            limit,
        ) {
            Ok(reply) => {
                parameters.start = !has_started(&reply.container.summary, begun_ns);
                connection.upgrade(methods::ATTACH, &parameters, None)
            }
            // It was removed at its end, and what it wrote can be had for a while.
            Err(error) if super::is_missing(&error) => {
                parameters.start = false;
                let attached = connection.upgrade(methods::ATTACH, &parameters, None);
                attached.map_err(|error| match super::is_missing(&error) {
                    true => Error::NotResumed {
                        what: format!("container {id} is gone, so its exit code is unknown"),
                    },
                    false => error,
                })
            }
            Err(error) => Err(error),
        };
    }
    result
}

/// Parameters to attach with; the log is read from its end.
pub fn attach_parameters(id: &str, stdin: bool, size: Option<Size>) -> AttachParams {
    AttachParams {
        id: id.to_owned(),
        start: false,
        stdin,
        stdout: true,
        stderr: true,
        stdout_offset: None,
        stderr_offset: None,
        rows: size.map(|size| size.rows.into()),
        columns: size.map(|size| size.columns.into()),
    }
}

/// How the user's side takes part: what run, start and attach share.
#[derive(Debug)]
pub struct Interactive {
    /// Input is forwarded.
    pub stdin: bool,
    /// The far side is expected to be a terminal.
    pub tty: bool,
    keys: DetachKeys,
}

impl Interactive {
    /// Reads the detach keys.
    ///
    /// # Errors
    /// Keys that cannot be read.
    pub fn new(stdin: bool, tty: bool, keys: &str) -> Result<Interactive, Error> {
        Ok(Interactive {
            stdin,
            tty,
            keys: DetachKeys::parse(keys)?,
        })
    }

    /// Refuses to connect input that is no terminal to a terminal.
    ///
    /// # Errors
    /// Docker's.
    pub fn check(&self) -> Result<(), Error> {
        if self.stdin && self.tty && !is_terminal() {
            return Err(Error::Usage("the input device is not a TTY".into()));
        }
        Ok(())
    }

    /// Pumps until the container ends or the user detaches, and gives the exit code.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn session(
        self,
        context: &Context,
        signals: &Rc<Signals>,
        reply: &AttachReply,
        proxy: bool,
        stream: Upgraded,
    ) -> Result<u8, Error> {
        let target = Target::Container {
            id: reply.id.clone(),
            offsets: Some([reply.stdout_offset, reply.stderr_offset]),
            stdin: self.stdin,
        };
        let proxy = (proxy && !reply.tty).then(|| reply.id.clone());
        self.pump(context, signals, target, reply.tty, proxy, stream)
    }

    /// Pumps to and from any target.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn pump(
        self,
        context: &Context,
        signals: &Rc<Signals>,
        target: Target,
        tty: bool,
        proxy: Option<String>,
        stream: Upgraded,
    ) -> Result<u8, Error> {
        let raw = tty && self.stdin && is_terminal();
        let guard = if raw {
            Some(RawMode::enter(std::io::stdin())?)
        } else {
            None
        };
        let session = Session::new(Options {
            address: context.address.clone(),
            signals: Rc::clone(signals),
            target,
            user: User::own(self.stdin)?,
            tty,
            detach_keys: raw.then_some(self.keys),
            proxy,
            end_with_reader: false,
        });
        let ending = session.run(stream);
        drop(guard);
        match ending? {
            Ending::Exit(code) => Ok(super::exit_code(code)),
            Ending::Detached => {
                text::warn("read escape sequence\n");
                Ok(0)
            }
            Ending::End => Ok(EXIT_ENGINE),
        }
    }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}
