//! `rc logs`.

use std::rc::Rc;

use rcd_proto::types::container::{ContainerId, InspectReply, LogsParams};

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
    let connection = context.address.connect_with(&signals)?;
    let (reply, stream) =
        connection.upgrade::<_, serde_json::Value>(methods::LOGS, &parameters, None)?;
    let session = Session::new(Options {
        address: context.address.clone(),
        signals,
        target: Target::Container {
            id,
            offsets: offsets(&reply, tail),
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

/// Where the shown part begins in the log: known if it is all of it, or if the daemon says so.
fn offsets(reply: &serde_json::Value, tail: Option<i64>) -> Option<[i64; 2]> {
    let offset = |name: &str| reply.get(name).and_then(serde_json::Value::as_i64);
    match (offset("stdoutOffset"), offset("stderrOffset"), tail) {
        (Some(stdout), Some(stderr), _) => Some([stdout, stderr]),
        (_, _, None) => Some([0, 0]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_offsets_are_read() {
        assert_eq!(tail("all").unwrap(), None);
        assert_eq!(tail("-1").unwrap(), None);
        assert_eq!(tail("0").unwrap(), Some(0));
        assert!(tail("x").is_err());
        assert_eq!(offsets(&serde_json::json!({}), None), Some([0, 0]));
        assert_eq!(offsets(&serde_json::json!({}), Some(3)), None);
        assert_eq!(
            offsets(
                &serde_json::json!({"stdoutOffset": 5, "stderrOffset": 6}),
                Some(3)
            ),
            Some([5, 6])
        );
    }
}
