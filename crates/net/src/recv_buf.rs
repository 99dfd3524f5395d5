//! What a connection received and nobody consumed yet.

use bytes::{Buf, Bytes, BytesMut};

use crate::driver::RingSlice;

/// Received bytes: in memory that grows, in memory that slices of [`Bytes`] share, or in
/// place, in a buffer of the kernel's ring. Without bytes it is `Empty`, but for the moment
/// between [`growing`](Self::growing) and what is put there.
#[derive(Default)]
pub(crate) enum RecvBuf {
    #[default]
    Empty,
    Growing(BytesMut),
    Frozen(Bytes),
    Ring(RingSlice),
}

/// Buffers that wait to be used again.
pub(crate) struct RecvPool {
    spare: Vec<BytesMut>,
    size: usize,
    /// Ring buffers that are done with, for the driver to hand back to the kernel.
    pub(crate) returned: Vec<RingSlice>,
}

/// How many spare buffers a thread keeps.
const SPARE_BUFFERS: usize = 64;

impl RecvPool {
    pub(crate) fn new(size: usize) -> Self {
        Self { spare: Vec::new(), size, returned: Vec::new() }
    }

    pub(crate) fn buffer_size(&self) -> usize {
        self.size
    }

    fn take(&mut self, room: usize) -> BytesMut {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.reserve(room);
        buffer
    }

    fn give(&mut self, mut buffer: BytesMut) {
        if self.spare.len() >= SPARE_BUFFERS {
            return;
        }
        buffer.clear();
        // Gets the front back if nobody holds a slice; a grown or shared one isn't worth keeping.
        if buffer.try_reclaim(self.size) && buffer.capacity() <= 2 * self.size {
            self.spare.push(buffer);
        }
    }
}

impl RecvBuf {
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Growing(buffer) => buffer,
            Self::Frozen(bytes) => bytes,
            Self::Ring(slice) => slice.as_slice(),
        }
    }

    /// Memory to append to, with at least `room` bytes of space. What was shared or in place
    /// is moved or copied there.
    pub(crate) fn growing(&mut self, room: usize, pool: &mut RecvPool) -> &mut BytesMut {
        let buffer = match std::mem::take(self) {
            Self::Empty => pool.take(room),
            Self::Growing(buffer) => buffer,
            Self::Frozen(bytes) => bytes.try_into_mut().unwrap_or_else(|bytes| {
                let mut buffer = pool.take(bytes.len() + room);
                buffer.extend_from_slice(&bytes);
                buffer
            }),
            Self::Ring(slice) => {
                let mut buffer = pool.take(slice.as_slice().len() + room);
                buffer.extend_from_slice(slice.as_slice());
                pool.returned.push(slice);
                buffer
            }
        };
        *self = Self::Growing(buffer);
        let Self::Growing(buffer) = self else { unreachable!("it was set the line above") };
        if buffer.capacity() - buffer.len() < room {
            // Doubling keeps a long message's cost linear in its length.
            buffer.reserve(room.max(buffer.len()));
        }
        buffer
    }

    pub(crate) fn append(&mut self, data: &[u8], pool: &mut RecvPool) {
        let room = if self.is_empty() { data.len().max(pool.size.min(4_096)) } else { data.len() };
        self.growing(room, pool).extend_from_slice(data);
    }

    /// Drops the first `count` bytes; memory that is empty goes back to the pool.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize, pool: &mut RecvPool) {
        match self {
            Self::Empty => {}
            Self::Growing(buffer) => buffer.advance(count.min(buffer.len())),
            Self::Frozen(bytes) => bytes.advance(count.min(bytes.len())),
            Self::Ring(slice) => slice.advance(count),
        }
        if self.as_slice().is_empty() {
            std::mem::take(self).release(pool);
        }
    }

    #[inline]
    pub(crate) fn release(self, pool: &mut RecvPool) {
        match self {
            Self::Growing(buffer) => pool.give(buffer),
            Self::Ring(slice) => pool.returned.push(slice),
            Self::Empty | Self::Frozen(_) => {}
        }
    }

    /// All bytes as shared memory, without a copy unless they are in a ring buffer.
    pub(crate) fn freeze(&mut self, pool: &mut RecvPool) -> Bytes {
        if matches!(self, Self::Ring(_)) {
            self.growing(0, pool);
        }
        let bytes = match std::mem::take(self) {
            Self::Growing(buffer) => buffer.freeze(),
            Self::Frozen(bytes) => bytes,
            Self::Empty | Self::Ring(_) => Bytes::new(),
        };
        *self = Self::Frozen(bytes.clone());
        bytes
    }

    /// After a parse that needs more: makes the bytes appendable again, by a move if the
    /// closure kept no slice of them.
    pub(crate) fn thaw(&mut self) {
        if let Self::Frozen(bytes) = self {
            match std::mem::take(bytes).try_into_mut() {
                Ok(buffer) => *self = Self::Growing(buffer),
                Err(bytes) => *self = Self::Frozen(bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_moved_a_bounded_number_of_times() {
        let mut pool = RecvPool::new(1 << 10);
        let mut buffer = RecvBuf::default();
        let mut moves = 0;
        let mut address = std::ptr::null();
        for _ in 0..16_384 {
            buffer.append(&[7; 1 << 10], &mut pool);
            if buffer.as_slice().as_ptr() != address {
                address = buffer.as_slice().as_ptr();
                moves += 1;
            }
        }
        assert_eq!(buffer.len(), 16 << 20);
        assert!(moves < 32, "{moves} moves");
        buffer.consume(16 << 20, &mut pool);
        assert!(matches!(buffer, RecvBuf::Empty));
        assert!(pool.spare.is_empty(), "a grown buffer is not kept");
    }

    #[test]
    fn slices_that_were_kept_stay_as_they_were() {
        let mut pool = RecvPool::new(1 << 10);
        let mut buffer = RecvBuf::default();
        buffer.append(b"hello world", &mut pool);
        let bytes = buffer.freeze(&mut pool);
        let kept = bytes.slice(..5);
        drop(bytes);
        buffer.consume(6, &mut pool);
        buffer.append(b"!", &mut pool);
        assert_eq!(buffer.as_slice(), b"world!");
        assert_eq!(&kept[..], b"hello");
    }

    #[test]
    fn a_buffer_that_was_emptied_is_used_again() {
        let mut pool = RecvPool::new(1 << 10);
        let mut buffer = RecvBuf::default();
        buffer.append(&[1; 1 << 10], &mut pool);
        let address = buffer.as_slice().as_ptr();
        buffer.consume(1 << 10, &mut pool);
        buffer.append(b"x", &mut pool);
        assert_eq!(buffer.as_slice().as_ptr(), address);
    }
}
