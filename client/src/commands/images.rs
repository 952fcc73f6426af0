//! `rc images`.

use rcd_proto::types::Empty;
use rcd_proto::types::image::{ImageListReply, ImageSummary};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::error::Error;
use crate::format::{list, units};
use crate::{methods, text};

/// Columns of the table.
const COLUMNS: list::Columns<'_> = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
];

/// List images
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// All images; there are no intermediate ones, so this changes nothing
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// table, json, or a template such as {{.Repository}}:{{.Tag}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Only images of this repository, or repository and tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    only: Option<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let images = context
        .address
        .ask::<_, ImageListReply>(methods::IMAGE_LIST, &Empty {})?
        .images;
    let now_ns = units::now_ns();
    let mut items: Vec<Value> = images
        .iter()
        .flat_map(|image| lines(image, !arguments.no_trunc, now_ns))
        .collect();
    if let Some(only) = &arguments.only {
        items.retain(|item| fits(item, only));
    }
    if arguments.quiet {
        let mut ids: Vec<&str> = items
            .iter()
            .filter_map(|item| item.get("ID").and_then(Value::as_str))
            .collect();
        ids.dedup();
        text::print(
            &ids.iter()
                .map(|id| text::printable(id) + "\n")
                .collect::<String>(),
        )?;
        return Ok(0);
    }
    text::print(&list::many(arguments.format.as_deref(), COLUMNS, &items)?)?;
    Ok(0)
}

/// A line for each reference of an image, with Docker's field names.
fn lines(image: &ImageSummary, truncate: bool, now_ns: i64) -> Vec<Value> {
    let none = vec![String::new()];
    let references = if image.references.is_empty() {
        &none
    } else {
        &image.references
    };
    let line = |reference: &String| {
        let (repository, tag) = split(reference);
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": if truncate { text::short_id(&image.id) } else { image.id.clone() },
            "Digest": image.manifest_digest.as_deref().unwrap_or("<none>"),
            "CreatedAt": units::created_at(image.created_at_ns),
            "CreatedSince": units::ago(image.created_at_ns, now_ns),
            "Size": units::size(image.size_bytes),
            "Containers": image.containers.to_string(),
        })
    };
    references.iter().map(line).collect()
}

/// Repository and tag as people write them: what Docker Hub implies is left out.
fn split(reference: &str) -> (&str, &str) {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    // A colon before the last slash belongs to the registry's port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "<none>"),
    };
    let familiar = repository
        .strip_prefix("docker.io/library/")
        .or_else(|| repository.strip_prefix("docker.io/"));
    (
        Some(familiar.unwrap_or(repository))
            .filter(|name| !name.is_empty())
            .unwrap_or("<none>"),
        tag,
    )
}

fn fits(item: &Value, only: &str) -> bool {
    let field = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let (repository, tag) = split(only);
    field("Repository") == repository && (tag == "<none>" || field("Tag") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_as_people_write_them() {
        for (reference, repository, tag) in [
            ("docker.io/library/debian:12", "debian", "12"),
            ("docker.io/me/x:y", "me/x", "y"),
            ("127.0.0.1:5000/debian:12", "127.0.0.1:5000/debian", "12"),
            ("127.0.0.1:5000/debian", "127.0.0.1:5000/debian", "<none>"),
            ("docker.io/library/x@sha256:00", "x", "<none>"),
            ("", "<none>", "<none>"),
        ] {
            assert_eq!(split(reference), (repository, tag), "{reference}");
        }
        assert!(fits(
            &json!({"Repository": "debian", "Tag": "12"}),
            "debian"
        ));
        assert!(!fits(
            &json!({"Repository": "debian", "Tag": "12"}),
            "debian:11"
        ));
    }
}
