//! `io.rcd.Exec`.

use rcd_proto::Error;
use rcd_proto::api::ExecApi;
use rcd_proto::types::exec::{ExecId, ExecParams, ExecReply};

use super::Daemon;
use super::connection::Session;
use super::convert::{self, error};
use super::session::{self, Wanted};

impl ExecApi for Daemon {
    async fn run(&self, parameters: ExecParams) -> Result<(ExecReply, Session), Error> {
        let stdin = parameters.config.stdin;
        let request = convert::exec_request(parameters.config, true)?;
        let engine = self.engine()?;
        let id = engine.exec(request).await.map_err(error)?;
        let attached = engine.attach_exec(&id).map_err(error)?;
        Ok((
            ExecReply { id },
            session::exec(attached, Wanted::all(stdin)),
        ))
    }

    async fn start(&self, parameters: ExecParams) -> Result<ExecReply, Error> {
        let request = convert::exec_request(parameters.config, false)?;
        let id = self.engine()?.exec(request).await.map_err(error)?;
        Ok(ExecReply { id })
    }

    async fn attach(&self, ExecId { id }: ExecId) -> Result<(ExecReply, Session), Error> {
        let attached = self.engine()?.attach_exec(&id).map_err(error)?;
        // Input goes on where there is one; a session without drops it.
        Ok((ExecReply { id }, session::exec(attached, Wanted::all(true))))
    }
}
