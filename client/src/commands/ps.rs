//! `rc ps`.

use rcd_proto::types::container::{ContainerState, ContainerSummary, ListParams, ListReply};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::error::Error;
use crate::format::{list, units};
use crate::{methods, text};

/// Columns of the table.
const COLUMNS: list::Columns<'_> = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

/// Characters of a command that are shown.
const COMMAND_CHARS_MAX: usize = 20;

/// List containers
///
/// Those that run, newest first; with -a all.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Those too that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// table, json, or a template such as {{.ID}} {{.Names}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only the last created ones, whatever their state
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
    /// Only the last created one, whatever its state
    #[arg(short, long)]
    latest: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let last = if arguments.latest {
        Some(1)
    } else {
        arguments.last
    };
    let parameters = ListParams {
        all: arguments.all || last.is_some(),
    };
    let mut containers = context
        .address
        .ask::<_, ListReply>(methods::LIST, &parameters)?
        .containers;
    containers.truncate(last.unwrap_or(usize::MAX));
    let id = |container: &ContainerSummary| {
        if arguments.no_trunc {
            container.id.clone()
        } else {
            text::short_id(&container.id)
        }
    };
    if arguments.quiet {
        text::print(
            &containers
                .iter()
                .map(|container| id(container) + "\n")
                .collect::<String>(),
        )?;
        return Ok(0);
    }
    let now_ns = units::now_ns();
    let items: Vec<Value> = containers
        .iter()
        .map(|container| item(container, id(container), !arguments.no_trunc, now_ns))
        .collect();
    text::print(&list::many(arguments.format.as_deref(), COLUMNS, &items)?)?;
    Ok(0)
}

/// A container with Docker's field names.
fn item(container: &ContainerSummary, id: String, truncate: bool, now_ns: i64) -> Value {
    let command = container.command.join(" ");
    let command = if truncate {
        text::ellipsis(&command, COMMAND_CHARS_MAX)
    } else {
        command
    };
    let labels: Vec<String> = container
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "ID": id,
        "Image": container.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": units::created_at(container.created_at_ns),
        "RunningFor": units::ago(container.created_at_ns, now_ns),
        "Status": status(container, now_ns),
        "State": state(container.state),
        "Ports": "",
        "Names": container.name,
        "Labels": labels.join(","),
        "Networks": container.network,
        "Mounts": "",
        "LocalVolumes": "0",
        "Size": "0B",
    })
}

/// Docker's word for a state.
pub fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created | ContainerState::Starting => "created",
        ContainerState::Running | ContainerState::Stopping => "running",
        ContainerState::Exited => "exited",
        ContainerState::Removing => "removing",
    }
}

fn status(container: &ContainerSummary, now_ns: i64) -> String {
    match container.state {
        ContainerState::Created | ContainerState::Starting => "Created".into(),
        ContainerState::Removing => "Removal In Progress".into(),
        ContainerState::Running | ContainerState::Stopping => {
            let since = container.started_at_ns.unwrap_or(container.created_at_ns);
            format!("Up {}", units::duration(now_ns.saturating_sub(since)))
        }
        ContainerState::Exited => {
            // The code of a container that ended while nothing watched is not known.
            let code = container
                .exit_code
                .map_or_else(|| "unknown".into(), |code| code.to_string());
            match container.finished_at_ns {
                Some(at_ns) => format!("Exited ({code}) {}", units::ago(at_ns, now_ns)),
                None => format!("Exited ({code})"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_use_dockers_words() {
        let mut container = ContainerSummary {
            id: "0123456789abcdef".into(),
            name: "db".into(),
            image: "debian".into(),
            image_id: String::new(),
            command: vec!["sleep".into(), "1000000000000000000".into()],
            state: ContainerState::Running,
            created_at_ns: 0,
            started_at_ns: Some(3_600_000_000_000),
            finished_at_ns: None,
            exit_code: None,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            network: "none".into(),
        };
        let now = 2 * 3_600_000_000_000;
        let shown = item(&container, "0123".into(), true, now);
        assert_eq!(shown["Status"], "Up About an hour");
        assert_eq!(shown["RunningFor"], "2 hours ago");
        assert_eq!(shown["Command"], "\"sleep 1000000000000…\"");
        assert_eq!(shown["Labels"], "a=b");
        container.state = ContainerState::Exited;
        container.exit_code = Some(137);
        container.finished_at_ns = Some(now - 3 * 60_000_000_000);
        assert_eq!(status(&container, now), "Exited (137) 3 minutes ago");
    }
}
