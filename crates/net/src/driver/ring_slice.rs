//! A part of a receive buffer that the kernel filled and lent to us.

/// Bytes in a buffer of the ring. The buffer is ours from the completion that brought it
/// until this value has gone through `RecvPool::returned`; it is neither `Clone` nor `Send`.
#[derive(Debug)]
pub(crate) struct RingSlice {
    start: *const u8,
    len: usize,
    pub(crate) buffer: u16,
}

impl RingSlice {
    /// # Safety
    /// `start` must point to `len` initialized bytes that nobody writes, and that stay
    /// allocated, until `buffer` was handed back to the kernel.
    pub(crate) unsafe fn new(start: *const u8, len: usize, buffer: u16) -> Self {
        Self { start, len, buffer }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `new`'s caller promised the bytes for as long as this value exists.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        let count = count.min(self.len);
        // SAFETY: `count` is at most `len`, so the result is inside or just after the bytes.
        self.start = unsafe { self.start.add(count) };
        self.len -= count;
    }
}
