//! One packet each way: the protocol's messages with their descriptors beside them.
//!
//! A packet whose descriptors do not match its roles is refused here, so nobody else counts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rcd_init::protocol::{self, FdRole, PACKET_BYTES_MAX, PACKET_FDS_MAX, Reply, Request};
use rcd_sys::scm;

use crate::Error;

/// A request as it goes out.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A reply with its descriptors, each under its role.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) reply: Reply,
    pub(crate) fds: Vec<(FdRole, OwnedFd)>,
}

impl Packet {
    /// # Errors
    /// [`Error::Wire`] if it exceeds what the protocol allows.
    pub(crate) fn new(request: &Request, fds: Vec<OwnedFd>) -> Result<Self, Error> {
        let bytes = protocol::encode(request).map_err(wire("encode a request"))?;
        let fds = protocol::assign(request.roles(), fds).map_err(wire("send a request"))?;
        if fds.len() > PACKET_FDS_MAX {
            return Err(Error::protocol(format!(
                "a request with {} descriptors",
                fds.len()
            )));
        }
        Ok(Self {
            bytes,
            fds: fds.into_iter().map(|(_, fd)| fd).collect(),
        })
    }

    /// Sends the whole packet or nothing, without waiting.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        Ok(scm::send(socket, &self.bytes, &fds)?)
    }
}

/// Receives one packet, waiting for it or not. `None` is the end of the connection.
///
/// # Errors
/// The outer error is the socket's, `WouldBlock` among them; the inner one a bad packet.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    wait: bool,
) -> io::Result<Option<Result<Received, Error>>> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let scm::Received {
        len,
        truncated,
        fds,
        ..
    } = scm::receive(socket, &mut buffer, wait)?;
    if truncated {
        return Ok(Some(Err(Error::protocol(
            "a packet beyond the protocol's bounds",
        ))));
    }
    if len == 0 {
        return Ok(None);
    }
    Ok(Some(decode(buffer.get(..len).unwrap_or_default(), fds)))
}

fn decode(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Received, Error> {
    let reply: Reply = protocol::decode(bytes).map_err(wire("decode a reply"))?;
    let fds = protocol::assign(reply.roles(), fds).map_err(wire("accept a reply"))?;
    Ok(Received { reply, fds })
}

fn wire(what: &'static str) -> impl FnOnce(rcd_init::Error) -> Error {
    move |source| Error::Wire {
        what,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn replies_are_checked_against_their_descriptors() {
        let spawned = Reply::Spawned {
            seq: 1,
            pid: 2,
            started_at_ns: 9,
            fds: vec![FdRole::Pidfd],
        };
        let bytes = postcard::to_stdvec(&spawned).unwrap();
        assert_eq!(decode(&bytes, vec![fd()]).unwrap().fds.len(), 1);
        assert!(decode(&bytes, Vec::new()).is_err());
        assert!(decode(&bytes, vec![fd(), fd()]).is_err());
        let end = postcard::to_stdvec(&Reply::ListEnd { seq: 1 }).unwrap();
        assert!(decode(&end, vec![fd()]).is_err());
    }

    #[test]
    fn bytes_that_are_no_reply_are_refused() {
        let mut long = postcard::to_stdvec(&Reply::Stopping).unwrap();
        long.push(0);
        for bytes in [&[][..], &[0xff], &[0xff; 40], &[1, 1], &long] {
            assert!(decode(bytes, Vec::new()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_oversized_request_is_refused() {
        let key = rcd_init::protocol::ProcessKey {
            container: "c".repeat(PACKET_BYTES_MAX),
            exec: None,
        };
        assert!(Packet::new(&Request::Acknowledge { key }, Vec::new()).is_err());
        let many = (0..=PACKET_FDS_MAX).map(|_| fd()).collect();
        assert!(Packet::new(&Request::List { seq: 1 }, many).is_err());
    }
}
