//! What the machine allows: bytes copied into memory on one core and out of it on another, by
//! `memcpy` and two counters, with every byte read. Nothing is checked and nobody sleeps.
#![allow(unsafe_code, reason = "no safe copy goes to memory that another thread holds")]

use std::hint::{black_box, spin_loop};
use std::ptr::copy_nonoverlapping;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::child::{pin, sum};

/// Messages that fit.
const SLOTS: u64 = 16;

/// A counter on cache lines of its own.
#[repr(align(128))]
struct Count(AtomicU64);

#[derive(Clone, Copy)]
struct Slots(*mut u8, usize);

// SAFETY: the counters hand each slot from one thread to the other.
unsafe impl Send for Slots {}

impl Slots {
    fn at(self, message: u64) -> *mut u8 {
        // SAFETY: the memory has `SLOTS` slots of that size.
        unsafe { self.0.add((message % SLOTS) as usize * self.1) }
    }
}

fn wait(counter: &Count, at_least: u64) {
    while counter.0.load(Ordering::Acquire) < at_least {
        spin_loop();
    }
}

/// GB/s of `count` messages of `size` bytes.
pub(crate) fn copies(size: usize, count: u64) -> f64 {
    let mut memory = vec![1_u8; size * SLOTS as usize];
    let slots = Slots(memory.as_mut_ptr(), size);
    let (written, taken) = (&Count(AtomicU64::new(0)), &Count(AtomicU64::new(0)));
    let begun = thread::scope(|scope| {
        scope.spawn(move || {
            pin(0);
            let mut into = vec![0_u8; size];
            for message in 0..count {
                wait(written, message + 1);
                // SAFETY: the slot has been written, and is not written again before it is taken.
                unsafe { copy_nonoverlapping(slots.at(message), into.as_mut_ptr(), size) };
                taken.0.store(message + 1, Ordering::Release);
                black_box(sum(&into));
            }
        });
        scope
            .spawn(move || {
                pin(1);
                let from = vec![7_u8; size];
                let begun = Instant::now();
                for message in 0..count {
                    wait(taken, (message + 1).saturating_sub(SLOTS));
                    // SAFETY: the slot was taken, or never written.
                    unsafe { copy_nonoverlapping(from.as_ptr(), slots.at(message), size) };
                    written.0.store(message + 1, Ordering::Release);
                }
                wait(taken, count);
                begun
            })
            .join()
            .unwrap()
    });
    (count * size as u64) as f64 / begun.elapsed().as_secs_f64() / 1e9
}
