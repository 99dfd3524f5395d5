//! **The one place that owns memory which the kernel may still read.** What a send points to
//! moves in here when the operation is made, and comes out with its completion, never sooner:
//! not when the connection is closed, and not when its future is dropped. (A short answer is
//! kept by [`Silent`](super::silent::Silent) in the same way.)

use io_uring::{opcode, squeue, types};

use crate::send_queue::{Chunk, PIECES_PER_SEND};

/// Bytes of one send at most, so that a long message's progress is seen.
const BYTES_PER_SEND: usize = 1 << 20;

pub(super) const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// One send's pieces.
pub(super) struct Send {
    pub(super) chunks: Vec<Chunk>,
    /// Bytes of the first piece that have gone.
    pub(super) offset: usize,
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
        Box::new(Self { chunks: Vec::new(), offset: 0, vector: None })
    }

    /// The bytes of a piece that are still to go.
    fn rest(&self, index: usize) -> &[u8] {
        let bytes = self.chunks[index].as_slice();
        if index == 0 { &bytes[self.offset..] } else { bytes }
    }

    /// Describes the pieces to the kernel. The entry points into its pieces and its vector,
    /// neither of which moves.
    fn entry(&mut self, fd: i32) -> squeue::Entry {
        let fd = types::Fd(fd);
        if self.chunks.len() == 1 {
            let bytes = self.rest(0);
            let len = bytes.len().min(BYTES_PER_SEND) as u32;
            return opcode::Send::new(fd, bytes.as_ptr(), len).flags(FLAGS).build();
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
        opcode::SendMsg::new(fd, &raw const vector.header).flags(FLAGS as u32).build()
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
const SPARE_SENDS: usize = 128;

impl InFlight {
    pub(super) fn spare(&mut self) -> Box<Send> {
        self.spare.pop().unwrap_or_else(Send::new)
    }

    /// Takes the send in, and gives the entry that is to be submitted.
    pub(super) fn start(&mut self, place: usize, send: Box<Send>, fd: i32) -> squeue::Entry {
        // The box stays where it is when its owner moves, so the pointers hold.
        self.hold(place, send).entry(fd)
    }

    /// Takes in a piece that was given to the kernel by another way.
    pub(super) fn take_over(&mut self, place: usize, chunk: Chunk, offset: usize) {
        let mut send = self.spare();
        send.chunks.push(chunk);
        send.offset = offset;
        self.hold(place, send);
    }

    fn hold(&mut self, place: usize, send: Box<Send>) -> &mut Send {
        if place >= self.by_place.len() {
            self.by_place.resize_with(place + 1, || None);
        }
        debug_assert!(self.by_place[place].is_none(), "two sends on one stream");
        self.count += 1;
        self.by_place[place].insert(send)
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
