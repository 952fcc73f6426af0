//! `io.rcd.Container`.

use std::time::Duration;

use rcd_proto::Error;
use rcd_proto::api::ContainerApi;
use rcd_proto::types::Empty;
use rcd_proto::types::container::{
    AttachParams, AttachReply, ContainerId, CreateParams, CreateReply, InspectReply, KillParams,
    ListParams, ListReply, LogsParams, LogsReply, RemoveParams, ResizeParams, StopParams,
    WaitReply,
};

use super::Daemon;
use super::connection::Session;
use super::convert::{self, error};
use super::session::{self, Wanted};

impl ContainerApi for Daemon {
    async fn list(&self, parameters: ListParams) -> Result<ListReply, Error> {
        let containers = self.engine()?.containers();
        let wanted = containers
            .iter()
            .filter(|info| parameters.all || info.view.phase.is_live());
        Ok(ListReply {
            containers: wanted.map(convert::container_summary).collect(),
        })
    }

    async fn create(&self, parameters: CreateParams) -> Result<CreateReply, Error> {
        let request = convert::container_request(parameters.config)?;
        let info = self.engine()?.create(request).await.map_err(error)?;
        Ok(CreateReply {
            id: info.record.id.clone(),
            name: info.record.name.clone(),
            warnings: Vec::new(),
        })
    }

    async fn start(&self, ContainerId { id }: ContainerId) -> Result<Empty, Error> {
        self.engine()?.start_container(&id).await.map_err(error)?;
        Ok(Empty {})
    }

    async fn stop(&self, parameters: StopParams) -> Result<Empty, Error> {
        let timeout = parameters
            .timeout_s
            .map(|seconds| Duration::from_secs(seconds.into()));
        self.engine()?
            .stop_container(&parameters.id, timeout)
            .await
            .map_err(error)?;
        Ok(Empty {})
    }

    async fn kill(&self, parameters: KillParams) -> Result<Empty, Error> {
        let signal = parameters.signal.as_deref();
        self.engine()?
            .kill_container(&parameters.id, signal)
            .await
            .map_err(error)?;
        Ok(Empty {})
    }

    async fn remove(&self, parameters: RemoveParams) -> Result<Empty, Error> {
        self.engine()?
            .remove_container(&parameters.id, parameters.force)
            .await
            .map_err(error)?;
        Ok(Empty {})
    }

    async fn wait(&self, ContainerId { id }: ContainerId) -> Result<WaitReply, Error> {
        let code = self.engine()?.wait(&id).await.map_err(error)?;
        let code = code.ok_or_else(|| Error::Internal {
            message: format!(
                "container {id} ended while nobody watched, so its exit code is unknown"
            ),
        })?;
        Ok(WaitReply {
            exit_code: code.into(),
        })
    }

    async fn inspect(&self, ContainerId { id }: ContainerId) -> Result<InspectReply, Error> {
        let engine = self.engine()?;
        let info = engine.container(&id).map_err(error)?;
        let paths = engine.paths(&info.record.id).map_err(error)?;
        let driver = engine.driver_of(&info.record);
        Ok(InspectReply {
            container: convert::container_detail(&info, &paths, driver),
        })
    }

    async fn attach(&self, parameters: AttachParams) -> Result<(AttachReply, Session), Error> {
        let request = convert::attach_request(&parameters)?;
        let attached = self.engine()?.attach(request).await.map_err(error)?;
        let (stdout_offset, stderr_offset) = attached.begins_at();
        let reply = AttachReply {
            id: attached.id().to_owned(),
            tty: attached.tty(),
            stdout_offset: convert::int(stdout_offset),
            stderr_offset: convert::int(stderr_offset),
        };
        let AttachParams {
            stdin,
            stdout,
            stderr,
            ..
        } = parameters;
        Ok((
            reply,
            session::attach(
                attached,
                Wanted {
                    stdin,
                    stdout,
                    stderr,
                },
            ),
        ))
    }

    async fn logs(&self, parameters: LogsParams) -> Result<(LogsReply, Session), Error> {
        let position = convert::log_position(&parameters)?;
        let reader = self
            .engine()?
            .logs(&parameters.id, position)
            .await
            .map_err(error)?;
        let (stdout, stderr) = reader.offsets();
        let reply = LogsReply {
            stdout_offset: convert::int(stdout),
            stderr_offset: convert::int(stderr),
        };
        Ok((reply, session::logs(reader, parameters.follow)))
    }

    async fn resize(&self, parameters: ResizeParams) -> Result<Empty, Error> {
        let rows = convert::number("rows", parameters.rows)?;
        let columns = convert::number("columns", parameters.columns)?;
        self.engine()?
            .resize(&parameters.id, rows, columns)
            .map_err(error)?;
        Ok(Empty {})
    }
}
