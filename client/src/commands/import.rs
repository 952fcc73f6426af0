//! `rc import`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rcd_proto::frame::{self, Decoder, Kind};
use rcd_proto::types::image::{ImportParams, ImportReply, ImportResult};

use crate::cli::Context;
use crate::connection::Upgraded;
use crate::error::Error;
use crate::signals::Signals;
use crate::{methods, text};

/// Make an image from the archive of a root file system
///
/// The archive is a tar, plain or compressed by gzip or zstd. Prints the new image's id.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Set something in the image's configuration: CMD or ENV, as a Dockerfile has it
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// The archive; - reads stdin
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Reference to give the image
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
}

/// Runs the command.
pub fn run(arguments: Arguments, context: &Context) -> Result<u8, Error> {
    let mut parameters = ImportParams {
        reference: arguments.reference,
        command: Vec::new(),
        env: Vec::new(),
    };
    for instruction in &arguments.change {
        change(instruction, &mut parameters)?;
    }
    let path = std::path::PathBuf::from(&arguments.file);
    let archive = match arguments.file.as_str() {
        "-" => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        _ => File::open(&path),
    };
    let archive = archive.map_err(|source| Error::File {
        operation: "open",
        path: path.clone(),
        source,
    })?;
    let signals = Rc::new(Signals::block(false)?);
    let connection = context.address.connect_with(&signals)?;
    let (ImportReply {}, upgraded) =
        connection.upgrade(methods::IMAGE_IMPORT, &parameters, None)?;
    let read_failed = |source| Error::File {
        operation: "read",
        path: path.clone(),
        source,
    };
    let result = upload(upgraded, &archive, &signals, &read_failed)?;
    text::print_line(&text::printable(&result.image_id))?;
    Ok(0)
}

/// Applies a Dockerfile instruction.
fn change(instruction: &str, parameters: &mut ImportParams) -> Result<(), Error> {
    let (verb, rest) = instruction
        .trim()
        .split_once([' ', '='])
        .unwrap_or((instruction, ""));
    match verb.to_ascii_uppercase().as_str() {
        "CMD" => {
            let shell = || {
                vec![
                    "/bin/sh".to_owned(),
                    "-c".to_owned(),
                    rest.trim().to_owned(),
                ]
            };
            parameters.command = serde_json::from_str(rest.trim()).unwrap_or_else(|_| shell());
        }
        "ENV" => {
            let setting = rest.trim();
            let setting = if setting.contains('=') {
                setting.to_owned()
            } else {
                setting.replacen(' ', "=", 1)
            };
            if setting.starts_with('=') || !setting.contains('=') {
                return Err(Error::Usage(format!(
                    "invalid change {instruction:?}: it is not ENV KEY=VALUE"
                )));
            }
            parameters.env.push(setting);
        }
        _ => {
            return Err(Error::NotSupported {
                what: format!("the change {instruction:?}"),
            });
        }
    }
    Ok(())
}

/// Sends the archive, and takes the result, which may come before the end of the archive.
fn upload(
    upgraded: Upgraded,
    mut archive: &File,
    signals: &Signals,
    read_failed: &dyn Fn(io::Error) -> Error,
) -> Result<ImportResult, Error> {
    const METHOD: &str = methods::IMAGE_IMPORT;
    let talk = |source| Error::Talk {
        method: METHOD,
        source,
    };
    let mut stream = upgraded.stream;
    stream.set_nonblocking(true).map_err(talk)?;
    let mut decoder = Decoder::default();
    decoder.extend(&upgraded.early);
    let mut chunk = vec![0; frame::CONTENT_BYTES_MAX];
    let mut waiting = Vec::new();
    let mut at_end = false;
    loop {
        while let Some((kind, content)) = decoder.next_frame().map_err(|error| Error::Garbled {
            method: METHOD,
            source: error.into(),
        })? {
            match kind {
                Kind::Result => {
                    return serde_json::from_slice(content).map_err(|error| Error::Garbled {
                        method: METHOD,
                        source: error.into(),
                    });
                }
                Kind::Error => return Err(rcd_proto::Error::from_json(content).into()),
                _ => {}
            }
        }
        if waiting.is_empty() && !at_end {
            let count = archive.read(&mut chunk).map_err(read_failed)?;
            at_end = count == 0;
            frame::encode(
                Kind::Stdin,
                chunk.get(..count).unwrap_or_default(),
                &mut waiting,
            );
        }
        let ready = wait(&stream, !waiting.is_empty(), signals)?;
        if ready.contains(PollFlags::POLLOUT) {
            match stream.write(&waiting) {
                Ok(count) => drop(waiting.drain(..count)),
                Err(error) if would_block(&error) => {}
                // The daemon has given up; why stands in what it sent before.
                Err(_) => (waiting, at_end) = (Vec::new(), true),
            }
        }
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            match stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Lost { method: METHOD }),
                Ok(count) => decoder.extend(chunk.get(..count).unwrap_or_default()),
                Err(error) if would_block(&error) => {}
                Err(source) => return Err(talk(source)),
            }
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn wait(stream: &UnixStream, sending: bool, signals: &Signals) -> Result<PollFlags, Error> {
    let interest = if sending {
        PollFlags::POLLIN | PollFlags::POLLOUT
    } else {
        PollFlags::POLLIN
    };
    let mut fds = [
        PollFd::new(stream.as_fd(), interest),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(errno) => {
            return Err(Error::Talk {
                method: methods::IMAGE_IMPORT,
                source: errno.into(),
            });
        }
    }
    if let Some(signal) = signals.next_ending() {
        return Err(Error::Interrupted {
            signal: signal as i32,
        });
    }
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_dockerfile_instructions() {
        let mut parameters = ImportParams::default();
        for instruction in [
            "CMD [\"/bin/bash\", \"-l\"]",
            "ENV A=1 2",
            "env B x",
            "ENV=C=3",
        ] {
            change(instruction, &mut parameters).unwrap();
        }
        assert_eq!(parameters.command, ["/bin/bash", "-l"]);
        assert_eq!(parameters.env, ["A=1 2", "B=x", "C=3"]);
        change("CMD echo hi", &mut parameters).unwrap();
        assert_eq!(parameters.command, ["/bin/sh", "-c", "echo hi"]);
        assert!(change("ENV", &mut parameters).is_err());
        assert!(
            change("EXPOSE 80", &mut parameters)
                .is_err_and(|error| error.to_string().contains("not supported yet"))
        );
    }
}
