//! Buffers that the kernel fills as it likes.

use std::io::{Error, Result};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

pub const GROUP: u16 = 0;
const COUNT: u16 = 1024;
/// What the pool's own hold.
const BYTES: usize = 16 << 10;

/// Never freed, since the program ends by being killed.
pub struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    pub fn new(uring: &IoUring) -> Result<Self> {
        let entries = map(usize::from(COUNT) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(COUNT) * BYTES)?;
        let (ring, submitter) = (entries as u64, uring.submitter());
        // SAFETY: page-aligned zeroed memory for so many entries, which is never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(ring, COUNT, GROUP, 0) }?;
        let mut buffers = Self { entries, memory, tail: 0 };
        (0..COUNT).for_each(|buffer| buffers.give(buffer));
        Ok(buffers)
    }

    fn start(&self, buffer: u16) -> *mut u8 {
        self.memory.wrapping_add(usize::from(buffer) * BYTES)
    }

    /// What the kernel wrote into one that it doesn't have meanwhile.
    pub fn filled(&self, buffer: u16, len: usize) -> &[u8] {
        // SAFETY: inside of the memory, and the kernel writes into it only after it was given back.
        unsafe { std::slice::from_raw_parts(self.start(buffer), len) }
    }

    /// Gives one to the kernel.
    pub fn give(&mut self, buffer: u16) {
        let address = self.start(buffer) as u64;
        // SAFETY: the place is inside of the ring, and above the tail that the kernel knows.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % COUNT)) };
        entry.set_addr(address);
        entry.set_len(BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the ring's first entry, whose tail is an aligned u16.
        unsafe {
            let tail = BufRingEntry::tail(self.entries);
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}

fn map(len: usize) -> Result<*mut u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(memory.cast()) }
}
