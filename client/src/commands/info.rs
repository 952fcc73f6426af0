//! `rc info`.

use std::fmt::Write as _;

use rcd_proto::types::Empty;
use rcd_proto::types::system::{IdRange, InfoReply};

use crate::cli::Context;
use crate::error::Error;
use crate::format::{list, units};
use crate::{methods, text};

/// Show the state of the service and what this host lacks
///
/// At the end stands what is missing on this host, what does not work without it, and what to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print as json, or by a template such as {{.rootfsDriver}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let info: InfoReply = context.address.ask(methods::INFO, &Empty {})?;
    let rendered = match &arguments.format {
        Some(format) => {
            let value = serde_json::to_value(&info).map_err(|source| Error::Garbled {
                method: methods::INFO,
                source: source.into(),
            })?;
            list::one(format, &value)?
        }
        None => text::printable_lines(&render(&info)) + "\n",
    };
    text::print(&rendered)?;
    Ok(0)
}

fn render(info: &InfoReply) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{:<22}{value}", format!("{name}:"));
    };
    line("Version", info.version.version.clone());
    line(
        "Kernel",
        format!(
            "{} ({}/{})",
            info.version.kernel, info.version.os, info.version.arch
        ),
    );
    line(
        "Containers",
        format!(
            "{} running, {} stopped",
            info.containers_running, info.containers_stopped
        ),
    );
    line("Images", info.images.to_string());
    line(
        "Root file systems",
        format!("{} ({})", info.rootfs_driver, info.rootfs_driver_reason),
    );
    line(
        "Cgroup",
        info.cgroup.clone().unwrap_or_else(|| "none".into()),
    );
    line("Controllers", info.cgroup_controllers.join(" "));
    line("Uid map", ranges(&info.uid_map));
    line("Gid map", ranges(&info.gid_map));
    line("Data directory", info.data_root.clone());
    line("Runtime directory", info.run_root.clone());
    line("Service manager", info.service_manager.clone());
    line(
        "Processes",
        format!("daemon {}, holder {}", info.daemon_pid, info.holder_pid),
    );
    line(
        "Machine",
        format!(
            "{} CPUs, {} of memory",
            info.cpus,
            units::size(info.memory_bytes)
        ),
    );
    if info.shortcomings.is_empty() {
        line("Shortcomings", "none".into());
    }
    for shortcoming in &info.shortcomings {
        let _ = write!(
            out,
            "\n! {}\n  effect: {}\n  cure:   {}\n",
            shortcoming.what, shortcoming.effect, shortcoming.cure
        );
    }
    out
}

fn ranges(map: &[IdRange]) -> String {
    let range = |range: &IdRange| {
        format!(
            "{}+{} from {}",
            range.container_id, range.size, range.host_id
        )
    };
    map.iter().map(range).collect::<Vec<_>>().join(", ")
}
