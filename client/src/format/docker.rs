//! Containers and images in the shape of Docker's `inspect`.
//!
//! Field names and types are those of the Docker Engine API 1.47 (ContainerInspectResponse and
//! ImageInspect), so that scripts read them unchanged. `GraphDriver.Data` has one field more: why
//! that root file system driver was taken.

use rcd_proto::types::container::{Bind, ContainerDetail, ContainerState};
use rcd_proto::types::image::ImageDetail;
use serde_json::{Map, Value, json};

use super::units;
use crate::commands::ps;

/// A container.
pub fn container(detail: &ContainerDetail) -> Value {
    let summary = &detail.summary;
    let config = &detail.config;
    let mut words = config.entrypoint.iter().chain(&config.command);
    json!({
        "Id": summary.id,
        "Created": units::rfc3339(summary.created_at_ns),
        "Path": words.next().cloned().unwrap_or_default(),
        "Args": words.collect::<Vec<_>>(),
        "State": state(detail),
        "Image": summary.image_id,
        "ResolvConfPath": detail.resolv_conf_path,
        "HostnamePath": detail.hostname_path,
        "HostsPath": detail.hosts_path,
        "LogPath": detail.log_path,
        "Name": format!("/{}", summary.name),
        "RestartCount": 0,
        "Driver": detail.rootfs_driver,
        "Platform": "linux",
        "ExecIDs": (!detail.exec_ids.is_empty()).then_some(&detail.exec_ids),
        "HostConfig": host_config(detail),
        "GraphDriver": {
            "Name": detail.rootfs_driver,
            "Data": {
                "LowerDir": detail.lower_dirs.join(":"),
                "UpperDir": detail.upper_dir,
                "WorkDir": detail.work_dir,
                "Reason": detail.rootfs_driver_reason,
            },
        },
        "Mounts": config.binds.iter().map(mount).collect::<Vec<_>>(),
        "Config": {
            "Hostname": config.hostname,
            "Domainname": "",
            "User": config.user,
            "AttachStdin": config.open_stdin,
            "AttachStdout": true,
            "AttachStderr": true,
            "Tty": config.tty,
            "OpenStdin": config.open_stdin,
            "StdinOnce": config.open_stdin,
            "Env": config.env,
            "Cmd": list(&config.command),
            "Image": summary.image,
            "Volumes": null,
            "WorkingDir": config.working_dir,
            "Entrypoint": list(&config.entrypoint),
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
            "StopTimeout": config.stop_timeout_s,
        },
        "NetworkSettings": {
            "SandboxKey": "",
            "Ports": {},
            "IPAddress": "",
            "Gateway": "",
            "MacAddress": "",
            "Networks": { config.network.clone(): { "IPAddress": "", "Gateway": "", "MacAddress": "", "NetworkID": "" } },
        },
    })
}

fn state(detail: &ContainerDetail) -> Value {
    let summary = &detail.summary;
    let moment = |ns: Option<i64>| ns.map_or_else(|| units::NEVER.to_owned(), units::rfc3339);
    json!({
        "Status": ps::state(summary.state),
        "Running": matches!(summary.state, ContainerState::Running | ContainerState::Stopping),
        "Paused": false,
        "Restarting": false,
        "OOMKilled": false,
        "Dead": false,
        "Pid": detail.pid.unwrap_or(0),
        "ExitCode": summary.exit_code.unwrap_or(0),
        "Error": detail.error.as_deref().unwrap_or_default(),
        "StartedAt": moment(summary.started_at_ns),
        "FinishedAt": moment(summary.finished_at_ns),
    })
}

fn host_config(detail: &ContainerDetail) -> Value {
    let config = &detail.config;
    let bind = |bind: &Bind| {
        format!(
            "{}:{}{}",
            bind.source,
            bind.target,
            if bind.read_only { ":ro" } else { "" }
        )
    };
    json!({
        "Binds": config.binds.iter().map(bind).collect::<Vec<_>>(),
        "NetworkMode": config.network,
        "PortBindings": {},
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": config.auto_remove,
        "ReadonlyRootfs": config.read_only,
        "Privileged": false,
        "Cgroup": "",
        "CgroupParent": detail.cgroup_path.as_deref().unwrap_or_default(),
    })
}

fn mount(bind: &Bind) -> Value {
    json!({
        "Type": "bind",
        "Source": bind.source,
        "Destination": bind.target,
        "Mode": if bind.read_only { "ro" } else { "" },
        "RW": !bind.read_only,
        "Propagation": "rprivate",
    })
}

/// Docker has null where there is nothing.
fn list(words: &[String]) -> Option<&[String]> {
    (!words.is_empty()).then_some(words)
}

/// An image.
pub fn image(detail: &ImageDetail) -> Value {
    let summary = &detail.summary;
    let mut platform = detail.platform.split('/');
    let keys = |names: &[String]| {
        let map: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({}))).collect();
        if map.is_empty() {
            Value::Null
        } else {
            Value::Object(map)
        }
    };
    let repository = |reference: &String| {
        let last = reference.rfind('/').map_or(0, |at| at + 1);
        let end = reference
            .get(last..)
            .and_then(|name| name.find([':', '@']))
            .map_or(reference.len(), |at| last + at);
        reference.get(..end).unwrap_or_default().to_owned()
    };
    let digests: Vec<String> = match &summary.manifest_digest {
        Some(digest) => summary
            .references
            .iter()
            .map(|reference| format!("{}@{digest}", repository(reference)))
            .collect(),
        None => Vec::new(),
    };
    json!({
        "Id": summary.id,
        "RepoTags": summary.references.iter().filter(|reference| !reference.contains('@')).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Parent": "",
        "Comment": "",
        "Created": units::rfc3339(summary.created_at_ns),
        "Author": detail.author.as_deref().unwrap_or_default(),
        "Os": platform.next().unwrap_or_default(),
        "Architecture": platform.next().unwrap_or_default(),
        "Variant": platform.next().unwrap_or_default(),
        "Size": summary.size_bytes,
        "RootFS": { "Type": "layers", "Layers": detail.diff_ids },
        "Config": {
            "User": detail.user,
            "ExposedPorts": keys(&detail.exposed_ports),
            "Env": detail.env,
            "Cmd": list(&detail.command),
            "Volumes": keys(&detail.volumes),
            "WorkingDir": detail.working_dir,
            "Entrypoint": list(&detail.entrypoint),
            "Labels": summary.labels,
            "StopSignal": detail.stop_signal,
        },
    })
}
