//! The pump between the user's descriptors and an upgraded connection.
//!
//! One thread and one poll. Output is taken from the connection one frame at a time and only once
//! the frame before it is written out, so that a stalled terminal stalls the daemon's sending and
//! nothing piles up; input is read only while the connection takes it. The user's descriptors stay
//! blocking (their modes are shared with other processes), so writes to them are cut to what a
//! writable pipe or terminal takes.
//!
//! A connection that ends before Exit, Error or End means that the daemon restarts: the pump waits
//! for it and takes the stream up again where it broke (see [`target`]). Input that the lost daemon
//! had received and not yet passed on is lost with it; all else is kept.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rcd_proto::frame::{self, Decoder, Kind};
use rcd_proto::types::Empty;
use rcd_proto::types::container::KillParams;

use crate::connection::{Address, Upgraded};
use crate::error::Error;
use crate::methods;
use crate::resume::Backoff;
use crate::signals::Signals;
use crate::terminal;
use crate::text;

pub mod detach;
mod outbox;
pub mod target;
#[cfg(test)]
mod tests;

use detach::DetachKeys;
use outbox::Outbox;
use target::{Resumed, Target};

/// Bytes that a pipe which polls as writable takes without blocking (PIPE_BUF, pipe(7)).
const WRITE_BYTES_MAX: usize = 4096;

/// Bytes read at once.
const READ_BYTES: usize = 32 << 10;

/// After so many Ctrl-C or SIGTERM the user means `rc` itself: a first process that ignores them
/// must not hold it for ever. Docker's number.
const ENDING_SIGNALS_MAX: u32 = 3;

/// How long passing a signal on may take.
const KILL_S_MAX: u64 = 5;

/// How an attached command ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process ended.
    Exit(i32),
    /// There is no more of the stream.
    End,
    /// The user typed the detach keys.
    Detached,
}

/// The user's side.
#[derive(Debug)]
pub struct User {
    /// Read if input is forwarded.
    pub stdin: Option<File>,
    /// Gets stdout, and all output of a terminal.
    pub stdout: File,
    /// Gets stderr.
    pub stderr: File,
}

impl User {
    /// The process's own descriptors.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn own(stdin: bool) -> Result<User, Error> {
        fn own(fd: BorrowedFd<'_>) -> Result<File, Error> {
            let owned = fd.try_clone_to_owned();
            owned.map(File::from).map_err(|source| Error::Io {
                operation: "duplicate a descriptor",
                source,
            })
        }
        Ok(User {
            stdin: if stdin {
                Some(own(io::stdin().as_fd())?)
            } else {
                None
            },
            stdout: own(io::stdout().as_fd())?,
            stderr: own(io::stderr().as_fd())?,
        })
    }
}

/// What a session is made of.
#[derive(Debug)]
pub struct Options {
    /// Where the daemon is, for reconnecting and passing signals on.
    pub address: Address,
    /// Blocked signals.
    pub signals: Rc<Signals>,
    /// What the connection leads to.
    pub target: Target,
    /// The user's side.
    pub user: User,
    /// The far side is a terminal whose size follows ours.
    pub tty: bool,
    /// Keys that detach; none if input is no terminal.
    pub detach_keys: Option<DetachKeys>,
    /// Container that gets the signals that come.
    pub proxy: Option<String>,
    /// End as soon as nobody reads stdout.
    pub end_with_reader: bool,
}

/// Output on its way to the user.
#[derive(Debug)]
struct Pending {
    kind: Kind,
    bytes: Vec<u8>,
    written: usize,
}

/// One attached command, over any number of connections.
#[derive(Debug)]
pub struct Session {
    options: Options,
    outbox: Outbox,
    pending: Option<Pending>,
    ending_signals: Cell<u32>,
}

/// The connection in use.
#[derive(Debug)]
struct Link {
    stream: UnixStream,
    decoder: Decoder,
    /// Nothing can be sent any more; what was received may still hold the end of the stream.
    mute: bool,
    /// Nothing more can be received.
    broken: bool,
}

impl Link {
    fn new(upgraded: Upgraded) -> Result<Link, Error> {
        let failed = |source| Error::Io {
            operation: "set up the connection",
            source,
        };
        upgraded.stream.set_nonblocking(true).map_err(failed)?;
        let mut decoder = Decoder::default();
        decoder.extend(&upgraded.early);
        Ok(Link {
            stream: upgraded.stream,
            decoder,
            mute: false,
            broken: false,
        })
    }
}

/// A descriptor that poll watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    Signals,
    SocketIn,
    SocketOut,
    Input,
    Output,
    Reader,
}

impl Session {
    /// Makes a session.
    pub fn new(options: Options) -> Session {
        Session {
            options,
            outbox: Outbox::default(),
            pending: None,
            ending_signals: Cell::new(0),
        }
    }

    /// Pumps until the far side ends, the user detaches, or nothing can be done.
    ///
    /// # Errors
    /// An error that the daemon sent, a connection that did not come back, a failed write to the
    /// user, or a signal.
    pub fn run(mut self, upgraded: Upgraded) -> Result<Ending, Error> {
        let mut link = Link::new(upgraded)?;
        // The terminal may have changed since its size was given, while the reply was awaited.
        self.send_size();
        loop {
            if let Some(ending) = self.pump(&mut link)? {
                return Ok(ending);
            }
            match self.resume()? {
                Resumed::Stream(upgraded) => link = Link::new(upgraded)?,
                Resumed::Ended(code) => return Ok(Ending::Exit(code)),
            }
        }
    }

    /// Pumps over one connection. None means that it broke.
    fn pump(&mut self, link: &mut Link) -> Result<Option<Ending>, Error> {
        loop {
            while self.pending.is_none() {
                let frame = link.decoder.next_frame();
                let garbled = |source| Error::Garbled {
                    method: "the attached stream",
                    source,
                };
                let Some((kind, content)) = frame.map_err(|error| garbled(error.into()))? else {
                    break;
                };
                if let Some(ending) = self.accept(kind, content)? {
                    return Ok(Some(ending));
                }
            }
            if link.broken && self.pending.is_none() {
                return Ok(None);
            }
            for watch in self.wait(link)? {
                match watch {
                    Watch::Signals => self.take_signals()?,
                    Watch::SocketIn => receive(link),
                    Watch::SocketOut => link.mute |= self.outbox.write_to(&link.stream).is_err(),
                    Watch::Input => {
                        if self.read_input()? {
                            return Ok(Some(Ending::Detached));
                        }
                    }
                    Watch::Output => self.write_output()?,
                    Watch::Reader => return Err(Error::OutputClosed),
                }
            }
        }
    }

    /// Polls, and returns what is ready.
    fn wait(&self, link: &Link) -> Result<Vec<Watch>, Error> {
        let mut watched = vec![(
            Watch::Signals,
            self.options.signals.as_fd(),
            PollFlags::POLLIN,
        )];
        if !link.broken {
            if self.pending.is_none() {
                watched.push((Watch::SocketIn, link.stream.as_fd(), PollFlags::POLLIN));
            }
            if !self.outbox.is_empty() && !link.mute {
                watched.push((Watch::SocketOut, link.stream.as_fd(), PollFlags::POLLOUT));
            }
            if let Some(stdin) = self
                .options
                .user
                .stdin
                .as_ref()
                .filter(|_| self.outbox.has_room())
            {
                watched.push((Watch::Input, stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        match &self.pending {
            Some(pending) => watched.push((
                Watch::Output,
                self.output(pending.kind).as_fd(),
                PollFlags::POLLOUT,
            )),
            // Poll reports a pipe that nobody reads any more without being asked.
            None if self.options.end_with_reader => {
                watched.push((
                    Watch::Reader,
                    self.options.user.stdout.as_fd(),
                    PollFlags::empty(),
                ));
            }
            None => {}
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => {
                return Err(Error::Io {
                    operation: "wait for input and output",
                    source: errno.into(),
                });
            }
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(watched
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| ready(fd))
            .map(|((watch, ..), _)| *watch)
            .collect())
    }

    fn output(&self, kind: Kind) -> &File {
        if kind == Kind::Stderr {
            &self.options.user.stderr
        } else {
            &self.options.user.stdout
        }
    }

    /// Acts on a frame from the daemon.
    fn accept(&mut self, kind: Kind, content: &[u8]) -> Result<Option<Ending>, Error> {
        match kind {
            Kind::Stdout | Kind::Stderr => {
                if !content.is_empty() {
                    self.options.target.advance(kind, content.len());
                    self.pending = Some(Pending {
                        kind,
                        bytes: content.to_vec(),
                        written: 0,
                    });
                }
                Ok(None)
            }
            Kind::Exit => Ok(Some(Ending::Exit(
                frame::decode_exit(content).unwrap_or(i32::from(crate::error::EXIT_ENGINE)),
            ))),
            Kind::End | Kind::Result => Ok(Some(Ending::End)),
            Kind::Error => Err(rcd_proto::Error::from_json(content).into()),
            Kind::Stdin | Kind::Resize => Ok(None),
        }
    }

    fn write_output(&mut self) -> Result<(), Error> {
        let Some(mut pending) = self.pending.take() else {
            return Ok(());
        };
        let mut file = self.output(pending.kind);
        let rest = pending.bytes.get(pending.written..).unwrap_or_default();
        let part = rest.get(..write_bytes_max(file)).unwrap_or(rest);
        match file.write(part) {
            Ok(count) => pending.written += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(source) => {
                let operation = if pending.kind == Kind::Stderr {
                    "write to stderr"
                } else {
                    "write to stdout"
                };
                return Err(text::output_error(operation, source));
            }
        }
        if pending.written < pending.bytes.len() {
            self.pending = Some(pending);
        }
        Ok(())
    }

    /// Forwards what was typed. True means that the user detached.
    fn read_input(&mut self) -> Result<bool, Error> {
        let Some(mut stdin) = self.options.user.stdin.as_ref() else {
            return Ok(false);
        };
        let mut chunk = [0; READ_BYTES];
        let count = match stdin.read(&mut chunk) {
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
            {
                return Ok(false);
            }
            // A terminal that hung up reads as EIO; that ends the input as an end of file does.
            Err(_) => 0,
        };
        let typed = chunk.get(..count).unwrap_or_default();
        let mut forwarded = Vec::new();
        let mut detached = false;
        match &mut self.options.detach_keys {
            Some(keys) if count == 0 => keys.flush(&mut forwarded),
            Some(keys) => detached = keys.filter(typed, &mut forwarded),
            None => forwarded.extend_from_slice(typed),
        }
        if !forwarded.is_empty() {
            self.outbox.push(Kind::Stdin, &forwarded);
        }
        if count == 0 {
            self.outbox.push(Kind::Stdin, b"");
            self.options.user.stdin = None;
        }
        Ok(detached)
    }

    fn take_signals(&mut self) -> Result<(), Error> {
        while let Some(signal) = self.options.signals.next() {
            match (signal, &self.options.proxy) {
                (Signal::SIGWINCH, _) => self.send_size(),
                (signal, Some(container)) if !self.is_enough(signal) => {
                    proxy(&self.options.address, container, signal)?;
                }
                (signal, _) => {
                    return Err(Error::Interrupted {
                        signal: signal as i32,
                    });
                }
            }
        }
        Ok(())
    }

    /// Counts signals that ask for an end. Tells whether the user has asked often enough.
    fn is_enough(&self, signal: Signal) -> bool {
        if !matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
            return false;
        }
        self.ending_signals.set(self.ending_signals.get() + 1);
        self.ending_signals.get() >= ENDING_SIGNALS_MAX
    }

    fn size(&self) -> Option<terminal::Size> {
        self.options
            .tty
            .then(|| terminal::size(&self.options.user.stdout))
            .flatten()
    }

    fn send_size(&mut self) {
        if let Some(size) = self.size() {
            self.outbox
                .push(Kind::Resize, &frame::encode_size(size.rows, size.columns));
        }
    }

    /// Takes the stream up again on a new connection.
    fn resume(&mut self) -> Result<Resumed, Error> {
        let mut backoff = Backoff::default();
        loop {
            let Options {
                address,
                signals,
                target,
                ..
            } = &self.options;
            let what = match target {
                Target::Container { id, .. } => {
                    format!("container {} may still run", text::short_id(id))
                }
                Target::Exec { .. } => "the process may still run".to_owned(),
            };
            let connection = backoff.reconnect(address, Some(signals), &what)?;
            match target.reopen(connection, &backoff, self.size()) {
                Err(error) if error.is_lost() => {}
                Err(Error::Api(error)) if matches!(*error, rcd_proto::Error::NotRunning { .. }) => {
                    let mut connection = address.connect_with(signals)?;
                    let code = target.exit_code(&mut connection)?;
                    return Ok(Resumed::Ended(
                        code.unwrap_or(i32::from(crate::error::EXIT_ENGINE)),
                    ));
                }
                result => {
                    self.outbox.restart();
                    self.send_size();
                    return result;
                }
            }
        }
    }
}

/// Reads what the connection has.
fn receive(link: &mut Link) {
    let mut chunk = [0; READ_BYTES];
    match link.stream.read(&mut chunk) {
        Ok(0) => link.broken = true,
        Ok(count) => link.decoder.extend(chunk.get(..count).unwrap_or_default()),
        Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
        Err(_) => link.broken = true,
    }
}

/// Bytes to write to a file at once without waiting for its reader.
fn write_bytes_max(file: &File) -> usize {
    let waits = file.metadata().map_or(true, |metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_socket()
    });
    if waits { WRITE_BYTES_MAX } else { usize::MAX }
}

/// Passes a signal on to a container. That it ended meanwhile is no error.
fn proxy(address: &Address, container: &str, signal: Signal) -> Result<(), Error> {
    let parameters = KillParams {
        id: container.to_owned(),
        signal: Some(signal.as_str().to_owned()),
    };
    let limit = Some(Duration::from_secs(KILL_S_MAX));
    let result = address.connect().and_then(|mut connection| {
        connection.call_within::<_, Empty>(methods::KILL, &parameters, limit)
    });
    match result {
        Ok(Empty {}) => Ok(()),
        Err(Error::Api(error)) => {
            use rcd_proto::Error::{NoSuchContainer, NotRunning};
            if !matches!(*error, NotRunning { .. } | NoSuchContainer { .. }) {
                text::warn(&crate::error::report(&Error::Api(error)));
            }
            Ok(())
        }
        // Nobody can pass it on: the user wants out, so the command ends itself.
        Err(error) => {
            text::warn(&crate::error::report(&error));
            Err(Error::Interrupted {
                signal: signal as i32,
            })
        }
    }
}
