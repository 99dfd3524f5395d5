//! What a connection has accepted for sending and the kernel doesn't have yet.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::driver::RingSlice;
use crate::error::{NetError, Result};
use crate::recv_buf::RecvPool;

/// Pieces given to the kernel in one call at most.
pub(crate) const PIECES_PER_SEND: usize = 64;
/// Spare pieces that a thread keeps: a turn that answers so many connections takes one for each.
const SPARE_SLABS: usize = 1_024;

/// The memory that copied sends take, with its limit.
pub(crate) struct SendPool {
    slab: usize,
    limit: usize,
    in_use: usize,
    spare: Vec<Vec<u8>>,
}

impl SendPool {
    pub(crate) fn new(slab: usize, limit: usize) -> Self {
        Self { slab, limit, in_use: 0, spare: Vec::new() }
    }

    pub(crate) fn exhausted(&self) -> NetError {
        NetError::SendPoolExhausted { limit: self.limit }
    }

    /// Whether `len` bytes find room whatever pieces they need.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.in_use + len.max(self.slab) <= self.limit
    }

    /// Whether `len` bytes in so many separate parts find room.
    pub(crate) fn has_room_for(&self, len: usize, parts: usize) -> bool {
        self.in_use + len + parts * self.slab <= self.limit
    }

    fn take(&mut self, room: usize) -> Result<Vec<u8>> {
        let size = room.max(self.slab);
        if self.in_use + size > self.limit {
            return Err(self.exhausted());
        }
        let spare = if size == self.slab { self.spare.pop() } else { None };
        let memory = spare.unwrap_or_else(|| Vec::with_capacity(size));
        self.in_use += memory.capacity();
        Ok(memory)
    }

    fn give(&mut self, mut memory: Vec<u8>) {
        self.in_use = self.in_use.saturating_sub(memory.capacity());
        if memory.capacity() == self.slab && self.spare.len() < SPARE_SLABS {
            memory.clear();
            self.spare.push(memory);
        }
    }

    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }
}

/// One piece of a stream.
pub(crate) enum Chunk {
    /// Copied into the pool's memory.
    Copied(Vec<u8>),
    /// Held as it is until the kernel has it.
    Shared(Bytes),
    /// A receive buffer on its way out again.
    Ring(RingSlice),
}

impl Chunk {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(memory) => memory,
            Self::Shared(bytes) => bytes,
            Self::Ring(slice) => slice.as_slice(),
        }
    }

    #[inline]
    pub(crate) fn release(self, pool: &mut SendPool, recv_pool: &mut RecvPool) {
        match self {
            Self::Copied(memory) => pool.give(memory),
            Self::Shared(bytes) => drop(bytes),
            Self::Ring(slice) => recv_pool.returned.push(slice),
        }
    }
}

/// The pieces in order, and how far the stream has come. It is one line of memory: mostly there is
/// one piece, which goes as a whole.
#[derive(Default)]
pub(crate) struct SendQueue {
    /// Bytes accepted since the connection began.
    pub(crate) queued: u64,
    /// Bytes that the kernel has taken.
    pub(crate) sent: u64,
    first: Option<Chunk>,
    /// Nothing without a first piece; once there was something, it keeps the memory.
    more: Option<Box<More>>,
}

/// What there is besides a first piece.
#[derive(Default)]
struct More {
    /// Bytes of the first piece that the kernel has.
    offset: usize,
    /// The pieces after it.
    chunks: VecDeque<Chunk>,
}

impl SendQueue {
    pub(crate) fn unsent(&self) -> usize {
        (self.queued - self.sent) as usize
    }

    /// Whether a piece waits here (pieces in flight have left).
    pub(crate) fn has_chunks(&self) -> bool {
        self.first.is_some()
    }

    fn last(&mut self) -> Option<&mut Chunk> {
        match self.more.as_mut().and_then(|more| more.chunks.back_mut()) {
            None => self.first.as_mut(),
            last => last,
        }
    }

    fn push_back(&mut self, chunk: Chunk) {
        match &self.first {
            None => self.first = Some(chunk),
            Some(_) => self.more.get_or_insert_default().chunks.push_back(chunk),
        }
    }

    fn pop_front(&mut self) -> Option<Chunk> {
        let next = self.more.as_mut().and_then(|more| more.chunks.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    /// Bytes of the first piece that the kernel has.
    fn offset(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.offset)
    }

    fn take_offset(&mut self) -> usize {
        self.more.as_mut().map_or(0, |more| std::mem::take(&mut more.offset))
    }

    /// Whether the last piece has space for `len` bytes more.
    pub(crate) fn fits_in_last(&mut self, len: usize) -> bool {
        self.last_with_room(len).is_some()
    }

    fn last_with_room(&mut self, len: usize) -> Option<&mut Vec<u8>> {
        match self.last()? {
            Chunk::Copied(memory) if memory.capacity() - memory.len() >= len => Some(memory),
            _ => None,
        }
    }

    /// How many pieces wait here.
    pub(crate) fn pieces(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| more.chunks.len());
        usize::from(self.first.is_some()) + more
    }

    /// What is unsent, if that is one piece, as it mostly is.
    #[inline]
    pub(crate) fn only_piece(&self) -> Option<&[u8]> {
        let first = self.first.as_ref()?.as_slice();
        match &self.more {
            None => Some(first),
            Some(more) if more.chunks.is_empty() => first.get(more.offset..),
            Some(_) => None,
        }
    }

    /// Takes what is unsent, and how much of the piece has gone, if that is one short piece of the
    /// runtime's own memory: nobody outside waits for it to be let go of.
    pub(crate) fn take_only(&mut self, most: usize) -> Option<(Chunk, usize)> {
        if self.only_piece()?.len() > most || matches!(self.first, Some(Chunk::Shared(_))) {
            return None;
        }
        let offset = self.take_offset();
        self.first.take().map(|chunk| (chunk, offset))
    }

    /// So many bytes went to the kernel without having been queued.
    pub(crate) fn passed(&mut self, count: usize) {
        self.queued += count as u64;
        self.sent += count as u64;
    }

    pub(crate) fn push_copied(&mut self, data: &[u8], pool: &mut SendPool) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        if let Some(memory) = self.last_with_room(data.len()) {
            memory.extend_from_slice(data);
        } else {
            let mut memory = pool.take(data.len())?;
            memory.extend_from_slice(data);
            self.push_back(Chunk::Copied(memory));
        }
        self.queued += data.len() as u64;
        Ok(())
    }

    /// Copies `data` into the last piece's space and then into pieces of the pool's size, which
    /// are used again, as far as the pool has any; returns how much that was.
    pub(crate) fn push_over_pieces(&mut self, data: &[u8], pool: &mut SendPool) -> usize {
        let mut rest = data;
        while !rest.is_empty() {
            if !self.fits_in_last(1) {
                let Ok(memory) = pool.take(0) else { break };
                self.push_back(Chunk::Copied(memory));
            }
            if let Some(memory) = self.last_with_room(1) {
                let count = rest.len().min(memory.capacity() - memory.len());
                memory.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
            }
        }
        let count = data.len() - rest.len();
        self.queued += count as u64;
        count
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.queued += chunk.as_slice().len() as u64;
        self.push_back(chunk);
    }

    /// The first pieces' bytes, in `slices`; returns how many there are and their total.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut total) = (0, 0);
        let more = self.more.iter().flat_map(|more| &more.chunks);
        for (slot, chunk) in slices.iter_mut().zip(self.first.iter().chain(more)) {
            let skip = if count == 0 { self.offset() } else { 0 };
            let bytes = &chunk.as_slice()[skip..];
            *slot = IoSlice::new(bytes);
            count += 1;
            total += bytes.len();
        }
        (count, total)
    }

    /// The kernel took `count` bytes of the pieces that are here.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize, pool: &mut SendPool, recv: &mut RecvPool) {
        self.sent += count as u64;
        let mut gone = self.take_offset() + count;
        while let Some(first) = &self.first {
            let len = first.as_slice().len();
            if gone < len {
                break;
            }
            gone -= len;
            if let Some(chunk) = self.pop_front() {
                chunk.release(pool, recv);
            }
        }
        if gone > 0 {
            self.more.get_or_insert_default().offset = gone;
        }
    }

    /// Hands the first pieces, at most `most`, to an operation that will own them. Returns how
    /// many bytes of the first one have gone already.
    pub(crate) fn take_front(&mut self, most: usize, into: &mut Vec<Chunk>) -> usize {
        into.extend(std::iter::from_fn(|| self.pop_front()).take(most));
        self.take_offset()
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self, pool: &mut SendPool, recv: &mut RecvPool) {
        while let Some(chunk) = self.pop_front() {
            chunk.release(pool, recv);
        }
        self.take_offset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sends_share_a_piece_and_short_writes_keep_the_rest() {
        let mut pool = SendPool::new(1_024, 4_096);
        let mut recv = RecvPool::new(1_024);
        let mut queue = SendQueue::default();
        queue.push_copied(b"hello ", &mut pool).unwrap();
        queue.push_copied(b"world", &mut pool).unwrap();
        queue.push(Chunk::Shared(Bytes::from_static(b"!!")));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(queue.slices(&mut slices), (2, 13));
        queue.advance(8, &mut pool, &mut recv);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(queue.slices(&mut slices), (2, 5));
        assert_eq!(&*slices[0], b"rld");
        queue.advance(5, &mut pool, &mut recv);
        assert_eq!((queue.unsent(), pool.in_use()), (0, 0));
        assert!(!queue.has_chunks());
    }

    #[test]
    fn a_long_piece_is_spread_over_pieces_that_are_used_again() {
        let (mut pool, mut recv) = (SendPool::new(1_024, 4_096), RecvPool::new(1_024));
        let mut queue = SendQueue::default();
        let data: Vec<u8> = (0..5_000_u32).map(|at| at as u8).collect();
        assert_eq!(queue.push_over_pieces(&data[..1_000], &mut pool), 1_000);
        assert_eq!(queue.push_over_pieces(&data[1_000..], &mut pool), 3_096);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(queue.slices(&mut slices), (4, 4_096));
        let sent: Vec<u8> = slices[..4].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(sent, data[..4_096]);
        queue.advance(4_096, &mut pool, &mut recv);
        assert_eq!((queue.unsent(), pool.in_use(), pool.spare.len()), (0, 0, 4));
    }

    #[test]
    fn the_pool_has_an_end() {
        let mut pool = SendPool::new(1_024, 4_096);
        let mut recv = RecvPool::new(1_024);
        let mut queue = SendQueue::default();
        queue.push_copied(&[0; 4_000], &mut pool).unwrap();
        let error = queue.push_copied(&[0; 200], &mut pool).unwrap_err();
        assert!(matches!(error, NetError::SendPoolExhausted { limit: 4_096 }));
        assert_eq!(queue.unsent(), 4_000);
        queue.clear(&mut pool, &mut recv);
        assert_eq!(pool.in_use(), 0);
    }
}
