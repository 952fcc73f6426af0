//! `rc rmi`.

use rcd_proto::types::image::{ImageRemoveParams, ImageRemoveReply};

use crate::cli::Context;
use crate::error::Error;
use crate::{methods, text};

/// Remove images
///
/// Takes the reference away; the image goes with its last reference.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Also if several references name it, and with the ended containers that use it
    #[arg(short, long)]
    force: bool,
    /// References, ids, or beginnings of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    super::for_each(&arguments.images, |reference| {
        let parameters = ImageRemoveParams {
            reference: reference.to_owned(),
            force: arguments.force,
        };
        let reply: ImageRemoveReply = context
            .address
            .connect()?
            .call_patiently(methods::IMAGE_REMOVE, &parameters)?;
        let untagged = reply
            .untagged
            .iter()
            .map(|reference| format!("Untagged: {}\n", text::printable(reference)));
        let deleted = reply
            .deleted
            .iter()
            .map(|id| format!("Deleted: {}\n", text::printable(id)));
        text::print(&untagged.chain(deleted).collect::<String>())
    })
}
