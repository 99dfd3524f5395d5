//! Frames with descriptors over a stream socket.
//!
//! A frame is a header of eight bytes (the body's length and the number of descriptors, each a
//! little-endian `u32`) and the body. The descriptors travel with the header, which is a `sendmsg`
//! of its own: the kernel never merges what came with descriptors with what came after, so a
//! `recvmsg` that brings descriptors ends within or right after the header that they belong to.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

/// The largest body. A start carries arguments and environment, which Linux itself bounds to a
/// quarter of the stack limit: 2 MiB by default, and 6 MiB at most.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;

/// The most descriptors that travel with one frame: a socket and three standard streams.
pub(crate) const FRAME_FDS_MAX: usize = 4;

const HEADER: usize = 8;
const READ_BYTES: usize = 64 << 10;

/// A message as it travels.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// Descriptors were sent, and the system could not deliver them all (no numbers left).
    pub(crate) fds_lost: bool,
}

/// What goes out, kept until the socket takes it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that were sent, its header's included.
    sent: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Frame) {
        debug_assert!(frame.body.len() <= FRAME_BYTES_MAX && frame.fds.len() <= FRAME_FDS_MAX);
        self.frames.push_back(frame);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sends what the socket takes without blocking; true if nothing is left.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while let Some(frame) = self.frames.front() {
            match send_some(socket, frame, self.sent) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
            if self.sent == HEADER + frame.body.len() {
                self.frames.pop_front();
                self.sent = 0;
            }
        }
        Ok(true)
    }
}

fn send_some(socket: BorrowedFd<'_>, frame: &Frame, sent: usize) -> rustix::io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if sent >= HEADER {
        return send(socket, &frame.body[sent - HEADER..], flags);
    }
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&(frame.body.len() as u32).to_le_bytes());
    header[4..].copy_from_slice(&(frame.fds.len() as u32).to_le_bytes());
    if sent > 0 || frame.fds.is_empty() {
        return send(socket, &header[sent..], flags);
    }
    let fds: Vec<BorrowedFd<'_>> = frame.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(&header)], &mut control, flags)
}

/// What comes in, kept until frames are whole.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were handed out.
    taken: usize,
    /// The stream's position at `bytes[0]`.
    base: u64,
    /// Descriptors, with the stream's position right behind the bytes that they came with.
    fds: VecDeque<(u64, Vec<OwnedFd>)>,
}

/// How a read ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There is nothing more for now.
    Empty,
    /// The other side is gone.
    Ended,
}

/// The stream isn't one of frames.
#[derive(Debug)]
pub(crate) struct BadFrame;

impl Inbox {
    /// Reads all that is there, without blocking.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<Filled> {
        self.compact();
        loop {
            let start = self.bytes.len();
            self.bytes.resize(start + READ_BYTES, 0);
            let read = self.receive(socket, start);
            let count = *read.as_ref().unwrap_or(&0);
            self.bytes.truncate(start + count);
            match read {
                Ok(0) | Err(Errno::CONNRESET) => return Ok(Filled::Ended),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Filled::Empty),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, start: usize) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut self.bytes[start..])];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(socket, &mut buffers, &mut control, flags)?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if !fds.is_empty() {
            self.fds.push_back((self.base + (start + received.bytes) as u64, fds));
        }
        Ok(received.bytes)
    }

    /// Forgets what was handed out, and gives back the memory that a large frame took.
    fn compact(&mut self) {
        self.bytes.drain(..self.taken);
        self.base += self.taken as u64;
        self.taken = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * READ_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, BadFrame> {
        let rest = &self.bytes[self.taken..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let fd_count = u32::from_le_bytes([e, f, g, h]) as usize;
        if length > FRAME_BYTES_MAX || fd_count > FRAME_FDS_MAX {
            return Err(BadFrame);
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let body = body.to_vec();
        let header_at = self.base + self.taken as u64;
        let fds = if fd_count > 0 { self.fds_of(header_at) } else { Vec::new() };
        self.taken += HEADER + length;
        Ok(Some(Frame { body, fds_lost: fds.len() != fd_count, fds }))
    }

    fn fds_of(&mut self, header_at: u64) -> Vec<OwnedFd> {
        let own = header_at + 1..=header_at + HEADER as u64;
        match self.fds.front() {
            Some((end, _)) if own.contains(end) => {
                self.fds.pop_front().map(|(_, fds)| fds).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn frame(body: &[u8], fds: Vec<OwnedFd>) -> Frame {
        Frame { body: body.to_vec(), fds, fds_lost: false }
    }

    #[test]
    fn frames_keep_their_own_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        let (mut far2, near2) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(frame(b"plain", Vec::new()));
        outbox.push(frame(b"one", vec![near.into()]));
        outbox.push(frame(b"", Vec::new()));
        outbox.push(frame(b"two", vec![near2.into()]));
        assert!(outbox.flush(ours.as_fd()).unwrap());
        drop(outbox);

        let mut inbox = Inbox::default();
        assert_eq!(inbox.fill(theirs.as_fd()).unwrap(), Filled::Empty);
        let mut bodies = Vec::new();
        let mut streams = Vec::new();
        while let Some(frame) = inbox.next().unwrap() {
            assert!(!frame.fds_lost);
            bodies.push(frame.body);
            streams.extend(frame.fds.into_iter().map(UnixStream::from));
        }
        assert_eq!(bodies, [&b"plain"[..], b"one", b"", b"two"]);
        assert_eq!(streams.len(), 2);
        streams[0].write_all(b"1").unwrap();
        streams[1].write_all(b"2").unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"1");
        far2.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"2");
    }

    #[test]
    fn a_frame_larger_than_the_sockets_buffer_arrives_in_parts() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let body: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let (_far, near) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(frame(&body, vec![near.into()]));
        let mut inbox = Inbox::default();
        let arrived = loop {
            let done = outbox.flush(ours.as_fd()).unwrap();
            inbox.fill(theirs.as_fd()).unwrap();
            if let Some(frame) = inbox.next().unwrap() {
                assert!(done);
                break frame;
            }
        };
        assert_eq!(arrived.body, body);
        assert_eq!((arrived.fds.len(), arrived.fds_lost), (1, false));
    }

    #[test]
    fn a_header_beyond_the_limits_is_refused() {
        for header in [[0xff; 8], [0, 0, 0, 0, 9, 0, 0, 0]] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(&header).unwrap();
            let mut inbox = Inbox::default();
            inbox.fill(theirs.as_fd()).unwrap();
            assert!(inbox.next().is_err());
        }
    }

    #[test]
    fn descriptors_that_did_not_arrive_are_told() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[0, 0, 0, 0, 2, 0, 0, 0]).unwrap();
        let mut inbox = Inbox::default();
        inbox.fill(theirs.as_fd()).unwrap();
        let frame = inbox.next().unwrap().unwrap();
        assert!(frame.fds_lost && frame.fds.is_empty());
    }

    #[test]
    fn the_end_is_told_after_what_came_before_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(frame(b"last", Vec::new()));
        outbox.flush(ours.as_fd()).unwrap();
        drop(ours);
        let mut inbox = Inbox::default();
        assert_eq!(inbox.fill(theirs.as_fd()).unwrap(), Filled::Ended);
        assert_eq!(inbox.next().unwrap().unwrap().body, b"last");
        assert!(inbox.next().unwrap().is_none());
    }
}
