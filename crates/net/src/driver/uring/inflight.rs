//! **The one place that owns memory which the kernel may still read.** What a send points to
//! moves in here when the operation is made, and comes out with its completion, never sooner:
//! not when the connection is closed, and not when its future is dropped.

use crate::send_queue::{Chunk, PIECES_PER_SEND};

use io_uring::{opcode, squeue, types};

/// Bytes of one send at most, so that a long message's progress is seen.
const BYTES_PER_SEND: usize = 1 << 20;

/// One send's pieces, and the structures by which the kernel is told of them.
pub(super) struct Send {
    pub(super) chunks: Vec<Chunk>,
    /// Bytes of the first piece that have gone.
    pub(super) offset: usize,
    slices: [libc::iovec; PIECES_PER_SEND],
    header: libc::msghdr,
}

impl Send {
    fn new() -> Box<Self> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(Self {
            chunks: Vec::new(),
            offset: 0,
            slices: [empty; PIECES_PER_SEND],
            // SAFETY: a msghdr of zeros is one without address, data and control.
            header: unsafe { std::mem::zeroed() },
        })
    }

    /// The bytes of a piece that are still to go.
    fn rest(&self, index: usize) -> &[u8] {
        let bytes = self.chunks[index].as_slice();
        if index == 0 { &bytes[self.offset..] } else { bytes }
    }

    /// Describes the pieces to the kernel. The entry points into this box and its pieces.
    fn entry(&mut self, fd: i32) -> squeue::Entry {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let fd = types::Fd(fd);
        if self.chunks.len() == 1 {
            let bytes = self.rest(0);
            let len = bytes.len().min(BYTES_PER_SEND) as u32;
            return opcode::Send::new(fd, bytes.as_ptr(), len).flags(flags).build();
        }
        let (mut count, mut room) = (0, BYTES_PER_SEND);
        while count < self.chunks.len() && room > 0 {
            let bytes = self.rest(count);
            let iov_len = bytes.len().min(room);
            let iov_base = bytes.as_ptr().cast_mut().cast();
            self.slices[count] = libc::iovec { iov_base, iov_len };
            room -= iov_len;
            count += 1;
        }
        self.header.msg_iov = self.slices.as_mut_ptr();
        self.header.msg_iovlen = count;
        opcode::SendMsg::new(fd, &raw const self.header).flags(flags as u32).build()
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
}

/// Spare send structures that are kept.
const SPARE_SENDS: usize = 64;

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
