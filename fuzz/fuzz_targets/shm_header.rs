//! A ring whose every word reads as the input says: nothing outside of a slot is ever asked for,
//! and a lie is an error.
#![no_main]

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use remuda_shm::Geometry;
use remuda_shm::ring::{Consumer, Index, Ordering, Producer, Storage};

/// Memory that a peer has all to itself.
#[derive(Clone)]
struct Liar {
    geometry: Geometry,
    words: Rc<RefCell<Vec<u64>>>,
    /// Where a payload pointer would lead; never followed here.
    nowhere: Rc<Cell<u8>>,
}

impl Liar {
    fn word(&self) -> u64 {
        self.words.borrow_mut().pop().unwrap_or(0)
    }

    fn check(&self, slot: u32, spread: bool, offset: usize, len: usize) {
        assert!(slot < self.geometry.capacity());
        assert!(!spread || self.geometry.slot_size() > 120, "a small slot has no second line");
        assert!(spread || offset + len <= 120, "a small message ends with its second line");
        assert!(offset + len <= self.geometry.slot_size() as usize);
    }
}

// SAFETY: no memory is accessed at all; what is asked for is checked.
unsafe impl Storage for Liar {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn load(&self, _index: Index, _order: Ordering) -> u64 {
        self.word()
    }

    fn store(&self, _index: Index, _value: u64, _order: Ordering) {}

    fn set(&self, _index: Index, _bits: u64, _order: Ordering) -> u64 {
        self.word()
    }

    fn clear(&self, _index: Index, _bits: u64, _order: Ordering) -> u64 {
        self.word()
    }

    fn load_slot(&self, slot: u32, _order: Ordering) -> u64 {
        self.check(slot, false, 0, 0);
        self.word()
    }

    fn store_slot(&self, slot: u32, _value: u64, _order: Ordering) {
        self.check(slot, false, 0, 0);
    }

    unsafe fn write(&self, slot: u32, spread: bool, offset: usize, from: &[u8]) {
        self.check(slot, spread, offset, from.len());
    }

    unsafe fn read(&self, slot: u32, spread: bool, offset: usize, into: &mut [MaybeUninit<u8>]) {
        self.check(slot, spread, offset, into.len());
        into.fill(MaybeUninit::new(7));
    }

    fn payload(&self, slot: u32, spread: bool) -> *mut u8 {
        self.check(slot, spread, 0, 0);
        self.nowhere.as_ptr()
    }
}

fuzz_target!(|input: (u8, u8, Vec<u8>, Vec<u64>)| {
    let (capacity, slot_size, steps, words) = input;
    let Ok(geometry) = Geometry::new(capacity.into(), slot_size.into()) else { return };
    let words = Rc::new(RefCell::new(words));
    let liar = Liar { geometry, words, nowhere: Rc::default() };
    // SAFETY: the only producer and the only consumer of this storage.
    let (mut producer, mut consumer) =
        unsafe { (Producer::new(liar.clone()), Consumer::new(liar)) };
    let message = [0; 255];
    for step in steps {
        let len = (step >> 3).into();
        match step & 7 {
            0 => drop(producer.push(&message[..len])),
            1 => drop(producer.park()),
            2 if len <= slot_size.into() && producer.room().is_ok_and(|room| room > 0) => {
                producer.stage(&message[..len]);
            }
            2 => _ = producer.publish(),
            3 => {
                if let Ok(slot) = producer.reserve(len) {
                    slot.commit(len);
                }
            }
            4 => drop(consumer.pop(&mut Vec::new())),
            5 => drop(consumer.park()),
            6 => drop(consumer.look_closely()),
            _ => _ = consumer.release(),
        }
    }
});
