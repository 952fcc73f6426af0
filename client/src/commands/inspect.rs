//! `rc inspect`.

use clap::ValueEnum;
use rcd_proto::types::container::{ContainerId, InspectReply};
use rcd_proto::types::image::{ImageInspectReply, ImageName};
use serde_json::Value;

use crate::cli::Context;
use crate::error::Error;
use crate::format::docker;
use crate::format::template::Template;
use crate::{methods, text};

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
}

/// Show everything about containers and images
///
/// Prints an array of JSON objects in Docker's shape. A name that both a container and an image have
/// means the container, unless --type says otherwise.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print by a template such as {{.State.Status}}, or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only objects of this kind
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Names, references, ids, or beginnings of ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let kind = arguments.kind.or(match context.group {
        Some("container") => Some(Kind::Container),
        Some("image") => Some(Kind::Image),
        _ => None,
    });
    let template = match arguments.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found = Vec::new();
    let code = super::for_each(&arguments.names, |name| {
        let value = find(context, kind, name)?;
        match &template {
            Some(template) => text::print_line(&text::printable_lines(&template.apply(&value)?)),
            None => {
                found.push(value);
                Ok(())
            }
        }
    });
    if template.is_none() {
        let found = Value::Array(found);
        // JSON escapes control characters itself.
        let text = if arguments.format.is_some() {
            found.to_string()
        } else {
            format!("{found:#}")
        };
        text::print_line(&text)?;
    }
    code
}

fn find(context: &Context, kind: Option<Kind>, name: &str) -> Result<Value, Error> {
    if kind != Some(Kind::Image) {
        let reply = context.address.ask::<_, InspectReply>(
            methods::INSPECT,
            &ContainerId {
                id: name.to_owned(),
            },
        );
        match reply {
            Ok(reply) => return Ok(docker::container(&reply.container)),
            Err(error)
                if kind.is_none()
                    && matches!(error.api(), Some(rcd_proto::Error::NoSuchContainer { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    let parameters = ImageName {
        reference: name.to_owned(),
    };
    let reply = context
        .address
        .ask::<_, ImageInspectReply>(methods::IMAGE_INSPECT, &parameters);
    match reply {
        Ok(reply) => Ok(docker::image(&reply.image)),
        Err(error)
            if kind.is_none()
                && matches!(
                    error.api(),
                    Some(
                        rcd_proto::Error::NoSuchImage { .. }
                            | rcd_proto::Error::InvalidReference { .. }
                    )
                ) =>
        {
            Err(Error::Usage(format!(
                "no such object: there is neither a container nor an image {name:?}"
            )))
        }
        Err(error) => Err(error),
    }
}
