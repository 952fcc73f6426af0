//! Bytes from pipe to pipe or file without a copy through user space.
//!
//! `splice(2)` moves pages, `tee(2)` duplicates references to them. With an explicit file offset a
//! pipe can be drained into a log so that a successor, which knows only the log's length, goes on
//! at the right byte. All calls pass SPLICE_F_NONBLOCK: an empty source or a full target is
//! [`std::io::ErrorKind::WouldBlock`], whatever the descriptors' own flags say of the pipe side.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

const FLAGS: libc::c_uint = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;

/// Moves at most `len` bytes from a pipe to `file` at `offset`, leaving the file's own position
/// alone. Returns how many; 0 is the end of the pipe (all writers closed).
pub fn pipe_to_file(
    pipe: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    len: usize,
) -> io::Result<usize> {
    let mut offset =
        libc::loff_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: both descriptors are borrowed for the call; a null `off_in` is what a pipe requires;
    // `off_out` points to a live loff_t that the kernel may update.
    let moved = unsafe {
        libc::splice(
            pipe.as_raw_fd(),
            ptr::null_mut(),
            file.as_raw_fd(),
            &raw mut offset,
            len,
            FLAGS,
        )
    };
    count(moved)
}

/// Moves at most `len` bytes between two descriptors of which at least one is a pipe, at their own
/// positions (a terminal or socket has none). Returns how many; 0 is the end of the source.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are borrowed for the call; null offsets mean their own positions.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            ptr::null_mut(),
            to.as_raw_fd(),
            ptr::null_mut(),
            len,
            FLAGS,
        )
    };
    count(moved)
}

/// Duplicates at most `len` bytes of one pipe into another without consuming them.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are borrowed for the call and no pointer is passed.
    count(unsafe {
        libc::tee(
            from.as_raw_fd(),
            to.as_raw_fd(),
            len,
            libc::SPLICE_F_NONBLOCK,
        )
    })
}

fn count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_drains_into_a_file_at_an_offset() {
        let (read, mut write) = io::pipe().unwrap();
        let path = std::env::temp_dir().join(format!("rcd-splice-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        write.write_all(b"abc").unwrap();
        assert_eq!(
            pipe_to_file(read.as_fd(), file.as_fd(), 10, 100).unwrap(),
            3
        );
        let empty = pipe_to_file(read.as_fd(), file.as_fd(), 13, 100).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        drop(write);
        assert_eq!(
            pipe_to_file(read.as_fd(), file.as_fd(), 13, 100).unwrap(),
            0
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789abc");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn tee_leaves_its_source_in_place() {
        let (mut from, mut feed) = io::pipe().unwrap();
        let (mut to, into) = io::pipe().unwrap();
        feed.write_all(b"abc").unwrap();
        assert_eq!(tee(from.as_fd(), into.as_fd(), 100).unwrap(), 3);
        let mut bytes = [0; 3];
        to.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abc");
        from.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abc");
    }

    #[test]
    fn splice_moves_between_pipes() {
        let (from, mut feed) = io::pipe().unwrap();
        let (mut to, into) = io::pipe().unwrap();
        feed.write_all(b"abcdef").unwrap();
        assert_eq!(splice(from.as_fd(), into.as_fd(), 4).unwrap(), 4);
        let mut bytes = [0; 4];
        to.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abcd");
    }
}
