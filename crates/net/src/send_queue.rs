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

/// The pieces in order, and how far the stream has come.
#[derive(Default)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first piece that the kernel has.
    offset: usize,
    /// Bytes accepted since the connection began.
    pub(crate) queued: u64,
    /// Bytes that the kernel has taken.
    pub(crate) sent: u64,
}

impl SendQueue {
    pub(crate) fn unsent(&self) -> usize {
        (self.queued - self.sent) as usize
    }

    /// Whether a piece waits here (pieces in flight have left).
    pub(crate) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether the last piece has space for `len` bytes more.
    pub(crate) fn fits_in_last(&self, len: usize) -> bool {
        let Some(Chunk::Copied(memory)) = self.chunks.back() else { return false };
        memory.capacity() - memory.len() >= len
    }

    /// How many pieces wait here.
    pub(crate) fn pieces(&self) -> usize {
        self.chunks.len()
    }

    /// What is unsent, if that is one piece, as it mostly is.
    #[inline]
    pub(crate) fn only_piece(&self) -> Option<&[u8]> {
        let first = self.chunks.front().filter(|_| self.chunks.len() == 1)?;
        first.as_slice().get(self.offset..)
    }

    /// Takes what is unsent, and how much of the piece has gone, if that is one short piece of the
    /// runtime's own memory: nobody outside waits for it to be let go of.
    pub(crate) fn take_only(&mut self, most: usize) -> Option<(Chunk, usize)> {
        if self.only_piece()?.len() > most || matches!(self.chunks.front(), Some(Chunk::Shared(_)))
        {
            return None;
        }
        let offset = std::mem::take(&mut self.offset);
        self.chunks.pop_front().map(|chunk| (chunk, offset))
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
        self.queued += data.len() as u64;
        if self.fits_in_last(data.len())
            && let Some(Chunk::Copied(memory)) = self.chunks.back_mut()
        {
            memory.extend_from_slice(data);
            return Ok(());
        }
        match pool.take(data.len()) {
            Ok(mut memory) => {
                memory.extend_from_slice(data);
                self.chunks.push_back(Chunk::Copied(memory));
                Ok(())
            }
            Err(error) => {
                self.queued -= data.len() as u64;
                Err(error)
            }
        }
    }

    /// Copies `data` into the last piece's space and then into pieces of the pool's size, which
    /// are used again, as far as the pool has any; returns how much that was.
    pub(crate) fn push_over_pieces(&mut self, data: &[u8], pool: &mut SendPool) -> usize {
        let mut rest = data;
        while !rest.is_empty() {
            if !self.fits_in_last(1) {
                let Ok(memory) = pool.take(0) else { break };
                self.chunks.push_back(Chunk::Copied(memory));
            }
            if let Some(Chunk::Copied(memory)) = self.chunks.back_mut() {
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
        self.chunks.push_back(chunk);
    }

    /// The first pieces' bytes, in `slices`; returns how many there are and their total.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut total) = (0, 0);
        for (slot, chunk) in slices.iter_mut().zip(&self.chunks) {
            let skip = if count == 0 { self.offset } else { 0 };
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
        self.offset += count;
        while let Some(first) = self.chunks.front() {
            let len = first.as_slice().len();
            if self.offset < len {
                break;
            }
            self.offset -= len;
            if let Some(chunk) = self.chunks.pop_front() {
                chunk.release(pool, recv);
            }
        }
    }

    /// Hands the first pieces, at most `most`, to an operation that will own them. Returns how
    /// many bytes of the first one have gone already.
    pub(crate) fn take_front(&mut self, most: usize, into: &mut Vec<Chunk>) -> usize {
        let count = most.min(self.chunks.len());
        into.extend(self.chunks.drain(..count));
        std::mem::take(&mut self.offset)
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self, pool: &mut SendPool, recv: &mut RecvPool) {
        for chunk in self.chunks.drain(..) {
            chunk.release(pool, recv);
        }
        self.offset = 0;
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
