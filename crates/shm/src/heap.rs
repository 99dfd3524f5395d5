//! A ring in the heap of one process: what loom, miri and the model test drive.

use std::mem::MaybeUninit;

use crate::error::ShmError;
use crate::geometry::{Geometry, Index};
use crate::ring::{Consumer, Producer};
use crate::storage::{Ordering, Storage};
use crate::sync::{Arc, AtomicU64, UnsafeCell};

/// Storage in the heap, shared by a producer and a consumer of one process.
#[derive(Clone, Debug)]
pub struct Heap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    geometry: Geometry,
    indices: [AtomicU64; 4],
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    word: AtomicU64,
    payload: UnsafeCell<Box<[u8]>>,
}

// SAFETY: all access to a payload goes through `Storage::read` and `Storage::write`, whose callers
// promise that the slot is theirs.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it is tied to a thread.
unsafe impl Send for Shared {}

/// A ring of `capacity` slots of `slot_size` bytes in the heap.
///
/// # Errors
///
/// [`ShmError::Geometry`] when capacity or slot size is outside its limits.
///
/// ```
/// let (mut producer, mut consumer) = remuda_shm::ring::heap(4, 64)?;
/// producer.push(b"one").unwrap();
/// let mut message = Vec::new();
/// assert!(consumer.pop(&mut message)?.is_some());
/// assert_eq!(message, b"one");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn heap(capacity: u32, slot_size: u32) -> Result<(Producer<Heap>, Consumer<Heap>), ShmError> {
    let geometry = Geometry::new(capacity, slot_size)?;
    let slot = || Slot {
        word: AtomicU64::new(0),
        payload: UnsafeCell::new(vec![0; slot_size as usize].into_boxed_slice()),
    };
    let heap = Heap {
        shared: Arc::new(Shared {
            geometry,
            indices: [const { 0 }; 4].map(AtomicU64::new),
            slots: (0..capacity).map(|_| slot()).collect(),
        }),
    };
    // SAFETY: the storage is fresh, and this producer and this consumer are its only ones.
    unsafe { Ok((Producer::new(heap.clone()), Consumer::new(heap))) }
}

// SAFETY: words are atomics, and slices are indexed with bounds checks.
unsafe impl Storage for Heap {
    fn geometry(&self) -> Geometry {
        self.shared.geometry
    }

    fn load(&self, index: Index, order: Ordering) -> u64 {
        self.shared.indices[index as usize].load(order)
    }

    fn store(&self, index: Index, value: u64, order: Ordering) {
        self.shared.indices[index as usize].store(value, order);
    }

    fn set(&self, index: Index, bits: u64, order: Ordering) -> u64 {
        self.shared.indices[index as usize].fetch_or(bits, order)
    }

    fn clear(&self, index: Index, bits: u64, order: Ordering) -> u64 {
        self.shared.indices[index as usize].fetch_and(!bits, order)
    }

    fn load_slot(&self, slot: u32, order: Ordering) -> u64 {
        self.shared.slots[slot as usize].word.load(order)
    }

    fn store_slot(&self, slot: u32, value: u64, order: Ordering) {
        self.shared.slots[slot as usize].word.store(value, order);
    }

    unsafe fn write(&self, slot: u32, _spread: bool, offset: usize, from: &[u8]) {
        self.shared.slots[slot as usize].payload.with_mut(|payload| {
            // SAFETY: the caller promises that nobody else touches this slot now.
            let payload = unsafe { &mut *payload };
            payload[offset..offset + from.len()].copy_from_slice(from);
        });
    }

    unsafe fn read(&self, slot: u32, _spread: bool, offset: usize, into: &mut [MaybeUninit<u8>]) {
        self.shared.slots[slot as usize].payload.with(|payload| {
            // SAFETY: the caller promises that nobody writes this slot now.
            let payload = unsafe { &*payload };
            into.write_copy_of_slice(&payload[offset..offset + into.len()]);
        });
    }

    fn payload(&self, slot: u32, _spread: bool) -> *mut u8 {
        self.shared.slots[slot as usize].payload.with_mut(|payload| {
            // SAFETY: only the pointer to the boxed bytes is taken; the box itself never moves
            // while the storage lives.
            unsafe { (*payload).as_mut_ptr() }
        })
    }
}
