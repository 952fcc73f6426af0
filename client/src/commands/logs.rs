//! `rc logs`.

use std::rc::Rc;

use rcd_proto::types::container::{ContainerId, InspectReply, LogsParams, LogsReply};

use crate::attach::target::Target;
use crate::attach::{Options, Session, User};
use crate::cli::Context;
use crate::error::Error;
use crate::methods;
use crate::signals::Signals;

/// Show what a container has written
///
/// The bytes come as they were written, stdout to stdout and stderr to stderr. With -f, a restart of
/// the service neither loses nor doubles any.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(
        short = 'n',
        long,
        value_name = "LINES",
        default_value = "all",
        allow_hyphen_values = true
    )]
    tail: String,
    /// Name, id, or beginning of an id
    container: String,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let tail = tail(&arguments.tail)?;
    let id = ContainerId {
        id: arguments.container,
    };
    // The full id, so that the same container is followed after a restart.
    let id = context
        .address
        .ask::<_, InspectReply>(methods::INSPECT, &id)?
        .container
        .summary
        .id;
    let signals = Rc::new(Signals::block(false)?);
    let parameters = LogsParams {
        id: id.clone(),
        follow: arguments.follow,
        tail,
    };
    let address = &context.address;
    let (reply, stream) = address.upgrade::<_, LogsReply>(&signals, methods::LOGS, &parameters)?;
    let session = Session::new(Options {
        address: context.address.clone(),
        signals,
        target: Target::Container {
            id,
            offsets: Some([reply.stdout_offset, reply.stderr_offset]),
            stdin: false,
        },
        user: User::own(false)?,
        tty: false,
        detach_keys: None,
        proxy: None,
        end_with_reader: true,
    });
    session.run(stream)?;
    Ok(0)
}

/// Lines to show; none means all, as a negative number does in Docker.
fn tail(text: &str) -> Result<Option<i64>, Error> {
    match text.parse::<i64>() {
        Ok(lines) => Ok(Some(lines).filter(|lines| *lines >= 0)),
        Err(_) if text == "all" => Ok(None),
        Err(_) => Err(Error::Usage(format!("invalid number of lines: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_read() {
        assert_eq!(tail("all").unwrap(), None);
        assert_eq!(tail("-1").unwrap(), None);
        assert_eq!(tail("0").unwrap(), Some(0));
        assert!(tail("x").is_err());
    }
}
