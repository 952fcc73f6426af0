//! Packets with descriptors over `AF_UNIX` `SOCK_SEQPACKET` sockets: `unix(7)`, `cmsg(3)`.
//!
//! Every received descriptor is close-on-exec from the first instant and owned before anything is
//! judged, so that none leaks when a packet turns out bad.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, socket, socketpair,
};

use crate::error::{Errno, Result, check};

/// The most descriptors that go with one packet here. The kernel's own limit is 253.
pub const FDS_MAX: usize = 16;

/// Bytes of control buffer for [`FDS_MAX`] descriptors and the sender's credentials.
const CONTROL_BYTES: usize = {
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    unsafe {
        libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) as usize
            + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) as usize
    }
};

/// A control buffer with the alignment of `struct cmsghdr`.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; CONTROL_BYTES],
}

/// One received packet; its bytes are in the caller's buffer.
#[derive(Debug)]
pub struct Received {
    /// Bytes received. 0 is the end of the connection (or an empty packet: nobody sends one).
    pub len: usize,
    /// The packet, or the descriptors with it, exceeded the room; the rest was thrown away.
    pub truncated: bool,
    /// Descriptors, in order.
    pub fds: Vec<OwnedFd>,
    /// Pid of the sender in the receiver's pid namespace, if [`show_sender`] asked for it.
    pub sender: Option<i32>,
}

/// Has every packet received on `socket` say who sent it (`SO_PASSCRED`).
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn show_sender(socket: BorrowedFd<'_>) -> Result<()> {
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)
}

/// Makes a pair of connected sockets, both close-on-exec.
///
/// # Errors
///
/// `EMFILE`, `ENFILE` or `ENOMEM`.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// Makes a listening socket at `path` that only its owner may connect to. Non-blocking.
///
/// # Errors
///
/// `EADDRINUSE` if the path exists, `ENAMETOOLONG` beyond 107 bytes, and what the file system says.
pub fn listen(path: &Path, backlog: i32) -> Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // The file's mode comes from the socket's own, so it is never wider, not even for an instant.
    nix::sys::stat::fchmod(&socket, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    bind(socket.as_raw_fd(), &address)?;
    nix::sys::socket::listen(&socket, Backlog::new(backlog)?)?;
    Ok(socket)
}

/// Connects to the socket at `path`.
///
/// # Errors
///
/// `ENOENT` if it is not there, `ECONNREFUSED` if nobody listens, `EPROTOTYPE` for another type of
/// socket, `EACCES`.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// Takes the next waiting connection.
///
/// # Errors
///
/// `EAGAIN` if there is none, `EMFILE`.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user at the other end, as this process's user namespace names it (`SO_PEERCRED`).
///
/// # Errors
///
/// `ENOTSOCK`.
pub fn peer_uid(socket: BorrowedFd<'_>) -> Result<u32> {
    nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)
        .map(|credentials| credentials.uid())
}

/// Sends one packet and never waits.
///
/// # Errors
///
/// `EAGAIN` if the other side reads too slowly, `EPIPE` or `ECONNRESET` if it is gone (no SIGPIPE),
/// `EMSGSIZE` for a packet beyond the send buffer, `EINVAL` for more than [`FDS_MAX`] descriptors,
/// `ETOOMANYREFS` if more descriptors of this user are under way than `RLIMIT_NOFILE`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if fds.len() > FDS_MAX {
        return Err(crate::Errno::EINVAL);
    }
    let mut control = Control {
        bytes: [0; CONTROL_BYTES],
    };
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data; all zeroes is a valid value of it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let len = size_of_val(fds) as u32;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: arithmetic only.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as usize;
        // SAFETY: msg_control points to CONTROL_BYTES >= msg_controllen bytes aligned as cmsghdr,
        // so the first header exists and has room for `fds` behind it (checked against FDS_MAX).
        // BorrowedFd is a transparent c_int, so its bytes are the array that SCM_RIGHTS wants.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
            let data = libc::CMSG_DATA(header);
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, len as usize);
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: message, iovec, bytes and control buffer are valid and outlive the call, which only
    // reads them.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) } as i64).map(drop)
}

/// Receives one packet into `buffer`; waits for it only if `wait`, then through signals, too.
///
/// # Errors
///
/// `EAGAIN` if there is none and `wait` is false (or the socket's own timeout is over),
/// `ECONNRESET`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: bool) -> Result<Received> {
    let mut control = Control {
        bytes: [0; CONTROL_BYTES],
    };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: msghdr is plain data; all zeroes is a valid value of it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_BYTES;
    let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
    let len = loop {
        // SAFETY: iovec and control buffer are valid for writes of the lengths given, and nothing
        // else refers to them during the call. An interrupted call has changed none of them.
        match check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) } as i64) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    let (fds, sender) = take_control(&message);
    let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Received {
        len: len as usize,
        truncated,
        fds,
        sender,
    })
}

/// Takes ownership of every descriptor in a received message's control buffer, and reads the
/// sender's pid where it is there.
fn take_control(message: &libc::msghdr) -> (Vec<OwnedFd>, Option<i32>) {
    let (mut fds, mut sender) = (Vec::new(), None);
    // SAFETY: the kernel filled the control buffer and set msg_controllen to what it wrote, so the
    // CMSG macros walk whole headers within it. Each SCM_RIGHTS payload is an array of c_int of
    // cmsg_len - CMSG_LEN(0) bytes (read unaligned), each a new descriptor that nothing else owns.
    // An SCM_CREDENTIALS payload is one ucred, plain data (its length is checked).
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let credentials = libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as usize;
            if (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_CREDENTIALS
                && (*header).cmsg_len as usize >= credentials
            {
                let data = libc::CMSG_DATA(header).cast::<libc::ucred>();
                sender = Some(data.read_unaligned().pid);
            }
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes =
                    ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (fds, sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_packet_arrives_whole_with_its_descriptors_in_order() {
        let (left, right) = pair().unwrap();
        let (mut reader_a, writer_a) = std::io::pipe().unwrap();
        let (mut reader_b, writer_b) = std::io::pipe().unwrap();
        send(
            left.as_fd(),
            b"hello",
            &[writer_a.as_fd(), writer_b.as_fd()],
        )
        .unwrap();
        drop((writer_a, writer_b));
        let mut buffer = [0; 16];
        let received = receive(right.as_fd(), &mut buffer, true).unwrap();
        assert_eq!(
            (&buffer[..received.len], received.truncated),
            (&b"hello"[..], false)
        );
        for (fd, text) in received.fds.into_iter().zip(["a", "b"]) {
            std::io::Write::write_all(&mut std::fs::File::from(fd), text.as_bytes()).unwrap();
        }
        let mut text = String::new();
        reader_a.read_to_string(&mut text).unwrap();
        reader_b.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ab");
    }

    #[test]
    fn a_packet_tells_its_sender_where_asked() {
        let (left, right) = pair().unwrap();
        show_sender(right.as_fd()).unwrap();
        send(left.as_fd(), b"x", &[left.as_fd(); FDS_MAX]).unwrap();
        let received = receive(right.as_fd(), &mut [0; 1], true).unwrap();
        assert_eq!(received.sender, Some(std::process::id() as i32));
        assert_eq!((received.fds.len(), received.truncated), (FDS_MAX, false));
    }

    #[test]
    fn a_packet_that_is_too_large_is_marked() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), &[1; 100], &[]).unwrap();
        let received = receive(right.as_fd(), &mut [0; 10], true).unwrap();
        assert!(received.truncated);
    }

    #[test]
    fn a_closed_peer_is_an_error_to_send_and_an_end_to_receive() {
        let (left, right) = pair().unwrap();
        drop(right);
        assert_eq!(send(left.as_fd(), b"x", &[]), Err(crate::Errno::EPIPE));
        assert_eq!(receive(left.as_fd(), &mut [0; 1], true).unwrap().len, 0);
    }
}
