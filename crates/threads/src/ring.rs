//! The upward queue of one worker: a bounded ring with one producer and one consumer.
//!
//! The scheme is Lamport's ("Specifying concurrent program modules", 1983) with each side keeping
//! a copy of the other's position, which it renews only when the copy says full or empty. Positions
//! count messages from the start and never wrap to the ring's length, so a burst can be bounded
//! by one.

use std::cell::Cell;
use std::mem::MaybeUninit;

use crate::sleeper::Sleeper;
use crate::sync::{
    Arc, AtomicBool, AtomicUsize, Ordering, Padded, UnsafeCell, fence, load_fenced, store_fenced,
};

/// A ring of `capacity` messages, at least 1.
pub(crate) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1);
    let slots =
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        slots,
        capacity,
        consumer_gone: AtomicBool::new(false),
        producer_gone: AtomicBool::new(false),
        space: Sleeper::new(),
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
    });
    let producer = Producer {
        shared: Arc::clone(&shared),
        tail: Cell::new(0),
        head_seen: Cell::new(0),
        closed: Cell::new(false),
    };
    let consumer = Consumer {
        shared,
        head: Cell::new(0),
        tail_seen: Cell::new(0),
        head_published: Cell::new(0),
    };
    (producer, consumer)
}

struct Shared<T> {
    /// A power of two of them, so that a mask finds the slot of a position.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    capacity: usize,
    consumer_gone: AtomicBool,
    producer_gone: AtomicBool,
    /// Where the producer waits for space.
    space: Sleeper,
    /// The position of the first message that wasn't taken.
    head: Padded<AtomicUsize>,
    /// The position behind the last message.
    tail: Padded<AtomicUsize>,
}

// SAFETY: a slot is accessed by the producer alone outside of head..tail, and by the consumer
// alone within; the positions are handed over with Release and Acquire. Values move between the
// two threads, hence `T: Send`; no reference to one is shared.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: all slots between head and tail are initialized, and both ends are gone.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// Why a message wasn't pushed; it comes back.
#[derive(Debug)]
pub(crate) enum PushError<T> {
    Full(T),
    Closed(T),
}

/// The worker's end.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: Cell<usize>,
    head_seen: Cell<usize>,
    closed: Cell<bool>,
}

impl<T> Producer<T> {
    /// Puts a message at the end, as one store that [`Sleeper::wake`] may follow.
    #[inline]
    pub(crate) fn push(&self, message: T) -> Result<(), PushError<T>> {
        let shared = &*self.shared;
        if self.closed.get() || shared.consumer_gone.load(Ordering::Acquire) {
            return Err(PushError::Closed(message));
        }
        let tail = self.tail.get();
        if tail.wrapping_sub(self.head_seen.get()) >= shared.capacity {
            self.head_seen.set(shared.head.load(Ordering::Acquire));
            if tail.wrapping_sub(self.head_seen.get()) >= shared.capacity {
                return Err(PushError::Full(message));
            }
        }
        // SAFETY: the position is outside of head..tail, so the consumer doesn't touch the slot.
        shared.slot(tail).with_mut(|slot| unsafe { (*slot).write(message) });
        self.tail.set(tail.wrapping_add(1));
        store_fenced(&shared.tail, tail.wrapping_add(1));
        Ok(())
    }

    /// Whether [`push`](Self::push) would not give `Full`.
    pub(crate) fn has_space(&self) -> bool {
        let used = self.tail.get().wrapping_sub(load_fenced(&self.shared.head));
        used < self.shared.capacity || self.is_cut_off()
    }

    /// Whether there is space for some more to come at once: each look at the consumer's position
    /// takes that line away from it.
    pub(crate) fn has_much_space(&self) -> bool {
        let used = self.tail.get().wrapping_sub(load_fenced(&self.shared.head));
        used <= self.shared.capacity - self.shared.capacity.div_ceil(4) || self.is_cut_off()
    }

    /// Whether every message was taken, or the consumer is gone.
    pub(crate) fn is_emptied(&self) -> bool {
        self.tail.get() == load_fenced(&self.shared.head) || self.is_cut_off()
    }

    fn is_cut_off(&self) -> bool {
        self.shared.consumer_gone.load(Ordering::SeqCst)
    }

    /// Whether messages are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get() || self.is_cut_off()
    }

    /// Where to wait for space.
    pub(crate) fn space(&self) -> &Sleeper {
        &self.shared.space
    }

    /// No message follows, whatever is still pushed. The consumer's sleeper may be woken next.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.shared.producer_gone.store(true, Ordering::Release);
        fence();
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The manager's end.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: Cell<usize>,
    tail_seen: Cell<usize>,
    head_published: Cell<usize>,
}

impl<T> Consumer<T> {
    /// Takes the first message. Its slot is the producer's again after
    /// [`release`](Self::release).
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        if self.head.get() == self.tail_seen.get() {
            self.tail_seen.set(self.shared.tail.load(Ordering::Acquire));
        }
        self.pop_seen()
    }

    /// As [`pop`](Self::pop), if the message was there already when the tail was last looked at.
    ///
    /// Each look takes the tail's line away from the producer. Who has other queues to read looks
    /// there first, and finds more here afterwards.
    #[inline]
    pub(crate) fn pop_seen(&self) -> Option<T> {
        let head = self.head.get();
        if head == self.tail_seen.get() {
            return None;
        }
        // SAFETY: the slot is between head and tail, so it's initialized, and the producer
        // doesn't touch it until the head that is published has passed it.
        let message = self.shared.slot(head).with(|slot| unsafe { (*slot).assume_init_read() });
        self.head.set(head.wrapping_add(1));
        Some(message)
    }

    /// How many messages were there at the last look and were not taken yet.
    #[inline]
    pub(crate) fn seen(&self) -> usize {
        self.tail_seen.get().wrapping_sub(self.head.get())
    }

    /// Gives the slots of the messages taken back to the producer, and wakes it if it waits.
    #[inline]
    pub(crate) fn release(&self) {
        let head = self.head.get();
        if head != self.head_published.get() {
            self.head_published.set(head);
            store_fenced(&self.shared.head, head);
            self.shared.space.wake();
        }
    }

    /// The position of the next message to be taken.
    pub(crate) fn head(&self) -> usize {
        self.head.get()
    }

    /// The position behind the last message that was pushed before this call.
    pub(crate) fn tail(&self) -> usize {
        load_fenced(&self.shared.tail)
    }

    /// Whether no message will follow. Those before can still be there: look again.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.producer_gone.load(Ordering::SeqCst)
    }

    /// The producer's messages are refused from now on.
    pub(crate) fn close(&self) {
        self.shared.consumer_gone.store(true, Ordering::Release);
        fence();
        self.shared.space.wake();
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.release();
        self.close();
    }
}
