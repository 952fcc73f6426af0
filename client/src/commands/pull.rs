//! `rc pull`, and the fetching of an image that run and create share.

use std::rc::Rc;

use rcd_proto::types::image::{LayerState, PullParams, PullReply};

use crate::cli::Context;
use crate::connection::Connection;
use crate::error::Error;
use crate::format::progress::Screen;
use crate::signals::Signals;
use crate::{methods, text};

/// Fetch an image from a registry
///
/// Layers that are here already are not fetched again. Ctrl-C ends it; layers that were finished by
/// then are kept for the next time.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Platform of the image; this machine's if absent
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Only the reference at the end
    #[arg(short, long)]
    quiet: bool,
    /// Image to fetch
    #[arg(value_name = "IMAGE")]
    reference: String,
}

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// On stdout.
    Stdout,
    /// On stderr.
    Stderr,
    /// Nowhere.
    Quiet,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let signals = Rc::new(Signals::block(false)?);
    let mut connection = context.address.connect_with(&signals)?;
    let progress = if arguments.quiet {
        Progress::Quiet
    } else {
        Progress::Stdout
    };
    let reference = pull(
        &mut connection,
        &arguments.reference,
        arguments.platform.as_deref(),
        progress,
    )?;
    text::print_line(&text::printable(&reference))?;
    Ok(0)
}

/// Fetches an image and returns its full reference. An interrupted connection is closed by its
/// owner, which ends the daemon's work too.
///
/// # Errors
/// Those of Pull, or a signal.
pub fn pull(
    connection: &mut Connection,
    reference: &str,
    platform: Option<&str>,
    progress: Progress,
) -> Result<String, Error> {
    let parameters = PullParams {
        reference: reference.to_owned(),
        platform: platform.map(str::to_owned),
    };
    connection.begin_stream(methods::IMAGE_PULL, &parameters)?;
    let mut screen = Screen::new(progress);
    let mut full = reference.to_owned();
    let mut fetched = false;
    loop {
        let (reply, continues): (PullReply, bool) =
            connection.receive(methods::IMAGE_PULL, None)?;
        if let Some(reference) = reply.reference {
            screen.line(&format!("Pulling {reference}"))?;
            full = reference;
        }
        fetched |= reply
            .layers
            .iter()
            .any(|layer| layer.state != LayerState::Exists);
        screen.update(&reply.layers)?;
        if !continues {
            screen.finish()?;
            if let Some(digest) = reply.manifest_digest {
                screen.line(&format!("Digest: {digest}"))?;
            }
            let status = if fetched {
                "Downloaded newer image for"
            } else {
                "Image is up to date for"
            };
            screen.line(&format!("Status: {status} {full}"))?;
            return Ok(full);
        }
    }
}
