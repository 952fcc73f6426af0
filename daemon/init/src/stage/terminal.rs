//! The container's pseudo-terminal.
//!
//! It belongs to the container's own devpts, so that `tty` inside names `/dev/pts/N`. Master and
//! slave are both opened by descriptor and checked to be on a devpts, and `/dev/console` is bound
//! from the slave's descriptor, not from its name (CVE-2025-52565).

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};
use rcd_sys::mount::{attach, clone_tree};
use rcd_sys::pty;

use super::TERMINAL_PACKET;
use super::beneath::Root;
use super::devices;
use super::failure::{At, Result, refuse};
use crate::plan::TerminalSize;
use crate::protocol::Step;

/// The container's multiplexer.
const PTMX: &str = "/dev/pts/ptmx";

/// Makes a terminal, sends its master over `status` and returns the slave.
pub(super) fn open(root: &Root, size: TerminalSize, status: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let master = root
        .open_without_links(PTMX, flags)
        .at(Step::Terminal, PTMX)?;
    require_devpts(&master)?;
    let slave = pty::open_slave(master.as_fd()).at(Step::Terminal, PTMX)?;
    require_devpts(&slave)?;
    if size.rows != 0 && size.columns != 0 {
        pty::set_size(slave.as_fd(), size.rows, size.columns).at(Step::Terminal, "its size")?;
    }
    let fds = [master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let packet = [IoSlice::new(TERMINAL_PACKET)];
    sendmsg::<()>(
        status.as_raw_fd(),
        &packet,
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .at(Step::Terminal, "its master")?;
    Ok(slave)
}

/// Binds the terminal to `/dev/console`.
pub(super) fn bind_console(root: &Root, slave: &OwnedFd) -> Result<()> {
    let path = "/dev/console";
    let target = devices::open_target(root, None, path)?;
    clone_tree(slave.as_fd(), "", false)
        .and_then(|node| attach(node.as_fd(), target.as_fd()))
        .at(Step::Terminal, path)
}

fn require_devpts(terminal: &OwnedFd) -> Result<()> {
    let place = fstatfs(terminal)
        .at(Step::Terminal, PTMX)?
        .filesystem_type();
    if place == DEVPTS_SUPER_MAGIC {
        return Ok(());
    }
    Err(refuse(
        Step::Terminal,
        PTMX,
        "it is not on the container's devpts",
    ))
}
