//! The wire's types to the engine's, and back. Nothing else knows both.

use std::num::TryFromIntError;
use std::path::Path;

use nix::sys::signal::Signal;
use rcd_engine::{
    AttachRequest, ContainerInfo, ContainerPaths, ContainerRequest, DriverChoice, ExecRequest,
    ImageInfo, Phase, Position, PullEvent, chain,
};
use rcd_proto::Error;
use rcd_proto::table::Item;
use rcd_proto::types::container::{
    AttachParams, Bind, ContainerConfig, ContainerDetail, ContainerState, ContainerSummary,
    EffectiveConfig, LogsParams,
};
use rcd_proto::types::exec::ExecConfig;
use rcd_proto::types::image::{ImageDetail, ImageSummary, LayerProgress, LayerState, PullReply};
use rcd_store::NetworkMode;

/// Size of a terminal whose client does not say: that of the first ones, which programs expect.
const TERMINAL_DEFAULT: (u16, u16) = (24, 80);

/// A failure of the engine, with its causes as text.
pub fn error(error: rcd_engine::Error) -> Error {
    use rcd_engine::Error as E;
    let message = chain(&error);
    match error {
        E::NoSuchContainer { id } => Error::NoSuchContainer { message, id },
        E::AmbiguousContainer { id, candidates } => Error::AmbiguousContainer {
            message,
            id,
            candidates,
        },
        E::NameInUse { name, id } => Error::NameInUse { message, name, id },
        E::NotRunning { id, state } => Error::NotRunning {
            message,
            id,
            state: state.to_owned(),
        },
        E::WrongPhase { id, state, .. } => Error::InUse {
            message,
            id,
            state: state.to_owned(),
        },
        E::StartFailed { id, exit_code, .. } => Error::StartFailed {
            message,
            id,
            exit_code,
        },
        E::ExecFailed {
            container,
            exit_code,
            ..
        } => Error::ExecFailed {
            message,
            container,
            exit_code,
        },
        E::NoSuchExec { id } => Error::NoSuchExec { message, id },
        E::InvalidConfig { field, .. } => Error::InvalidConfig {
            message,
            field: field.to_owned(),
        },
        E::NoSuchImage { reference } => Error::NoSuchImage { message, reference },
        E::AmbiguousImage {
            reference,
            candidates,
        } => Error::AmbiguousImage {
            message,
            reference,
            candidates,
        },
        E::ImageInUse {
            reference,
            containers,
        } => Error::ImageInUse {
            message,
            reference,
            containers,
        },
        E::ImageNamedTwice { id, references } => Error::AmbiguousImage {
            message,
            reference: id,
            candidates: references,
        },
        E::InvalidReference { reference, .. } => Error::InvalidReference { message, reference },
        E::Pull { reference, .. } => Error::PullFailed { message, reference },
        E::Import { .. } => Error::ImportFailed { message },
        E::Busy { .. } | E::ExecAttached { .. } | E::Stopping => Error::Busy { message },
        _ => Error::Internal { message },
    }
}

/// A number of the wire, as a smaller or unsigned one.
///
/// # Errors
///
/// [`Error::InvalidParameter`] if it does not fit.
pub fn number<T: TryFrom<i64, Error = TryFromIntError>>(
    parameter: &str,
    value: i64,
) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::InvalidParameter {
        message: format!("parameter {parameter} is out of range: {value}"),
        parameter: parameter.to_owned(),
    })
}

fn optional_number<T: TryFrom<i64, Error = TryFromIntError>>(
    parameter: &str,
    value: Option<i64>,
) -> Result<Option<T>, Error> {
    value.map(|value| number(parameter, value)).transpose()
}

/// A length or time as the wire's integer; beyond its range, its end.
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A time of which 0 means never.
fn time(value: u64) -> Option<i64> {
    (value != 0).then(|| int(value))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What is asked of `create`.
///
/// # Errors
///
/// [`Error::NotSupported`] for a network that does not exist.
pub fn container_request(config: ContainerConfig) -> Result<ContainerRequest, Error> {
    let network = match config.network.as_deref() {
        None => None,
        Some("none") => Some(NetworkMode::None),
        Some("host") => Some(NetworkMode::Host),
        Some(other) => {
            return Err(Error::NotSupported {
                message: format!("network {other:?} is not supported; use none or host"),
                what: "network".to_owned(),
            });
        }
    };
    Ok(ContainerRequest {
        image: config.image,
        name: config.name,
        entrypoint: config.entrypoint,
        command: config.command,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        hostname: config.hostname,
        tty: config.tty,
        open_stdin: config.open_stdin,
        auto_remove: config.auto_remove,
        read_only: config.read_only,
        binds: config.binds.into_iter().map(bind_to_record).collect(),
        labels: config.labels,
        network,
        stop_signal: config.stop_signal,
        stop_timeout_s: config.stop_timeout_s,
    })
}

fn bind_to_record(bind: Bind) -> rcd_store::Bind {
    let Bind {
        source,
        target,
        read_only,
        recursive,
    } = bind;
    rcd_store::Bind {
        source,
        target,
        read_only,
        recursive,
    }
}

fn bind_of_record(bind: &rcd_store::Bind) -> Bind {
    let rcd_store::Bind {
        source,
        target,
        read_only,
        recursive,
    } = bind.clone();
    Bind {
        source,
        target,
        read_only,
        recursive,
    }
}

fn network_name(mode: NetworkMode) -> String {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
    }
    .to_owned()
}

/// What is asked of `attach`.
///
/// # Errors
///
/// [`Error::InvalidParameter`] for a number out of range.
pub fn attach_request(parameters: &AttachParams) -> Result<AttachRequest, Error> {
    let stdout: Option<u64> = optional_number("stdoutOffset", parameters.stdout_offset)?;
    let stderr: Option<u64> = optional_number("stderrOffset", parameters.stderr_offset)?;
    Ok(AttachRequest {
        container: parameters.id.clone(),
        start: parameters.start,
        offsets: (stdout.is_some() || stderr.is_some())
            .then(|| (stdout.unwrap_or(0), stderr.unwrap_or(0))),
        size: size(parameters.rows, parameters.columns)?,
    })
}

/// A terminal's size, if both of its numbers are there.
fn size(rows: Option<i64>, columns: Option<i64>) -> Result<Option<(u16, u16)>, Error> {
    Ok(optional_number("rows", rows)?.zip(optional_number("columns", columns)?))
}

/// Where to begin in a log.
///
/// # Errors
///
/// [`Error::InvalidParameter`] for a negative number of lines.
pub fn log_position(parameters: &LogsParams) -> Result<Position, Error> {
    Ok(match optional_number("tail", parameters.tail)? {
        Some(lines) => Position::Tail(lines),
        None => Position::Start,
    })
}

/// What is asked of `exec`.
///
/// # Errors
///
/// [`Error::InvalidParameter`] for a number out of range.
pub fn exec_request(config: ExecConfig, attached: bool) -> Result<ExecRequest, Error> {
    let size = size(config.rows, config.columns)?;
    Ok(ExecRequest {
        container: config.container,
        command: config.command,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        terminal: config.tty.then(|| size.unwrap_or(TERMINAL_DEFAULT)),
        stdin: config.stdin && attached,
        attached,
    })
}

fn state(phase: Phase) -> ContainerState {
    match phase {
        Phase::Created => ContainerState::Created,
        Phase::Starting => ContainerState::Starting,
        Phase::Running => ContainerState::Running,
        Phase::Stopping => ContainerState::Stopping,
        Phase::Exited => ContainerState::Exited,
        Phase::Removing => ContainerState::Removing,
    }
}

/// A line of the list of containers.
pub fn container_summary(info: &ContainerInfo) -> ContainerSummary {
    let (record, view) = (&info.record, &info.view);
    let config = &record.config;
    ContainerSummary {
        id: record.id.clone(),
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        command: config
            .entrypoint
            .iter()
            .chain(&config.command)
            .cloned()
            .collect(),
        state: state(view.phase),
        created_at_ns: int(record.created_at_ns),
        started_at_ns: time(view.started_at_ns),
        finished_at_ns: time(view.finished_at_ns),
        exit_code: view.exit_code.map(i64::from),
        labels: config.labels.clone(),
        network: network_name(config.network),
    }
}

/// Everything about a container.
pub fn container_detail(
    info: &ContainerInfo,
    paths: &ContainerPaths,
    driver: DriverChoice,
) -> ContainerDetail {
    ContainerDetail {
        summary: container_summary(info),
        config: effective_config(&info.record.config),
        pid: info.view.pid.map(i64::from),
        error: info.view.error.clone(),
        rootfs_driver: driver.driver.to_owned(),
        rootfs_driver_reason: driver.reason.to_owned(),
        lower_dirs: paths.lowers.iter().map(|path| text(path)).collect(),
        upper_dir: text(&paths.dirs.upper),
        work_dir: text(&paths.dirs.work),
        log_path: text(&paths.dirs.log),
        resolv_conf_path: text(&paths.dirs.resolv_conf),
        hostname_path: text(&paths.dirs.hostname),
        hosts_path: text(&paths.dirs.hosts),
        cgroup_path: paths.cgroup.as_deref().map(text),
        exec_ids: paths.execs.clone(),
    }
}

fn effective_config(config: &rcd_store::ContainerConfig) -> EffectiveConfig {
    let config = config.clone();
    EffectiveConfig {
        binds: config.binds.iter().map(bind_of_record).collect(),
        network: network_name(config.network),
        stop_signal: signal_name(config.stop_signal),
        entrypoint: config.entrypoint,
        command: config.command,
        env: config.env,
        working_dir: config.working_dir,
        user: config.user,
        hostname: config.hostname,
        tty: config.tty,
        open_stdin: config.open_stdin,
        auto_remove: config.auto_remove,
        read_only: config.read_only,
        labels: config.labels,
        stop_timeout_s: config.stop_timeout_s,
    }
}

/// The signal's name; its number if it is a real-time one.
fn signal_name(number: i32) -> String {
    Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned())
}

/// A line of the list of images.
pub fn image_summary(info: &ImageInfo) -> ImageSummary {
    let record = &info.record;
    ImageSummary {
        id: record.id.clone(),
        references: record.references.clone(),
        manifest_digest: Some(record.manifest_digest.clone()).filter(|digest| !digest.is_empty()),
        created_at_ns: int(record.created_at_ns),
        size_bytes: int(record.size_bytes),
        labels: record.labels.clone(),
        containers: count(info.containers),
    }
}

/// Everything about an image.
pub fn image_detail(info: &ImageInfo) -> ImageDetail {
    let record = rcd_store::ImageRecord::clone(&info.record);
    ImageDetail {
        summary: image_summary(info),
        platform: format!("{}/{}", record.os, record.architecture),
        author: record.author,
        diff_ids: record.diff_ids,
        entrypoint: record.entrypoint,
        command: record.command,
        env: record.env,
        working_dir: record.working_dir,
        user: record.user,
        exposed_ports: record.exposed_ports,
        volumes: record.volumes,
        stop_signal: record.stop_signal,
    }
}

/// A reply of a pull.
pub fn pull_reply(event: PullEvent) -> Item<PullReply> {
    let all =
        |layers: Vec<rcd_engine::LayerProgress>| layers.into_iter().map(layer_progress).collect();
    match event {
        PullEvent::Resolved { reference, layers } => Item::More(PullReply {
            reference: Some(reference),
            layers: all(layers),
            ..PullReply::default()
        }),
        PullEvent::Progress(layers) => Item::More(PullReply {
            layers: all(layers),
            ..PullReply::default()
        }),
        PullEvent::Done {
            image_id,
            manifest_digest,
        } => Item::Last(PullReply {
            image_id: Some(image_id),
            manifest_digest: Some(manifest_digest),
            ..PullReply::default()
        }),
    }
}

fn layer_progress(layer: rcd_engine::LayerProgress) -> LayerProgress {
    LayerProgress {
        digest: layer.digest,
        state: match layer.state {
            rcd_engine::LayerState::Waiting => LayerState::Waiting,
            rcd_engine::LayerState::Pulling => LayerState::Pulling,
            rcd_engine::LayerState::Done => LayerState::Done,
            rcd_engine::LayerState::Exists => LayerState::Exists,
        },
        received_bytes: int(layer.received_bytes),
        total_bytes: int(layer.total_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_name_their_parameter() {
        assert_eq!(number::<u16>("rows", 24), Ok(24));
        for (value, wide) in [(-1, false), (65_536, true)] {
            let error = number::<u16>("rows", value).unwrap_err();
            assert!(
                matches!(error, Error::InvalidParameter { parameter, .. } if parameter == "rows")
            );
            assert_eq!(number::<u64>("rows", value).is_ok(), wide);
        }
    }

    #[test]
    fn an_unknown_network_is_refused() {
        let network = |name: &str| {
            let network = Some(name.to_owned());
            container_request(ContainerConfig {
                network,
                ..ContainerConfig::default()
            })
        };
        assert_eq!(network("host").unwrap().network, Some(NetworkMode::Host));
        assert!(matches!(network("bridge"), Err(Error::NotSupported { .. })));
    }

    #[test]
    fn one_offset_stands_for_both() {
        let parameters = AttachParams {
            stdout_offset: Some(5),
            ..AttachParams::default()
        };
        assert_eq!(attach_request(&parameters).unwrap().offsets, Some((5, 0)));
        assert_eq!(
            attach_request(&AttachParams::default()).unwrap().offsets,
            None
        );
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(15), "SIGTERM");
        assert_eq!(signal_name(37), "37");
    }
}
