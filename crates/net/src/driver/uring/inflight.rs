//! **The one place that owns memory which the kernel may still read.** What a send points to
//! moves in here when the operation is made, and comes out with its completion, never sooner:
//! not when the connection is closed, and not when its future is dropped.
//!
//! **A silent send makes a completion only if it fails or is short.** `MSG_DONTWAIT` has the
//! kernel try it once, inside the `enter` that takes the entry, and never keep it: a full socket is
//! `EAGAIN` or, by `MSG_WAITALL`, a short count, and both are completions, which are posted before
//! that `enter` returns. So once the kernel has taken all entries and hides no completions, and
//! those that are there have been looked at, a silent send that is still here has gone out whole,
//! and the kernel is done with its memory.

use crate::send_queue::{Chunk, PIECES_PER_SEND};
use crate::slots::Key;

use io_uring::{opcode, squeue, types};

/// Bytes of one send at most, so that a long message's progress is seen.
const BYTES_PER_SEND: usize = 1 << 20;

const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// One send's pieces.
pub(super) struct Send {
    pub(super) chunks: Vec<Chunk>,
    /// Bytes of the first piece that have gone.
    pub(super) offset: usize,
    /// Whose silent send it is, if it is one.
    silent: Option<Key>,
    /// For sends of several pieces; few ever have them.
    vector: Option<Box<Vector>>,
}

/// The structures by which the kernel is told of several pieces.
struct Vector {
    slices: [libc::iovec; PIECES_PER_SEND],
    header: libc::msghdr,
}

impl Vector {
    fn new() -> Box<Self> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a msghdr of zeros is one without address, data and control.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { slices: [empty; PIECES_PER_SEND], header })
    }
}

impl Send {
    fn new() -> Box<Self> {
        Box::new(Self { chunks: Vec::new(), offset: 0, silent: None, vector: None })
    }

    /// The bytes of a piece that are still to go.
    fn rest(&self, index: usize) -> &[u8] {
        let bytes = self.chunks[index].as_slice();
        if index == 0 { &bytes[self.offset..] } else { bytes }
    }

    /// Describes the pieces to the kernel. The entry points into its pieces and its vector,
    /// neither of which moves.
    fn entry(&mut self, fd: i32) -> squeue::Entry {
        let flags = FLAGS;
        let fd = types::Fd(fd);
        if self.chunks.len() == 1 {
            let bytes = self.rest(0);
            let len = bytes.len().min(BYTES_PER_SEND) as u32;
            let flags = flags | if self.silent.is_some() { libc::MSG_DONTWAIT } else { 0 };
            return opcode::Send::new(fd, bytes.as_ptr(), len).flags(flags).build();
        }
        let mut vector = self.vector.take().unwrap_or_else(Vector::new);
        let (mut count, mut room) = (0, BYTES_PER_SEND);
        while count < self.chunks.len() && room > 0 {
            let bytes = self.rest(count);
            let iov_len = bytes.len().min(room);
            let iov_base = bytes.as_ptr().cast_mut().cast();
            vector.slices[count] = libc::iovec { iov_base, iov_len };
            room -= iov_len;
            count += 1;
        }
        let vector = self.vector.insert(vector);
        vector.header.msg_iov = vector.slices.as_mut_ptr();
        vector.header.msg_iovlen = count;
        opcode::SendMsg::new(fd, &raw const vector.header).flags(flags as u32).build()
    }

    /// Notes that so many bytes have gone; pieces that are done with go to `done`.
    fn advance(&mut self, count: usize, done: &mut Vec<Chunk>) {
        self.offset += count;
        let mut finished = 0;
        for chunk in &self.chunks {
            let len = chunk.as_slice().len();
            if self.offset < len {
                break;
            }
            self.offset -= len;
            finished += 1;
        }
        done.extend(self.chunks.drain(..finished));
    }
}

/// The sends in flight: at most one a connection, since operations on one stream are not
/// ordered. They are found by the connection's place in the table, which isn't used again
/// before the completion came.
#[derive(Default)]
pub(super) struct InFlight {
    by_place: Vec<Option<Box<Send>>>,
    // Boxed as they are used: what the kernel points to must not move.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Send>>,
    pub(super) count: usize,
    /// Whose silent sends were given out since the last that were settled.
    silent: Vec<Key>,
}

/// Spare send structures that are kept: as many as a turn's silent sends are at most.
pub(super) const SPARE_SENDS: usize = 1_024;

impl InFlight {
    pub(super) fn spare(&mut self) -> Box<Send> {
        self.spare.pop().unwrap_or_else(Send::new)
    }

    /// Takes the send in, and gives the entry that is to be submitted.
    pub(super) fn start(&mut self, place: usize, send: Box<Send>, fd: i32) -> squeue::Entry {
        if place >= self.by_place.len() {
            self.by_place.resize_with(place + 1, || None);
        }
        debug_assert!(self.by_place[place].is_none(), "two sends on one stream");
        self.count += 1;
        // The box stays where it is when its owner moves, so the pointers hold.
        self.by_place[place].insert(send).entry(fd)
    }

    /// As [`Self::start`], for a silent send, which has one piece.
    pub(super) fn start_silent(&mut self, key: Key, mut send: Box<Send>, fd: i32) -> squeue::Entry {
        debug_assert!(send.chunks.len() == 1, "a silent send of several pieces");
        send.silent = Some(key);
        self.silent.push(key);
        let entry = self.start(key.index as usize, send, fd);
        entry.flags(squeue::Flags::SKIP_SUCCESS)
    }

    pub(super) fn has_silent(&self) -> bool {
        !self.silent.is_empty()
    }

    /// One that went out without a completion, and how many bytes it had. To be called when that
    /// is certain: see the top of this file.
    pub(super) fn next_settled(&mut self) -> Option<(Key, usize)> {
        while let Some(key) = self.silent.pop() {
            let send = self.by_place.get(key.index as usize).and_then(Option::as_ref);
            if let Some(send) = send.filter(|send| send.silent == Some(key)) {
                return Some((key, send.rest(0).len()));
            }
        }
        None
    }

    /// The completion came: the kernel is done with the memory. Pieces that have gone move to
    /// `done`; the send comes back if there is a rest.
    pub(super) fn finish(
        &mut self,
        place: usize,
        sent: usize,
        done: &mut Vec<Chunk>,
    ) -> Option<Box<Send>> {
        let mut send = self.by_place.get_mut(place)?.take()?;
        self.count -= 1;
        send.silent = None;
        send.advance(sent, done);
        if !send.chunks.is_empty() {
            return Some(send);
        }
        self.recycle(send);
        None
    }

    /// Takes back a send whose pieces nobody needs any more.
    pub(super) fn give_up(&mut self, mut send: Box<Send>, done: &mut Vec<Chunk>) {
        done.append(&mut send.chunks);
        self.recycle(send);
    }

    fn recycle(&mut self, mut send: Box<Send>) {
        send.offset = 0;
        if self.spare.len() < SPARE_SENDS {
            self.spare.push(send);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use io_uring::IoUring;

    use super::*;
    use crate::config::Config;
    use crate::driver::uring::setup;

    const KEY: Key = Key { index: 3, serial: 7 };

    /// Sends so many bytes silently; returns the completions' results, of which there is one or
    /// none once the call that submits is over.
    fn send(uring: &mut IoUring, silent: &mut InFlight, to: &UnixStream, len: usize) -> Vec<i32> {
        let mut send = silent.spare();
        send.chunks.push(Chunk::Copied(vec![1; len]));
        let entry = silent.start_silent(KEY, send, to.as_raw_fd());
        // SAFETY: `silent` owns the bytes until the end of the test, or gives them out by `finish`.
        unsafe { uring.submission().push(&entry) }.unwrap();
        assert_eq!(uring.submit().unwrap(), 1);
        assert!(uring.submission().is_empty() && !uring.submission().taskrun());
        uring.completion().map(|completion| completion.result()).collect()
    }

    /// Writes until nothing more goes in; returns how much that was.
    fn fill(socket: &mut UnixStream) -> usize {
        socket.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = socket.write(&[0; 1 << 10]) {
            written += count;
        }
        socket.set_nonblocking(false).unwrap();
        written
    }

    #[test]
    fn a_silent_send_tells_of_all_but_its_success_before_its_enter_is_over() {
        let Ok(mut uring) = setup::try_ring(&Config::default()) else {
            assert!(std::env::var_os("REMUDA_CI").is_none(), "io_uring is missing");
            eprintln!("skipped: no io_uring here");
            return;
        };
        let mut flight = InFlight::default();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut done = Vec::new();
        let place = KEY.index as usize;

        assert!(send(&mut uring, &mut flight, &near, 100).is_empty());
        assert_eq!(flight.next_settled(), Some((KEY, 100)));
        assert!(flight.finish(place, 100, &mut done).is_none());
        far.read_exact(&mut [0; 100]).unwrap();

        // More than a socket holds: the part that went is told.
        let short = send(&mut uring, &mut flight, &near, 16 << 20);
        assert!(short.len() == 1 && short[0] > 0 && short[0] < 16 << 20, "{short:?}");
        let rest = flight.finish(place, short[0] as usize, &mut done).unwrap();
        assert_eq!(flight.next_settled(), None);
        flight.give_up(rest, &mut done);

        let full = fill(&mut near);
        assert_eq!(send(&mut uring, &mut flight, &near, 100), [-libc::EAGAIN]);
        assert!(flight.finish(place, 0, &mut done).is_some());
        // Room later on makes nothing of it go out.
        far.read_exact(&mut vec![0; short[0] as usize + full]).unwrap();
        far.set_nonblocking(true).unwrap();
        assert!(far.read(&mut [0; 1]).is_err());

        drop(far);
        assert_eq!(send(&mut uring, &mut flight, &near, 100), [-libc::EPIPE]);
        assert!(flight.finish(place, 0, &mut done).is_some());
        assert_eq!((flight.next_settled(), flight.count), (None, 0));
    }

    #[test]
    fn one_that_was_told_of_is_not_settled_as_another_that_has_its_place() {
        let mut flight = InFlight::default();
        let later = Key { serial: 8, ..KEY };
        for key in [KEY, later] {
            let mut send = flight.spare();
            send.chunks.push(Chunk::Copied(vec![1; 10]));
            let _ = flight.start_silent(key, send, -1);
            if key == KEY {
                assert!(flight.finish(KEY.index as usize, 10, &mut Vec::new()).is_none());
            }
        }
        assert_eq!(flight.next_settled(), Some((later, 10)));
        assert!(flight.finish(KEY.index as usize, 10, &mut Vec::new()).is_none());
        assert_eq!(flight.next_settled(), None);
    }
}
