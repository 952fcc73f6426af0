//! Finding the daemon, and calling it over one blocking socket.
//!
//! Calls are varlink: JSON messages that end with a NUL. A connection carries one call at a time;
//! a stream (pull) or an upgraded connection (attach, logs, import) has one of its own. Every wait
//! is a poll, with a bound where the daemon ought to answer at once, and watches [`Signals`] if the
//! command set them, so that Ctrl-C works in the middle of any call.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rcd_proto::wire::{self, Messages, Mode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::resume::Backoff;
use crate::signals::Signals;

/// How long a short call may take. It covers a cold start of the service on a machine that is
/// busy; a daemon that is silent for longer hangs.
const ANSWER_S_MAX: u64 = 120;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    path: PathBuf,
}

/// A connection after an upgrade: raw bytes, some of which may have come with the reply.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket.
    pub stream: UnixStream,
    /// Bytes that came after the reply.
    pub early: Vec<u8>,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    messages: Messages,
    signals: Option<Rc<Signals>>,
}

impl Address {
    /// The socket given by `--host`, or by `RCD_HOST`, or the user's own.
    ///
    /// # Errors
    /// A host that is not `unix:///path`.
    pub fn find(host: Option<&str>) -> Result<Address, Error> {
        let from_env = std::env::var("RCD_HOST")
            .ok()
            .filter(|host| !host.is_empty());
        match host.or(from_env.as_deref()) {
            Some(host) => Address::parse(host),
            None => Ok(Address {
                path: runtime_dir().join("rcd/varlink.sock"),
            }),
        }
    }

    fn parse(host: &str) -> Result<Address, Error> {
        if let Some(path) = host
            .strip_prefix("unix://")
            .filter(|path| path.starts_with('/'))
        {
            return Ok(Address { path: path.into() });
        }
        if host.starts_with('/') {
            return Ok(Address { path: host.into() });
        }
        let scheme = host.split_once("://").map_or(host, |(scheme, _)| scheme);
        if matches!(scheme, "ssh" | "tcp" | "npipe" | "fd") {
            return Err(Error::NotSupported {
                what: format!("the host {host:?}"),
            });
        }
        Err(Error::Usage(format!(
            "the host {host:?} is not of the form unix:///path"
        )))
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Connect`], whose hints say what to do.
    pub fn connect(&self) -> Result<Connection, Error> {
        let stream = UnixStream::connect(&self.path).map_err(|source| Error::Connect {
            path: self.path.clone(),
            source,
        })?;
        Ok(Connection {
            stream,
            messages: Messages::default(),
            signals: None,
        })
    }

    /// Connects, and lets signals interrupt every wait.
    ///
    /// # Errors
    /// As [`Address::connect`].
    pub fn connect_with(&self, signals: &Rc<Signals>) -> Result<Connection, Error> {
        let mut connection = self.connect()?;
        connection.signals = Some(Rc::clone(signals));
        Ok(connection)
    }

    /// One call on a connection of its own that may safely be made twice: if the daemon restarts
    /// meanwhile, it is made again.
    ///
    /// # Errors
    /// Those of [`Connection::call`].
    pub fn ask<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &P,
    ) -> Result<R, Error> {
        self.ask_within(method, parameters, Some(Duration::from_secs(ANSWER_S_MAX)))
    }

    /// As [`Address::ask`], for methods that take as long as it takes.
    ///
    /// # Errors
    /// Those of [`Connection::call`].
    pub fn ask_patiently<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &P,
    ) -> Result<R, Error> {
        self.ask_within(method, parameters, None)
    }

    /// As [`Address::ask_patiently`]; says also whether the call was made again, so that its first
    /// one may have done the work.
    pub fn ask_again<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &P,
    ) -> (Result<R, Error>, bool) {
        let first = self
            .connect()
            .and_then(|mut connection| connection.call_patiently(method, parameters));
        match first {
            Err(error) if error.is_lost() => {
                let what = format!("{method} was not answered");
                let back = Backoff::default().reconnect(self, None, &what);
                // It answers again: from here on a restart is as any other.
                let result = back.and_then(|_| self.ask_patiently(method, parameters));
                (result, true)
            }
            result => (result, false),
        }
    }

    /// Calls a method that takes the connection over and changes nothing: if the daemon restarts
    /// before it answers, it is called again.
    ///
    /// # Errors
    /// Those of [`Connection::upgrade`]; a daemon that does not come back.
    pub fn upgrade<P: Serialize, R: DeserializeOwned>(
        &self,
        signals: &Rc<Signals>,
        method: &'static str,
        parameters: &P,
    ) -> Result<(R, Upgraded), Error> {
        let mut connection = self.connect_with(signals)?;
        let mut backoff = Backoff::default();
        loop {
            match connection.upgrade(method, parameters, None) {
                Err(error) if error.is_lost() => {
                    let what = format!("{method} was not answered");
                    connection = backoff.reconnect(self, Some(signals), &what)?;
                }
                result => return result,
            }
        }
    }

    fn ask_within<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &P,
        limit: Option<Duration>,
    ) -> Result<R, Error> {
        let mut connection = self.connect()?;
        let mut backoff = Backoff::default();
        loop {
            match connection.call_within(method, parameters, limit) {
                Err(error) if error.is_lost() => {
                    connection =
                        backoff.reconnect(self, None, &format!("{method} was not answered"))?;
                }
                // A wait that was answered late may be followed by another restart.
                result => return result,
            }
        }
    }
}

fn runtime_dir() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(
            || PathBuf::from(format!("/run/user/{}", nix::unistd::getuid())),
            PathBuf::from,
        )
}

impl Connection {
    /// One call that the daemon answers soon.
    ///
    /// # Errors
    /// The daemon's error, a broken connection, no answer in time, or an interrupting signal.
    pub fn call<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: &P,
    ) -> Result<R, Error> {
        self.call_within(method, parameters, Some(Duration::from_secs(ANSWER_S_MAX)))
    }

    /// One call that takes as long as it takes.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn call_patiently<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: &P,
    ) -> Result<R, Error> {
        self.call_within(method, parameters, None)
    }

    /// One call with a limit to the wait for its answer.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn call_within<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        parameters: &P,
        limit: Option<Duration>,
    ) -> Result<R, Error> {
        self.send(method, parameters, Mode::Once)?;
        Ok(self.receive(method, limit)?.0)
    }

    /// Begins a call with many replies; [`Connection::receive`] takes them.
    ///
    /// # Errors
    /// A broken connection.
    pub fn begin_stream<P: Serialize>(
        &mut self,
        method: &'static str,
        parameters: &P,
    ) -> Result<(), Error> {
        self.send(method, parameters, Mode::More)
    }

    /// Calls a method that takes the connection over.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn upgrade<P: Serialize, R: DeserializeOwned>(
        mut self,
        method: &'static str,
        parameters: &P,
        limit: Option<Duration>,
    ) -> Result<(R, Upgraded), Error> {
        self.send(method, parameters, Mode::Upgrade)?;
        let (reply, _) = self.receive(method, limit)?;
        Ok((
            reply,
            Upgraded {
                stream: self.stream,
                early: self.messages.into_rest(),
            },
        ))
    }

    /// From now on no signal interrupts a wait: for what must be finished.
    pub fn ignore_signals(&mut self) {
        self.signals = None;
    }

    fn send<P: Serialize>(
        &mut self,
        method: &'static str,
        parameters: &P,
        mode: Mode,
    ) -> Result<(), Error> {
        let mut message = Vec::new();
        wire::encode_call(method, parameters, mode, &mut message).map_err(|source| {
            Error::Garbled {
                method,
                source: source.into(),
            }
        })?;
        self.stream
            .write_all(&message)
            .map_err(|source| Error::Talk { method, source })
    }

    /// Takes the next reply, and whether more will come.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn receive<R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        limit: Option<Duration>,
    ) -> Result<(R, bool), Error> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        while !self.messages.has_message() {
            self.wait_readable(method, deadline)?;
            let mut chunk = [0; READ_BYTES];
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Lost { method }),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Talk { method, source }),
            };
            self.messages.extend(chunk.get(..count).unwrap_or_default());
        }
        let message = self
            .messages
            .next_message()
            .map_err(|source| Error::Garbled {
                method,
                source: source.into(),
            })?;
        let reply =
            wire::Reply::parse(message.unwrap_or_default()).map_err(|source| Error::Garbled {
                method,
                source: source.into(),
            })?;
        let continues = reply.continues;
        Ok((reply.into_result()?, continues))
    }

    /// Waits until there is something to read. Without signals and bound, the read itself waits.
    fn wait_readable(&self, method: &'static str, deadline: Option<Instant>) -> Result<(), Error> {
        if deadline.is_none() && self.signals.is_none() {
            return Ok(());
        }
        let mut fds = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.signals
                .as_ref()
                .map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)),
        );
        loop {
            let silent = || Error::Talk {
                method,
                source: ErrorKind::TimedOut.into(),
            };
            let timeout =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    Some(Duration::ZERO) => return Err(silent()),
                    Some(left) => poll_timeout(left),
                    None => PollTimeout::NONE,
                };
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => {
                    return Err(Error::Talk {
                        method,
                        source: errno.into(),
                    });
                }
            }
            if let Some(signal) = self
                .signals
                .as_ref()
                .and_then(|signals| signals.next_ending())
            {
                return Err(Error::Interrupted {
                    signal: signal as i32,
                });
            }
            if fds.first().and_then(PollFd::any).unwrap_or(false) {
                return Ok(());
            }
        }
    }
}

/// A poll timeout of at least this length.
pub fn poll_timeout(length: Duration) -> PollTimeout {
    let ms = i32::try_from(length.as_millis())
        .unwrap_or(i32::MAX)
        .saturating_add(1);
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_unix_sockets() {
        let path = |host: &str| {
            Address::parse(host)
                .map(|address| address.path)
                .map_err(|error| error.to_string())
        };
        assert_eq!(path("unix:///run/x.sock"), Ok("/run/x.sock".into()));
        assert_eq!(path("/run/x.sock"), Ok("/run/x.sock".into()));
        assert!(path("ssh://me@there").is_err_and(|text| text.contains("not supported yet")));
        assert!(path("unix://relative").is_err_and(|text| text.contains("not of the form")));
        assert!(path("nonsense").is_err());
    }
}
