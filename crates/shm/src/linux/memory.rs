//! The memory that two processes share: a sealed memfd, mapped between guard pages.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::error::ShmError;
use crate::geometry::{Geometry, Index, LINE};
use crate::linux::copy::{from_shared, to_shared};
use crate::storage::Storage;

/// Unmapped bytes before and after the memory: an access that leaves it ends the process instead
/// of reading something else.
const GUARD_SIZE: usize = 64 * 1024;
/// Neither side can take the memory away under the other, nor add a seal that forbids writing.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A fresh, sealed region for two rings of this shape.
pub(crate) fn create(geometry: Geometry) -> Result<OwnedFd, ShmError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory =
        memfd_create("remuda-shm", flags).map_err(ShmError::system("create the shared memory"))?;
    ftruncate(&memory, geometry.region_size())
        .map_err(ShmError::system("size the shared memory"))?;
    fcntl_add_seals(&memory, SEALS).map_err(ShmError::system("seal the shared memory"))?;
    Ok(memory)
}

/// Checks that a region which a peer handed over has the size it should have, and can't lose it.
fn check(memory: BorrowedFd<'_>, geometry: Geometry) -> Result<(), ShmError> {
    let seals = fcntl_get_seals(memory)
        .map_err(|_| ShmError::BadOffer("its memory is no memfd that can be sealed"))?;
    if !seals.contains(SEALS) {
        return Err(ShmError::BadOffer("its memory is not sealed"));
    }
    let size = fstat(memory).map_err(ShmError::system("look at the shared memory"))?.st_size;
    if u64::try_from(size).ok() != Some(geometry.region_size()) {
        return Err(ShmError::BadOffer("its memory has another size than its rings"));
    }
    Ok(())
}

/// A mapping of the whole region, with guard pages on both sides.
#[derive(Debug)]
struct Mapping {
    reserved: *mut c_void,
    reserved_size: usize,
}

// SAFETY: the mapping belongs to no thread, and is only accessed through atomics and the copies of
// `copy`, which tolerate any concurrent access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(memory: BorrowedFd<'_>, size: usize, touch: bool) -> Result<Self, ShmError> {
        let reserved_size = size.next_multiple_of(GUARD_SIZE) + 2 * GUARD_SIZE;
        // SAFETY: the kernel picks the place.
        let reserved = unsafe {
            mmap_anonymous(null_mut(), reserved_size, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(ShmError::system("reserve addresses for the shared memory"))?;
        let this = Self { reserved, reserved_size };
        let populate = if touch { MapFlags::POPULATE } else { MapFlags::empty() };
        // SAFETY: it replaces a part of the reservation just made, which nothing else uses.
        unsafe {
            mmap(
                this.base().cast(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED | populate,
                memory,
                0,
            )
        }
        .map_err(ShmError::system("map the shared memory"))?;
        Ok(this)
    }

    fn base(&self) -> *mut u8 {
        // SAFETY: the reservation is longer than the guard in front.
        unsafe { self.reserved.cast::<u8>().add(GUARD_SIZE) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: whoever points into the mapping holds it.
        let unmapped = unsafe { munmap(self.reserved, self.reserved_size) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// One of the two rings in a mapped region.
#[derive(Debug)]
pub(crate) struct SharedRing {
    /// Keeps the memory mapped.
    _mapping: Arc<Mapping>,
    geometry: Geometry,
    stride: usize,
    indices: [*mut u64; 4],
    slots: *mut u8,
}

// SAFETY: it points into the mapping that it holds, which belongs to no thread.
unsafe impl Send for SharedRing {}
// SAFETY: all access goes through atomics and copies that tolerate other writers.
unsafe impl Sync for SharedRing {}

/// Maps the region and gives its two rings, each as often as it is needed: `[a2e, e2a]`.
///
/// `touch` brings all pages in at once.
pub(crate) fn map(
    memory: &OwnedFd,
    geometry: Geometry,
    touch: bool,
) -> Result<[SharedRing; 2], ShmError> {
    check(memory.as_fd(), geometry)?;
    let size = usize::try_from(geometry.region_size())
        .map_err(|_| ShmError::BadOffer("its memory is larger than the address space"))?;
    let mapping = Arc::new(Mapping::new(memory.as_fd(), size, touch)?);
    Ok([0, 1].map(|ring| SharedRing::new(Arc::clone(&mapping), geometry, ring)))
}

impl SharedRing {
    fn new(mapping: Arc<Mapping>, geometry: Geometry, ring: usize) -> Self {
        let base = mapping.base();
        let index = |index| {
            // SAFETY: `Geometry` lays the words out within the header, which is mapped.
            unsafe { base.add(Geometry::index_offset(ring, index)).cast() }
        };
        Self {
            geometry,
            stride: geometry.stride(),
            indices: [Index::Head, Index::Tail, Index::Consumer, Index::Producer].map(index),
            // SAFETY: `region_size`, which is mapped, covers both rings' slots.
            slots: unsafe { base.add(geometry.slots_offset(ring)) },
            _mapping: mapping,
        }
    }

    /// Notes which lines the next message to a consumer that sleeps will be written to.
    #[inline]
    pub(crate) fn note_lines(&self, slot: u32, lines: &NextLines) {
        let first = self.slot(slot);
        let indices = [Index::Tail, Index::Consumer].map(|index| self.indices[index as usize]);
        let of = [first, first.wrapping_add(LINE), indices[0].cast(), indices[1].cast()];
        for (line, note) in of.into_iter().zip(&lines.0) {
            note.store(line, Ordering::Relaxed);
        }
    }

    #[inline]
    fn index(&self, index: Index) -> &AtomicU64 {
        // SAFETY: the word is mapped as long as `self` lives, aligned, and accessed by atomics
        // alone on both sides.
        unsafe { AtomicU64::from_ptr(self.indices[index as usize]) }
    }

    #[inline]
    fn slot(&self, slot: u32) -> *mut u8 {
        assert!(slot < self.geometry.capacity(), "no such slot");
        // SAFETY: the slot is one of the `capacity` slots that are mapped.
        unsafe { self.slots.add(slot as usize * self.stride) }
    }

    #[inline]
    fn word(&self, slot: u32) -> &AtomicU64 {
        // SAFETY: a slot begins with its word, on a cache line of its own; see `index`.
        unsafe { AtomicU64::from_ptr(self.slot(slot).cast()) }
    }

    #[inline]
    fn bytes(&self, slot: u32, spread: bool, offset: usize, len: usize) -> *mut u8 {
        let start = Geometry::payload_offset(spread);
        let end = offset.checked_add(len).and_then(|end| end.checked_add(start));
        assert!(end.is_some_and(|end| end <= self.stride), "access past the end of a slot");
        // SAFETY: just checked to lie within the slot.
        unsafe { self.slot(slot).add(start + offset) }
    }
}

// SAFETY: words are atomics in the mapping; copies go through `copy`, after a check that they
// stay within their slot.
unsafe impl Storage for SharedRing {
    #[inline]
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    #[inline]
    fn load(&self, index: Index, order: Ordering) -> u64 {
        self.index(index).load(order)
    }

    #[inline]
    fn store(&self, index: Index, value: u64, order: Ordering) {
        self.index(index).store(value, order);
    }

    #[inline]
    fn set(&self, index: Index, bits: u64, order: Ordering) -> u64 {
        self.index(index).fetch_or(bits, order)
    }

    #[inline]
    fn clear(&self, index: Index, bits: u64, order: Ordering) -> u64 {
        self.index(index).fetch_and(!bits, order)
    }

    #[inline]
    fn load_slot(&self, slot: u32, order: Ordering) -> u64 {
        self.word(slot).load(order)
    }

    #[inline]
    fn store_slot(&self, slot: u32, value: u64, order: Ordering) {
        self.word(slot).store(value, order);
    }

    #[inline]
    unsafe fn write(&self, slot: u32, spread: bool, offset: usize, from: &[u8]) {
        let to = self.bytes(slot, spread, offset, from.len());
        // SAFETY: `bytes` gave the address of so many mapped bytes.
        unsafe { to_shared(to, from) }
    }

    #[inline]
    unsafe fn read(&self, slot: u32, spread: bool, offset: usize, into: &mut [MaybeUninit<u8>]) {
        let from = self.bytes(slot, spread, offset, into.len());
        // SAFETY: as in `write`.
        unsafe { from_shared(into, from) }
    }

    fn payload(&self, slot: u32, spread: bool) -> *mut u8 {
        self.bytes(slot, spread, 0, 0)
    }

    #[inline]
    fn expect_write(&self, slot: u32) {
        let slot = self.slot(slot);
        prefetch_write(slot);
        if self.stride > LINE {
            prefetch_write(slot.wrapping_add(LINE));
        }
    }

    #[inline]
    fn expect_store(&self, index: Index) {
        prefetch_write(self.indices[index as usize].cast());
    }

    #[inline]
    fn expect_read(&self, slot: u32) {
        let slot = self.slot(slot);
        prefetch_read(slot);
        if self.stride > LINE {
            prefetch_read(slot.wrapping_add(LINE));
        }
    }
}

/// The lines that the next message will be written to. Who wakes up to take a message fetches them
/// while that one travels: it will mostly send an answer.
#[derive(Debug, Default)]
pub(crate) struct NextLines([AtomicPtr<u8>; 4]);

impl NextLines {
    #[inline]
    pub(crate) fn fetch(&self) {
        self.0.iter().for_each(|line| prefetch_write(line.load(Ordering::Relaxed)));
    }
}

#[inline]
fn prefetch_write(line: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address has no effect that a program can see.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[inline]
fn prefetch_read(line: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address has no effect that a program can see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
