//! `io.rcd.Image`.

use futures_util::stream;
use rcd_proto::Error;
use rcd_proto::api::ImageApi;
use rcd_proto::table::ItemStream;
use rcd_proto::types::Empty;
use rcd_proto::types::image::{
    ImageInspectReply, ImageListReply, ImageName, ImageRemoveParams, ImageRemoveReply,
    ImportParams, ImportReply, PullParams, PullReply,
};

use super::connection::Session;
use super::convert::{self, error};
use super::{Daemon, session};

impl ImageApi for Daemon {
    async fn list(&self, _: Empty) -> Result<ImageListReply, Error> {
        let images = self.engine()?.images();
        Ok(ImageListReply {
            images: images.iter().map(convert::image_summary).collect(),
        })
    }

    async fn inspect(
        &self,
        ImageName { reference }: ImageName,
    ) -> Result<ImageInspectReply, Error> {
        let image = self.engine()?.image(&reference).map_err(error)?;
        Ok(ImageInspectReply {
            image: convert::image_detail(&image),
        })
    }

    async fn pull(&self, parameters: PullParams) -> Result<ItemStream<PullReply>, Error> {
        let platform = parameters.platform.as_deref();
        let session = self
            .engine()?
            .pull(&parameters.reference, platform)
            .map_err(error)?;
        Ok(Box::pin(stream::unfold(
            session,
            |mut session| async move {
                let event = session.next().await?;
                Some((event.map(convert::pull_reply).map_err(error), session))
            },
        )))
    }

    async fn import(&self, parameters: ImportParams) -> Result<(ImportReply, Session), Error> {
        let ImportParams {
            reference,
            command,
            env,
        } = parameters;
        let importing = self
            .engine()?
            .import(reference.as_deref(), command, env)
            .map_err(error)?;
        Ok((ImportReply {}, session::import(importing)))
    }

    async fn remove(&self, parameters: ImageRemoveParams) -> Result<ImageRemoveReply, Error> {
        let ImageRemoveParams { reference, force } = parameters;
        let removal = self
            .engine()?
            .remove_image(&reference, force)
            .await
            .map_err(error)?;
        Ok(ImageRemoveReply {
            untagged: removal.untagged,
            deleted: removal.deleted,
        })
    }
}
