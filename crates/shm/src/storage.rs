//! What a ring needs of its memory: shared between processes, or in the heap for loom and miri.

use std::mem::MaybeUninit;

pub use std::sync::atomic::Ordering;

use crate::geometry::Geometry;
pub use crate::geometry::Index;

/// The memory of one ring, as one of its two sides sees it.
///
/// # Safety
///
/// An implementation gives atomic access to its words, and copies exactly the bytes it is asked to
/// copy, whatever another process writes into the memory meanwhile. It panics rather than touch
/// anything outside of the ring.
pub unsafe trait Storage {
    /// The shape of the ring, which never changes.
    fn geometry(&self) -> Geometry;

    /// Loads a word of the ring's header.
    fn load(&self, index: Index, order: Ordering) -> u64;

    /// Stores a word of the ring's header.
    fn store(&self, index: Index, value: u64, order: Ordering);

    /// Sets bits in a word of the ring's header, and gives what it was before.
    fn set(&self, index: Index, bits: u64, order: Ordering) -> u64;

    /// Clears bits in a word of the ring's header, and gives what it was before.
    fn clear(&self, index: Index, bits: u64, order: Ordering) -> u64;

    /// Loads the sequence word of a slot.
    fn load_slot(&self, slot: u32, order: Ordering) -> u64;

    /// Stores the sequence word of a slot.
    fn store_slot(&self, slot: u32, value: u64, order: Ordering);

    /// Copies `from` into the slot, `offset` bytes after the beginning of its payload.
    ///
    /// # Safety
    ///
    /// The slot belongs to the caller: no other thread of this process reads or writes it now.
    unsafe fn write(&self, slot: u32, spread: bool, offset: usize, from: &[u8]);

    /// Copies out of the slot, from `offset` bytes after the beginning of its payload, and fills
    /// `into`.
    ///
    /// # Safety
    ///
    /// The slot belongs to the caller: no other thread of this process writes it now.
    unsafe fn read(&self, slot: u32, spread: bool, offset: usize, into: &mut [MaybeUninit<u8>]);

    /// Where the payload of the slot begins, for use in place.
    fn payload(&self, slot: u32, spread: bool) -> *mut u8;

    /// Says that the slot will be written soon.
    #[inline]
    fn expect_write(&self, slot: u32) {
        let _ = slot;
    }

    /// Says that a word of the ring's header will be written soon.
    #[inline]
    fn expect_store(&self, index: Index) {
        let _ = index;
    }

    /// Says that the slot will be read soon.
    #[inline]
    fn expect_read(&self, slot: u32) {
        let _ = slot;
    }
}
