//! What a container's start is made of: pure functions from its record to options and files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcd_runtime::{BindOptions, ContainerOptions, EtcFiles, ExecOptions, ProcessOptions};
use rcd_store::ContainerDirs;
use rcd_store::{ContainerRecord, NetworkMode};

use crate::names::short_id;
use crate::platform::{Network, Rootfs};
use crate::types::ExecRequest;

/// What a program finds in `PATH` if neither image nor user set it. Docker's.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that the runtime needs to start `record`.
pub(crate) fn container_options(
    record: &ContainerRecord,
    layers: Vec<PathBuf>,
    dirs: &ContainerDirs,
    rootfs: &dyn Rootfs,
    network: &dyn Network,
) -> ContainerOptions {
    let config = &record.config;
    ContainerOptions {
        id: record.id.clone(),
        hostname: config.hostname.clone(),
        rootfs: rootfs.prepare(record, layers, dirs),
        readonly_root: config.read_only,
        process: ProcessOptions {
            argv: config
                .entrypoint
                .iter()
                .chain(&config.command)
                .cloned()
                .collect(),
            env: environment(record),
            cwd: PathBuf::from(&config.working_dir),
            create_cwd: config.create_working_dir,
            user: config.user.clone(),
            groups: Vec::new(),
            terminal: config.tty.then_some((0, 0)),
        },
        binds: config
            .binds
            .iter()
            .map(|bind| BindOptions {
                source: PathBuf::from(&bind.source),
                target: PathBuf::from(&bind.target),
                read_only: bind.read_only,
                recursive: bind.recursive,
            })
            .collect(),
        files: EtcFiles {
            resolv_conf: dirs.resolv_conf.clone(),
            hostname: dirs.hostname.clone(),
            hosts: dirs.hosts.clone(),
        },
        network: network.plan(config.network),
        open_stdin: config.open_stdin,
        stop_signal: config.stop_signal,
        stop_timeout: Duration::from_secs(u64::from(config.stop_timeout_s)),
    }
}

/// Everything that the runtime needs to run `request` in `record`.
pub(crate) fn exec_options(
    record: &ContainerRecord,
    exec_id: &str,
    request: &ExecRequest,
) -> ExecOptions {
    let config = &record.config;
    let mut env = environment(record);
    overlay_env(&mut env, &request.env);
    if request.terminal.is_some() && !has_key(&env, "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    let cwd = request
        .working_dir
        .clone()
        .unwrap_or_else(|| config.working_dir.clone());
    ExecOptions {
        container: record.id.clone(),
        exec_id: exec_id.to_owned(),
        process: ProcessOptions {
            argv: request.command.clone(),
            env,
            cwd: PathBuf::from(cwd),
            create_cwd: false,
            user: request.user.clone().unwrap_or_else(|| config.user.clone()),
            groups: Vec::new(),
            terminal: request.terminal,
        },
        stdin: request.stdin,
    }
}

/// The environment as the program sees it: Docker's defaults under what is configured.
fn environment(record: &ContainerRecord) -> Vec<String> {
    let config = &record.config;
    let mut env = vec![
        DEFAULT_PATH.to_owned(),
        format!("HOSTNAME={}", config.hostname),
    ];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    overlay_env(&mut env, &config.env);
    env
}

/// Puts `over` on top of `env`: a key that is there is replaced where it stands.
pub(crate) fn overlay_env(env: &mut Vec<String>, over: &[String]) {
    for entry in over {
        let key = env_key(entry);
        match env.iter_mut().find(|e| env_key(e) == key) {
            Some(slot) => slot.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
}

fn has_key(env: &[String], key: &str) -> bool {
    env.iter().any(|entry| env_key(entry) == key)
}

fn env_key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Writes the container's `/etc` files. Blocks on the disk.
///
/// # Errors
/// A file cannot be written; the host's resolv.conf cannot be read.
pub(crate) fn write_etc_files(
    record: &ContainerRecord,
    dirs: &ContainerDirs,
    network: &dyn Network,
) -> std::io::Result<()> {
    let mode = record.config.network;
    let resolver = match network.shares_resolver(mode) {
        true => read_if_exists(Path::new("/etc/resolv.conf"))?,
        false => Vec::new(),
    };
    std::fs::write(&dirs.resolv_conf, resolver)?;
    std::fs::write(&dirs.hostname, format!("{}\n", record.config.hostname))?;
    std::fs::write(&dirs.hosts, hosts(record, mode))
}

fn hosts(record: &ContainerRecord, mode: NetworkMode) -> String {
    let loopback = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let own = match mode {
        // Its own name must resolve; the only address that it has is the loopback one.
        NetworkMode::None | NetworkMode::Host => "127.0.1.1",
    };
    let (hostname, name) = (&record.config.hostname, &record.name);
    let alias = if hostname == name {
        String::new()
    } else {
        format!(" {name}")
    };
    format!(
        "{loopback}fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{own}\t{hostname}{alias}\n"
    )
}

fn read_if_exists(path: &Path) -> std::io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The host name of a container that was given none: on the host's network the host's, else the
/// short id.
pub(crate) fn default_hostname(id: &str, mode: NetworkMode) -> String {
    let own = || short_id(id).to_owned();
    match mode {
        NetworkMode::None => own(),
        NetworkMode::Host => nix::unistd::gethostname()
            .ok()
            .and_then(|n| n.into_string().ok())
            .unwrap_or_else(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_entries_replace_those_of_the_same_key_in_place() {
        let check = |base: &[&str], over: &[&str], want: &[&str]| {
            let mut env: Vec<String> = base.iter().map(ToString::to_string).collect();
            let over: Vec<String> = over.iter().map(ToString::to_string).collect();
            overlay_env(&mut env, &over);
            assert_eq!(env, want);
        };
        check(&["A=1", "B=2"], &["A=3"], &["A=3", "B=2"]);
        check(&["A=1"], &["AB=2"], &["A=1", "AB=2"]);
        check(&[], &["A=x=y"], &["A=x=y"]);
        check(&["A=1"], &["A="], &["A="]);
    }
}
