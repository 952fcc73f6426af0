//! `rc version`.

use rcd_proto::types::Empty;
use rcd_proto::types::system::VersionReply;
use serde_json::json;

use crate::cli::Context;
use crate::error::Error;
use crate::format::list;
use crate::{methods, text};

/// Show the versions of rc and rcd
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print as json, or by a template such as {{.Server.Version}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let client = env!("CARGO_PKG_VERSION");
    let server = context
        .address
        .ask::<_, VersionReply>(methods::VERSION, &Empty {});
    if let Some(format) = &arguments.format {
        let server = server?;
        let value = json!({
            "Client": {"Version": client, "ApiVersion": rcd_proto::api::API_VERSION},
            "Server": {
                "Version": server.version, "ApiVersion": server.api_version, "HolderProtocol": server.holder_protocol,
                "Os": server.os, "Arch": server.arch, "KernelVersion": server.kernel,
            },
        });
        text::print(&list::one(format, &value)?)?;
        return Ok(0);
    }
    text::print(&format!(
        "Client:\n Version:         {client}\n API version:     {}\n",
        rcd_proto::api::API_VERSION
    ))?;
    let server = server?;
    text::print(&text::printable_lines(&format!(
        "Server:\n Version:         {}\n API version:     {}\n Holder protocol: {}\n OS/Arch:         {}/{}\n Kernel:          {}",
        server.version,
        server.api_version,
        server.holder_protocol,
        server.os,
        server.arch,
        server.kernel
    )))?;
    text::print("\n")?;
    Ok(0)
}
