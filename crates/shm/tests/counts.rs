//! What a batch costs: looks at the consumer's index, stores of the tail, wake-ups.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(unsafe_code, reason = "storage is an unsafe trait")]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::rc::Rc;

use remuda_shm::Geometry;
use remuda_shm::ring::{Consumer, Index, Ordering, Producer, PushError, Storage};

/// Storage of one thread that counts.
#[derive(Clone)]
struct Counting(Rc<Counted>);

struct Counted {
    geometry: Geometry,
    indices: [Cell<u64>; 4],
    slots: Vec<Cell<u64>>,
    head_loads: Cell<u32>,
    tail_stores: Cell<u32>,
    visible_stores: Cell<u32>,
}

// SAFETY: it keeps words only, and copies nothing; each message reads as zeros.
unsafe impl Storage for Counting {
    fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    fn load(&self, index: Index, order: Ordering) -> u64 {
        if index == Index::Head {
            assert_eq!(order, Ordering::Acquire);
            self.0.head_loads.set(self.0.head_loads.get() + 1);
        }
        self.0.indices[index as usize].get()
    }

    fn store(&self, index: Index, value: u64, order: Ordering) {
        if index == Index::Tail {
            assert_eq!(order, Ordering::Release);
            self.0.tail_stores.set(self.0.tail_stores.get() + 1);
        }
        self.0.indices[index as usize].set(value);
    }

    fn set(&self, index: Index, bits: u64, _order: Ordering) -> u64 {
        let word = &self.0.indices[index as usize];
        word.replace(word.get() | bits)
    }

    fn clear(&self, index: Index, bits: u64, _order: Ordering) -> u64 {
        let word = &self.0.indices[index as usize];
        word.replace(word.get() & !bits)
    }

    fn load_slot(&self, slot: u32, _order: Ordering) -> u64 {
        self.0.slots[slot as usize].get()
    }

    fn store_slot(&self, slot: u32, value: u64, order: Ordering) {
        if order == Ordering::Release {
            self.0.visible_stores.set(self.0.visible_stores.get() + 1);
        }
        self.0.slots[slot as usize].set(value);
    }

    unsafe fn write(&self, _slot: u32, _spread: bool, _offset: usize, _from: &[u8]) {}

    unsafe fn read(&self, _: u32, _: bool, _: usize, into: &mut [MaybeUninit<u8>]) {
        into.fill(MaybeUninit::new(0));
    }

    fn payload(&self, _slot: u32, _spread: bool) -> *mut u8 {
        std::ptr::null_mut()
    }
}

impl Counting {
    /// Head loads, tail stores and stores that make messages visible since the last call.
    fn take(&self) -> (u32, u32, u32) {
        (self.0.head_loads.take(), self.0.tail_stores.take(), self.0.visible_stores.take())
    }
}

fn ring(capacity: u32) -> (Producer<Counting>, Consumer<Counting>, Counting) {
    let storage = Counting(Rc::new(Counted {
        geometry: Geometry::new(capacity, 8).unwrap(),
        indices: Default::default(),
        slots: (0..capacity).map(|_| Cell::new(0)).collect(),
        head_loads: Cell::new(0),
        tail_stores: Cell::new(0),
        visible_stores: Cell::new(0),
    }));
    // SAFETY: the only producer and the only consumer of this storage.
    let (producer, consumer) =
        unsafe { (Producer::new(storage.clone()), Consumer::new(storage.clone())) };
    (producer, consumer, storage)
}

#[test]
fn a_batch_that_fits_is_one_tail_store_and_no_head_load() {
    let (mut producer, mut consumer, counts) = ring(64);
    assert_eq!(producer.push_batch(&[b"x"; 16]).unwrap(), (16, false));
    assert_eq!(counts.take(), (0, 1, 1));
    for _ in 0..16 {
        assert_eq!(producer.push(b"x"), Ok(false));
    }
    assert_eq!(counts.take(), (0, 16, 16), "one by one it is sixteen");
    for _ in 0..32 {
        assert!(consumer.pop(&mut Vec::new()).unwrap().is_some());
    }
}

#[test]
fn the_head_is_loaded_once_for_each_time_the_ring_seems_full() {
    let (mut producer, mut consumer, counts) = ring(16);
    assert_eq!(producer.push_batch(&[b"x"; 20]).unwrap().0, 16);
    assert_eq!(counts.take(), (1, 1, 1), "full: one look, one run");
    for _ in 0..16 {
        consumer.pop(&mut Vec::new()).unwrap();
    }
    assert_eq!(producer.push_batch(&[b"x"; 16]).unwrap().0, 16);
    assert_eq!(counts.take(), (1, 1, 1), "it seemed full: one look for sixteen messages");
    assert_eq!(producer.push(b"x"), Err(PushError::Full));
    assert_eq!(counts.take(), (1, 0, 0));
}

#[test]
fn a_sleeping_consumer_is_woken_once_a_run() {
    let (mut producer, mut consumer, _) = ring(16);
    assert!(!consumer.park().unwrap());
    assert_eq!(producer.push_batch(&[b"x"; 16]).unwrap(), (16, true));
    assert_eq!(producer.push_batch(&[b"x"; 4]).unwrap(), (0, false));
    consumer.unpark();
    for _ in 0..16 {
        consumer.pop(&mut Vec::new()).unwrap();
    }
    assert_eq!(producer.push_batch(&[b"x"; 4]).unwrap(), (4, false), "it is awake");
}

#[test]
fn nothing_of_a_run_is_seen_before_all_of_it_is_written() {
    let (mut producer, consumer, _) = ring(4);
    for _ in 0..4 {
        assert!(producer.room().unwrap() > 0);
        producer.stage(b"x");
        assert_eq!(consumer.look().unwrap(), None);
    }
    producer.publish();
    assert!(consumer.look().unwrap().is_some());
}

#[test]
fn a_consumer_that_slept_is_woken_ahead_once_and_again_only_if_it_slept_again() {
    let (mut producer, mut consumer, _) = ring(16);
    let take = |consumer: &mut Consumer<Counting>| {
        assert!(consumer.pop(&mut Vec::new()).unwrap().is_some());
        assert!(!consumer.park().unwrap(), "nothing is left");
    };
    assert!(!consumer.park().unwrap());
    assert!(!producer.wake_ahead(), "nothing says yet that it sleeps at each message");
    assert_eq!(producer.push(b"x"), Ok(true));
    take(&mut consumer);
    assert!(producer.wake_ahead());
    assert!(!producer.wake_ahead(), "it was woken already");
    assert_eq!(producer.push(b"x"), Ok(false));
    take(&mut consumer);
    assert!(producer.wake_ahead(), "it was worth while");
    assert!(!consumer.park().unwrap());
    assert_eq!(producer.push(b"x"), Ok(true), "it slept again before the message was there");
    take(&mut consumer);
    assert!(!producer.wake_ahead(), "which was in vain, and is not tried at once");
    assert_eq!(producer.push(b"x"), Ok(true));
}
