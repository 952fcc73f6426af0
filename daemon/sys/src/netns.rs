//! Network namespaces of one thread.
//!
//! A network namespace belongs to a thread, not to a process, and an ordinary user cannot go back
//! to the host's once it left. So whoever calls [`unshare_net`] gives a whole thread to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};

/// The name of the loopback interface, as `ifr_name`.
const LOOPBACK: &[u8] = b"lo";

/// Moves the calling thread, alone, into a new network namespace (`unshare(2)`, CLONE_NEWNET). The
/// namespace is owned by the caller's user namespace.
pub fn unshare_net() -> io::Result<()> {
    Ok(nix::sched::unshare(CloneFlags::CLONE_NEWNET)?)
}

/// The calling thread's network namespace.
pub fn current_net() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Brings the loopback interface of the calling thread's network namespace up
/// (`netdevice(7)`, SIOCSIFFLAGS). The kernel then gives it 127.0.0.1/8 and ::1 by itself.
pub fn loopback_up() -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain old data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *slot = libc::c_char::from_ne_bytes([*byte]);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "IFF_UP and IFF_RUNNING are 0x41"
    )]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is, alive for the call; its name is
    // terminated because the array is longer than the name and was zeroed.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_has_a_working_loopback() {
        // A thread of its own: the test harness reuses its threads.
        let made = std::thread::spawn(|| -> io::Result<()> {
            unshare_net()?;
            loopback_up()?;
            current_net()?;
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            std::net::TcpStream::connect(listener.local_addr()?)?;
            Ok(())
        });
        match made.join().unwrap() {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: this user may not make a network namespace here");
            }
            result => result.unwrap(),
        }
    }
}
