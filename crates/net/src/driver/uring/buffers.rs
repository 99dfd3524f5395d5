//! The buffers that the kernel receives into: a ring by which they are provided to it, and the
//! memory that they lie in.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::driver::RingSlice;

use super::window::Window;

/// The only group of buffers: one a thread. One a connection would cost a locked page each.
pub(super) const GROUP: u16 = 0;

/// Anonymous memory, aligned to pages, given back when dropped.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE) }?;
        Ok(Self { start: start.cast(), len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole; `Buffers` is dropped only when no operation
        // can write to it any more (see `UringDriver`'s drop).
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

pub(super) struct Buffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size: u32,
    /// From the start of a buffer to that of the next.
    stride: usize,
    tail: u16,
    /// Buffers that the kernel has.
    provided: u16,
    /// Buffers that it may have.
    window: Window,
    /// Buffers that wait here, the one used last on top.
    reserve: Vec<u16>,
}

/// What lies between two buffers, so that their first lines, which is all that short messages
/// use, don't fall into the same few places of the processor's caches.
const GAP: usize = 3 * 64;

impl Buffers {
    /// Makes the buffers and provides all of them.
    pub(super) fn new(submitter: &Submitter<'_>, count: u16, size: u32) -> io::Result<Self> {
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let stride = size as usize + GAP;
        let memory = Mapping::new(usize::from(count) * stride)?;
        // SAFETY: the entries are page-aligned, zeroed memory for `count` of them, which is a
        // power of two, and live until the group was unregistered or the ring is gone.
        unsafe { submitter.register_buf_ring_with_flags(entries.start as u64, count, GROUP, 0) }?;
        let (window, reserve) = (Window::new(count), (0..count).rev().collect());
        let mut buffers =
            Self { entries, memory, count, size, stride, tail: 0, provided: 0, window, reserve };
        buffers.give_back(&mut Vec::new());
        Ok(buffers)
    }

    /// Whether more than half of the buffers are in nobody's hands, with so many that are on
    /// their way back: enough to keep some.
    pub(super) fn are_plenty(&self, returned: usize) -> bool {
        usize::from(self.provided) + self.reserve.len() + returned > usize::from(self.count / 2)
    }

    /// The kernel found none for one connection.
    pub(super) fn were_too_few(&mut self) {
        self.window.was_too_narrow();
    }

    /// How many connections may find one.
    pub(super) fn provided(&self) -> u16 {
        self.provided
    }

    /// The bytes that a completion brought. The buffer is ours until it is given back.
    #[inline]
    pub(super) fn taken(&mut self, buffer: u16, len: usize) -> RingSlice {
        debug_assert!(buffer < self.count && len <= self.size as usize);
        self.provided = self.provided.saturating_sub(1);
        self.window.taken(len);
        let offset = usize::from(buffer % self.count) * self.stride;
        // SAFETY: the offset of a buffer is inside the memory. The kernel filled `len` bytes and
        // doesn't write there again before the buffer is provided again, which takes this slice.
        unsafe { RingSlice::new(self.memory.start.add(offset), len, buffer) }
    }

    /// Hands buffers back to the kernel, as many as it may have.
    #[inline]
    pub(super) fn give_back(&mut self, slices: &mut Vec<RingSlice>) {
        let window = self.window.width();
        if slices.is_empty() && self.provided >= window {
            return;
        }
        let before = self.tail;
        while let Some(slice) = slices.pop() {
            if self.provided < window {
                self.stage(slice.buffer);
            } else {
                self.reserve.push(slice.buffer);
            }
        }
        while self.provided < window
            && let Some(buffer) = self.reserve.pop()
        {
            self.stage(buffer);
        }
        if self.tail != before {
            self.publish();
        }
    }

    fn stage(&mut self, buffer: u16) {
        let mask = self.count - 1;
        let place = usize::from(self.tail & mask);
        // SAFETY: `place` is below `count`. The kernel reads entries below the published tail
        // only, and this one is above: at most `count` buffers exist. The first entry's last
        // field is the tail itself, which the setters leave alone.
        let entry = unsafe { &mut *self.entries.start.cast::<BufRingEntry>().add(place) };
        entry.set_addr(self.memory.start as u64 + u64::from(buffer) * self.stride as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.provided += 1;
    }

    /// Lets the kernel see what was staged.
    fn publish(&self) {
        // SAFETY: the pointer is to the ring's first entry, which is initialized (zeroed).
        let tail = unsafe { BufRingEntry::tail(self.entries.start.cast()) };
        // SAFETY: the tail is an aligned u16 in the mapping that the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
