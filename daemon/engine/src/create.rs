//! Making a container: checks, defaults from the image, directories, record.
//!
//! A create that nobody waits for any more (the client was interrupted) is undone as soon as it is
//! done: what is not acknowledged does not stay.

use std::path::Path;
use std::sync::Arc;

use rcd_store::{ContainerConfig, ContainerRecord, ContainerStatus, ImageRecord, NetworkMode};
use rcd_store::{Durability, Store};
use rcd_sys::failpoint;
use tokio::sync::oneshot;

use crate::container::driver::Driver;
use crate::container::start::{default_hostname, overlay_env, write_etc_files};
use crate::engine::{Shared, now_ns};
use crate::error::{Error, Result};
use crate::image::lookup;
use crate::names::{check_name, parse_signal, random_id, readable_name};
use crate::reconcile::{insert, view_of};
use crate::tables::{CONTAINERS_MAX, hold, release};
use crate::types::{ContainerInfo, ContainerRequest};

/// Seconds between the stop signal and SIGKILL if nobody says otherwise. Docker's.
const STOP_TIMEOUT_S_DEFAULT: u32 = 10;

/// The longest host name, as the kernel has it (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES_MAX: usize = 64;

/// How many made-up names are tried. The later ones carry a number and are hardly ever taken.
const NAME_ATTEMPTS_MAX: usize = 64;

/// Makes a container; see [`crate::Engine::create`].
pub(crate) async fn create(
    shared: &Arc<Shared>,
    request: ContainerRequest,
) -> Result<ContainerInfo> {
    let (answer, answered) = oneshot::channel();
    let task = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let made = make(&task, request).await;
        if let Err(Ok(info)) = answer.send(made) {
            let container = task.tables().container(&info.record.id);
            if let Ok(container) = container {
                let _ = container.remove(true).await;
            }
        }
    });
    answered.await.unwrap_or(Err(Error::Stopping))
}

async fn make(shared: &Arc<Shared>, request: ContainerRequest) -> Result<ContainerInfo> {
    check(&request)?;
    let image = {
        let mut tables = shared.tables();
        let image = lookup::image(&tables, &request.image)?;
        if tables.containers.len() >= CONTAINERS_MAX {
            return Err(Error::Busy {
                what: "containers",
                max: CONTAINERS_MAX,
            });
        }
        hold(&mut tables.image_holds, &image.id);
        image
    };
    let made = make_with(shared, request, &image).await;
    release(&mut shared.tables().image_holds, &image.id);
    made
}

async fn make_with(
    shared: &Arc<Shared>,
    request: ContainerRequest,
    image: &ImageRecord,
) -> Result<ContainerInfo> {
    let id = random_id()?;
    let name = reserve_name(shared, &id, request.name.as_deref())?;
    let made = match record(id, name.clone(), request, image) {
        Ok(record) => put(shared, record).await,
        Err(error) => Err(error),
    };
    let record = match made {
        Ok(record) => record,
        Err(error) => {
            shared.tables().names.remove(&name);
            return Err(error);
        }
    };
    let view = view_of(&record);
    let (container, ends) = insert(shared, record, view);
    let driver = Driver::new(Arc::clone(shared), Arc::clone(&container), ends, None);
    shared.tasks.spawn(driver.drive());
    Ok(container.info())
}

/// Enters a name for `id` into the table: the one asked for, or a readable pair.
fn reserve_name(shared: &Shared, id: &str, wanted: Option<&str>) -> Result<String> {
    let mut tables = shared.tables();
    if let Some(name) = wanted {
        if let Some(holder) = tables.names.get(name) {
            return Err(Error::NameInUse {
                name: name.to_owned(),
                id: crate::names::short_id(holder).to_owned(),
            });
        }
        tables.names.insert(name.to_owned(), id.to_owned());
        return Ok(name.to_owned());
    }
    let free = (0..NAME_ATTEMPTS_MAX)
        .map(|attempt| readable_name(id, attempt))
        .find(|name| !tables.names.contains_key(name));
    let name = free.unwrap_or_else(|| id.to_owned());
    tables.names.insert(name.clone(), id.to_owned());
    Ok(name)
}

/// Directories and row, in the class of durability that the container has.
async fn put(shared: &Arc<Shared>, record: ContainerRecord) -> Result<ContainerRecord> {
    // A container that is removed at its end need not outlast a power cut, which ends it; a
    // SIGKILL of the daemon it does outlast.
    let durability = match record.config.auto_remove {
        true => Durability::Relaxed,
        false => Durability::Synced,
    };
    let task = Arc::clone(shared);
    let made = tokio::task::spawn_blocking(move || {
        check_sources(&record)?;
        let done = put_blocking(&task, &record, durability);
        if done.is_err() {
            discard(&task.store, &record.id);
        }
        done.map(|()| record)
    });
    made.await
        .unwrap_or_else(|e| Err(Error::io("make a container")(std::io::Error::other(e))))
}

fn put_blocking(shared: &Shared, record: &ContainerRecord, durability: Durability) -> Result<()> {
    let what = || format!("make the directories of container {}", record.name);
    let dirs = shared
        .store
        .create_container_dirs(&record.id, record.layers.last().map(String::as_str))
        .map_err(Error::store(what()))?;
    failpoint::reach("create.directories");
    write_etc_files(record, &dirs, &*shared.network).map_err(Error::io(what()))?;
    failpoint::reach("create.files");
    let what = format!("record container {}", record.name);
    shared
        .store
        .put_container(record, durability)
        .map_err(Error::store(what))?;
    failpoint::reach("create.recorded");
    Ok(())
}

/// Removes what a failed create left. Its own failure is of no interest beside the first one.
fn discard(store: &Store, id: &str) {
    if let Err(error) = store.remove_container(id, Durability::Relaxed) {
        tracing::warn!(
            container.id = id,
            error = crate::error::chain(&error),
            "left behind"
        );
    }
    let _ = store.empty_trash();
}

/// The record of a new container: the image's configuration under what was asked for.
fn record(
    id: String,
    name: String,
    request: ContainerRequest,
    image: &ImageRecord,
) -> Result<ContainerRecord> {
    let network = request.network.unwrap_or_default();
    let mut env = image.env.clone();
    overlay_env(&mut env, &request.env);
    let mut labels = image.labels.clone();
    labels.extend(request.labels);
    // An entry point of one's own makes the image's command meaningless, as in Docker.
    let own_entrypoint = request.entrypoint.is_some();
    let entrypoint = request
        .entrypoint
        .unwrap_or_else(|| image.entrypoint.clone());
    let entrypoint: Vec<String> = entrypoint
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect();
    let command = match request.command {
        Some(command) if !command.is_empty() => command,
        _ if own_entrypoint => Vec::new(),
        _ => image.command.clone(),
    };
    if entrypoint.is_empty() && command.is_empty() {
        let reason = format!("image {} names no program; give one", request.image);
        return Err(Error::invalid("command", reason));
    }
    let create_working_dir = request.working_dir.is_none();
    let from_image = Some(image.working_dir.clone()).filter(|dir| !dir.is_empty());
    let working_dir = request
        .working_dir
        .or(from_image)
        .unwrap_or_else(|| "/".to_owned());
    let stop_signal = request.stop_signal.or_else(|| image.stop_signal.clone());
    let config = ContainerConfig {
        entrypoint,
        command,
        env,
        working_dir,
        create_working_dir,
        user: request.user.unwrap_or_else(|| image.user.clone()),
        hostname: request
            .hostname
            .unwrap_or_else(|| default_hostname(&id, network)),
        tty: request.tty,
        open_stdin: request.open_stdin,
        auto_remove: request.auto_remove,
        read_only: request.read_only,
        binds: request.binds,
        labels,
        network,
        stop_signal: match stop_signal {
            Some(signal) => parse_signal("stopSignal", &signal)?,
            None => nix::sys::signal::SIGTERM as i32,
        },
        stop_timeout_s: request.stop_timeout_s.unwrap_or(STOP_TIMEOUT_S_DEFAULT),
    };
    Ok(ContainerRecord {
        id,
        name,
        created_at_ns: now_ns(),
        image: request.image,
        image_id: image.id.clone(),
        layers: image.diff_ids.clone(),
        config,
        status: ContainerStatus::Created,
    })
}

// ---- checks ----

fn check(request: &ContainerRequest) -> Result<()> {
    if let Some(name) = &request.name {
        check_name(name)?;
    }
    let words = request.entrypoint.iter().chain(&request.command).flatten();
    for (field, text) in words.map(|word| ("command", word)) {
        no_nul(field, text)?;
    }
    check_process(&request.env, request.working_dir.as_deref())?;
    no_nul("user", request.user.as_deref().unwrap_or_default())?;
    if let Some(hostname) = &request.hostname {
        check_hostname(hostname)?;
    }
    if request.hostname.is_some() && request.network == Some(NetworkMode::Host) {
        let reason = "a container on the host's network has the host's name";
        return Err(Error::invalid("hostname", reason));
    }
    for bind in &request.binds {
        no_nul("binds", &bind.source)?;
        absolute("binds", &bind.source)?;
        absolute("binds", &bind.target)?;
        if Path::new(&bind.target).parent().is_none() {
            return Err(Error::invalid(
                "binds",
                "the target / would hide the whole container",
            ));
        }
    }
    Ok(())
}

/// Checks what a container's process and an exec have in common.
pub(crate) fn check_process(env: &[String], working_dir: Option<&str>) -> Result<()> {
    for entry in env {
        no_nul("env", entry)?;
        if entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
            return Err(Error::invalid(
                "env",
                format!("{entry:?} is not of the form KEY=value"),
            ));
        }
    }
    working_dir.map_or(Ok(()), |dir| absolute("workingDir", dir))
}

fn check_hostname(hostname: &str) -> Result<()> {
    let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let good = (1..=HOSTNAME_BYTES_MAX).contains(&hostname.len())
        && hostname.chars().all(label)
        && !hostname.starts_with(['-', '.']);
    match good {
        true => Ok(()),
        false => Err(Error::invalid(
            "hostname",
            format!(
                "{hostname:?} is not a host name: 1 to {HOSTNAME_BYTES_MAX} characters of \
                 [a-zA-Z0-9._-]"
            ),
        )),
    }
}

fn absolute(field: &'static str, path: &str) -> Result<()> {
    no_nul(field, path)?;
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(Error::invalid(
            field,
            format!("{path:?} is not an absolute path"),
        )),
    }
}

fn no_nul(field: &'static str, text: &str) -> Result<()> {
    match text.contains('\0') {
        false => Ok(()),
        true => Err(Error::invalid(
            field,
            format!("{text:?} contains a zero byte"),
        )),
    }
}

/// Bind sources must exist now: a mistyped path is found at create, not made as a directory.
fn check_sources(record: &ContainerRecord) -> Result<()> {
    for bind in &record.config.binds {
        if let Err(error) = std::fs::metadata(&bind.source) {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("there is no {} to bind; make it first", bind.source)
                }
                _ => format!("the source {} cannot be used: {error}", bind.source),
            };
            return Err(Error::invalid("binds", reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_cannot_be_honoured_name_their_field() {
        let check_field = |field: &str, change: fn(&mut ContainerRequest)| {
            let mut request = ContainerRequest {
                image: "i".to_owned(),
                ..Default::default()
            };
            change(&mut request);
            match check(&request) {
                Err(Error::InvalidConfig { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        };
        check_field("name", |r| r.name = Some("a b".to_owned()));
        check_field("env", |r| r.env.push("NOEQUALS".to_owned()));
        check_field("env", |r| r.env.push("=x".to_owned()));
        check_field("command", |r| r.command = Some(vec!["a\0b".to_owned()]));
        check_field("workingDir", |r| r.working_dir = Some("rel".to_owned()));
        check_field("hostname", |r| r.hostname = Some("x".repeat(65)));
        check_field("hostname", |r| r.hostname = Some("a b".to_owned()));
        check_field("user", |r| r.user = Some("a\0".to_owned()));
        check_field("binds", |r| r.binds.push(bind("rel", "/x")));
        check_field("binds", |r| r.binds.push(bind("/x", "rel")));
        check_field("binds", |r| r.binds.push(bind("/x", "/")));
    }

    fn bind(source: &str, target: &str) -> rcd_store::Bind {
        rcd_store::Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn entry_point_and_command_combine_as_in_docker() {
        let image = |entrypoint: &[&str], command: &[&str]| ImageRecord {
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            command: command.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let argv = |entry: Option<&[&str]>, command: Option<&[&str]>, image: &ImageRecord| {
            let words = |w: &[&str]| w.iter().map(ToString::to_string).collect::<Vec<_>>();
            let request = ContainerRequest {
                entrypoint: entry.map(words),
                command: command.map(words),
                ..Default::default()
            };
            record("0".repeat(64), "n".to_owned(), request, image)
                .map(|r| [r.config.entrypoint, r.config.command].concat().join(" "))
                .ok()
        };
        let both = image(&["entry"], &["cmd"]);
        let check = |entry, command, want: Option<&str>| {
            assert_eq!(argv(entry, command, &both).as_deref(), want);
        };
        check(None, None, Some("entry cmd"));
        check(None, Some(&["x"]), Some("entry x"));
        check(Some(&["e"]), None, Some("e"));
        check(Some(&["e"]), Some(&["x", "y"]), Some("e x y"));
        check(Some(&[""]), Some(&["x"]), Some("x"));
        check(Some(&[""]), None, None);
    }
}
