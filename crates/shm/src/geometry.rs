//! How many slots a ring has, how large they are, and where each thing lies in the shared memory.

use crate::error::ShmError;

/// Slots a ring has unless it is told otherwise.
pub const CAPACITY_DEFAULT: u32 = 256;
/// The largest message, in bytes, unless the ring is told otherwise.
pub const SLOT_SIZE_DEFAULT: u32 = 8 * 1024;
/// The most slots a ring may have.
pub const CAPACITY_MAX: u32 = 1 << 20;
/// The largest slot a ring may have, in bytes.
pub const SLOT_SIZE_MAX: u32 = 64 << 20;
/// The largest region that two rings and their header may take, in bytes. A side that connects
/// refuses to map more.
pub const REGION_SIZE_MAX: u64 = 4 << 30;

/// Cache lines come in pairs: the prefetcher of the next line makes neighbours of 64 bytes collide.
const INDEX_SPACING: usize = 128;
const INDICES: usize = 4;
/// Bytes before the first ring: the constants and the eight index words, each on its line.
pub(crate) const HEADER_SIZE: usize = 4096;
const CONSTANTS_SIZE: usize = 128;
pub(crate) const LINE: usize = 64;
/// The sequence word in front of each payload.
const WORD_SIZE: usize = 8;
/// Up to here a message follows its sequence word directly, in one or two cache lines.
const COMPACT_MAX: usize = 2 * LINE - WORD_SIZE;

// A length fits the 28 bits that the sequence word has for it.
const _: () = assert!(SLOT_SIZE_MAX < 1 << 28);
const _: () = assert!(CONSTANTS_SIZE + 2 * INDICES * INDEX_SPACING <= HEADER_SIZE);

/// The shape of a ring: its slots, and the bytes that each can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    capacity: u32,
    slot_size: u32,
}

/// The four words of a ring's header. Each is written by one side, and lies on a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Messages taken so far. Written by the consumer.
    Head = 0,
    /// Messages published so far. Written by the producer.
    Tail = 1,
    /// Whether the consumer sleeps or has closed.
    Consumer = 2,
    /// Whether the producer sleeps or has closed.
    Producer = 3,
}

impl Geometry {
    /// A ring of `capacity` slots (1 to [`CAPACITY_MAX`]) of `slot_size` bytes (1 to
    /// [`SLOT_SIZE_MAX`]).
    ///
    /// # Errors
    ///
    /// [`ShmError::Geometry`] when one of them is outside its limits, or when two such rings would
    /// take more than [`REGION_SIZE_MAX`].
    pub fn new(capacity: u32, slot_size: u32) -> Result<Self, ShmError> {
        let this = Self { capacity, slot_size };
        let fits = (1..=CAPACITY_MAX).contains(&capacity)
            && (1..=SLOT_SIZE_MAX).contains(&slot_size)
            && this.region_size() <= REGION_SIZE_MAX;
        if fits { Ok(this) } else { Err(ShmError::Geometry { capacity, slot_size }) }
    }

    /// A shape that is known to be within the limits.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub(crate) const fn standard(capacity: u32, slot_size: u32) -> Self {
        Self { capacity, slot_size }
    }

    /// Slots in the ring.
    pub fn capacity(self) -> u32 {
        self.capacity
    }

    /// The largest message, in bytes.
    pub fn slot_size(self) -> u32 {
        self.slot_size
    }

    /// Bytes from one slot to the next: whole cache lines.
    pub(crate) fn stride(self) -> usize {
        let payload = self.slot_size as usize;
        let offset = if payload > COMPACT_MAX { LINE } else { WORD_SIZE };
        (offset + payload).next_multiple_of(LINE)
    }

    /// Whether a payload may begin on the line after its sequence word.
    pub(crate) fn has_spread_slots(self) -> bool {
        self.slot_size as usize > COMPACT_MAX
    }

    /// Whether a message of `len` bytes begins on the line after its sequence word. Small ones
    /// share the line with it; large ones are copied faster from an aligned start.
    pub(crate) fn is_spread(self, len: usize) -> bool {
        len > COMPACT_MAX
    }

    fn ring_size(self) -> u64 {
        (u64::from(self.capacity) * self.stride() as u64).next_multiple_of(4096)
    }

    /// Bytes that two rings of this shape and their header take.
    pub fn region_size(self) -> u64 {
        HEADER_SIZE as u64 + 2 * self.ring_size()
    }
}

/// Where things lie in memory that is shared between processes.
#[cfg_attr(any(not(target_os = "linux"), loom), allow(dead_code, reason = "there is none here"))]
impl Geometry {
    /// Where in its slot a payload begins.
    pub(crate) fn payload_offset(spread: bool) -> usize {
        if spread { LINE } else { WORD_SIZE }
    }

    /// Where in the region the word `index` of ring `ring` (0 or 1) lies.
    pub(crate) fn index_offset(ring: usize, index: Index) -> usize {
        CONSTANTS_SIZE + (ring * INDICES + index as usize) * INDEX_SPACING
    }

    /// Where in the region the slots of ring `ring` (0 or 1) begin.
    pub(crate) fn slots_offset(self, ring: usize) -> usize {
        HEADER_SIZE + ring * self.ring_size() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_enforced() {
        assert!(Geometry::new(1, 1).is_ok());
        assert!(Geometry::new(0, 1).is_err());
        assert!(Geometry::new(1, 0).is_err());
        assert!(Geometry::new(CAPACITY_MAX + 1, 1).is_err());
        assert!(Geometry::new(1, SLOT_SIZE_MAX + 1).is_err());
        assert!(Geometry::new(CAPACITY_MAX, SLOT_SIZE_MAX).is_err());
    }

    #[test]
    fn slots_hold_what_they_promise() {
        for slot_size in [1, 8, 55, 56, 57, 64, 120, 121, 128, 4096, 65_536] {
            let geometry = Geometry::new(3, slot_size).unwrap();
            for len in 0..=slot_size as usize {
                let spread = geometry.is_spread(len);
                assert!(!spread || geometry.has_spread_slots());
                assert!(Geometry::payload_offset(spread) + len <= geometry.stride());
            }
            assert_eq!(geometry.stride() % LINE, 0);
        }
        assert_eq!(Geometry::new(1, 56).unwrap().stride(), LINE, "one line for a small message");
    }

    #[test]
    fn nothing_overlaps() {
        let geometry = Geometry::new(3, 100).unwrap();
        let last = Geometry::index_offset(1, Index::Producer) + INDEX_SPACING;
        assert!(last <= geometry.slots_offset(0));
        assert!(geometry.slots_offset(0) + 3 * geometry.stride() <= geometry.slots_offset(1));
        assert!(
            (geometry.slots_offset(1) + 3 * geometry.stride()) as u64 <= geometry.region_size()
        );
    }
}
