//! Frames on their way to the daemon.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use rcd_proto::frame::{self, Kind};

/// Input is read only while less than this waits, so that a daemon that is slow slows the reading.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// Frames that wait, whole, so that one that was cut by a broken connection is sent again in full:
/// its receiver cannot have acted on a part of it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that were written.
    written: usize,
    waiting: usize,
}

impl Outbox {
    /// Adds content, cut into frames.
    pub(super) fn push(&mut self, kind: Kind, content: &[u8]) {
        let mut frame = Vec::with_capacity(frame::HEADER_BYTES + content.len());
        frame::encode(kind, content, &mut frame);
        self.waiting += frame.len();
        self.frames.push_back(frame);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether more input may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < WAITING_BYTES_MAX
    }

    /// Writes what the nonblocking socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn write_to(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        while let Some(first) = self.frames.front() {
            match stream.write(first.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.written >= first.len() {
                self.waiting -= first.len();
                self.written = 0;
                self.frames.pop_front();
            }
        }
        Ok(())
    }

    /// The connection is a new one: the first frame starts over.
    pub(super) fn restart(&mut self) {
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_frame_that_was_cut_is_sent_again_whole() {
        let mut outbox = Outbox::default();
        outbox.push(Kind::Stdin, &[7; frame::CONTENT_BYTES_MAX]);
        assert!(!outbox.has_room());
        outbox.written = 1000;
        outbox.restart();
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).unwrap();
            bytes
        });
        while !outbox.is_empty() {
            outbox.write_to(&near).unwrap();
        }
        drop(near);
        assert_eq!(
            reader.join().unwrap().len(),
            frame::HEADER_BYTES + frame::CONTENT_BYTES_MAX
        );
        assert!(outbox.has_room());
    }
}
