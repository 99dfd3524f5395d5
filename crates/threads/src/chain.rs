//! The downward queue of one worker: unbounded, with one producer and one consumer.
//!
//! A chain of blocks. The consumer hands each block that it has read back to the producer, so a
//! queue in steady use allocates nothing.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;

use crate::sleeper::Sleeper;
use crate::sync::{
    Arc, AtomicBool, AtomicPtr, AtomicUsize, Ordering, Padded, UnsafeCell, fence, load_fenced,
    store_fenced,
};

/// Messages in a block.
#[cfg(not(any(loom, miri)))]
const BLOCK_LENGTH: usize = 64;
/// Short enough that the models reach the next block.
#[cfg(any(loom, miri))]
const BLOCK_LENGTH: usize = 2;

pub(crate) fn chain<T>() -> (Producer<T>, Consumer<T>) {
    let block = Block::allocate();
    let shared = Arc::new(Shared {
        consumer_gone: AtomicBool::new(false),
        producer_gone: AtomicBool::new(false),
        arrival: Sleeper::new(),
        tail: Padded(AtomicUsize::new(0)),
        spare: Padded(AtomicPtr::new(ptr::null_mut())),
        first: UnsafeCell::new((block, 0)),
    });
    let producer =
        Producer { shared: Arc::clone(&shared), block: Cell::new(block), tail: Cell::new(0) };
    let consumer =
        Consumer { shared, block: Cell::new(block), head: Cell::new(0), tail_seen: Cell::new(0) };
    (producer, consumer)
}

struct Block<T> {
    slots: [UnsafeCell<MaybeUninit<T>>; BLOCK_LENGTH],
    next: AtomicPtr<Block<T>>,
}

impl<T> Block<T> {
    fn allocate() -> *mut Self {
        Box::into_raw(Box::new(Self {
            slots: std::array::from_fn(|_| UnsafeCell::new(MaybeUninit::uninit())),
            next: AtomicPtr::new(ptr::null_mut()),
        }))
    }
}

struct Shared<T> {
    consumer_gone: AtomicBool,
    producer_gone: AtomicBool,
    /// Where the consumer waits for a message.
    arrival: Sleeper,
    /// The position behind the last message, counted from the start.
    tail: Padded<AtomicUsize>,
    /// A block that was read to its end.
    spare: Padded<AtomicPtr<Block<T>>>,
    /// The first block that isn't spare, and the position of the first message in the chain, left
    /// here by the consumer when it goes.
    first: UnsafeCell<(*mut Block<T>, usize)>,
}

// SAFETY: a slot is written by the producer before the tail passes it, and read by the consumer
// after; a block is the producer's again once it was taken out of `spare`. `first` is the
// consumer's alone until both ends are gone. Values move between two threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; nothing in it is tied to a thread.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed);
        // SAFETY: both ends are gone.
        let (mut block, mut head) = self.first.with(|first| unsafe { *first });
        while head != tail {
            block = enter(block, head, |spent| {
                // SAFETY: all its messages were dropped, and no end is left to use it.
                drop(unsafe { Box::from_raw(spent) });
            });
            // SAFETY: `enter` gives the block that holds the position; messages between head and
            // tail are initialized.
            unsafe {
                (&(*block).slots)[head % BLOCK_LENGTH].with_mut(|slot| (*slot).assume_init_drop());
            }
            head = head.wrapping_add(1);
        }
        let spare = self.spare.load(Ordering::Relaxed);
        while !block.is_null() {
            // SAFETY: the chain's blocks are owned by it alone, and each is freed once.
            block = unsafe { Box::from_raw(block) }.next.load(Ordering::Relaxed);
        }
        if !spare.is_null() {
            // SAFETY: a spare block was taken out of the chain, so the loop hasn't freed it.
            drop(unsafe { Box::from_raw(spare) });
        }
    }
}

/// The block of the message at `head`, which was published: the next one, if `head` is the first
/// position of a block; `spent` gets the one before.
fn enter<T>(block: *mut Block<T>, head: usize, spent: impl FnOnce(*mut Block<T>)) -> *mut Block<T> {
    if head == 0 || !head.is_multiple_of(BLOCK_LENGTH) {
        return block;
    }
    // SAFETY: the consumer's block lives until it's spent. The producer linked the next one
    // before it published the position.
    let next = unsafe { (*block).next.load(Ordering::Acquire) };
    spent(block);
    next
}

/// The manager's end.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    block: Cell<*mut Block<T>>,
    tail: Cell<usize>,
}

// SAFETY: the block pointers belong to the chain, which is made for two threads; `Cell` keeps it
// from being shared.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T> Producer<T> {
    /// Puts a message at the end and wakes the consumer; gives it back if that is gone.
    #[inline]
    pub(crate) fn push(&self, message: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(message);
        }
        let tail = self.tail.get();
        if tail != 0 && tail.is_multiple_of(BLOCK_LENGTH) {
            self.extend();
        }
        // SAFETY: the block is the last of the chain, and the consumer doesn't touch the slot
        // before the tail passes it.
        unsafe {
            (&(*self.block.get()).slots)[tail % BLOCK_LENGTH]
                .with_mut(|slot| (*slot).write(message));
        }
        self.tail.set(tail.wrapping_add(1));
        store_fenced(&self.shared.tail, tail.wrapping_add(1));
        self.shared.arrival.wake();
        Ok(())
    }

    #[cold]
    fn extend(&self) {
        let spare = self.shared.spare.swap(ptr::null_mut(), Ordering::Acquire);
        let block = if spare.is_null() { Block::allocate() } else { spare };
        // SAFETY: a block lives until the consumer has passed on to the next one, which isn't
        // there yet; a spare one is the producer's alone once it's taken.
        unsafe {
            (*block).next.store(ptr::null_mut(), Ordering::Relaxed);
            (*self.block.get()).next.store(block, Ordering::Release);
        }
        self.block.set(block);
    }

    /// Whether the consumer refuses messages.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.consumer_gone.load(Ordering::Acquire)
    }

    /// Whether this end was closed.
    pub(crate) fn was_ended(&self) -> bool {
        self.shared.producer_gone.load(Ordering::Relaxed)
    }

    /// No message follows: the consumer, once it has read those before, is told so.
    pub(crate) fn close(&self) {
        self.shared.producer_gone.store(true, Ordering::Release);
        fence();
        self.shared.arrival.wake();
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The worker's end.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    block: Cell<*mut Block<T>>,
    head: Cell<usize>,
    tail_seen: Cell<usize>,
}

// SAFETY: as the producer's.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T> Consumer<T> {
    /// Takes the first message.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        let head = self.head.get();
        if head == self.tail_seen.get() {
            self.tail_seen.set(self.shared.tail.load(Ordering::Acquire));
            if head == self.tail_seen.get() {
                return None;
            }
        }
        self.block.set(enter(self.block.get(), head, |spent| self.give_back(spent)));
        // SAFETY: the message at head was published, so its slot is initialized, and the producer
        // doesn't touch it again.
        let message = unsafe {
            (&(*self.block.get()).slots)[head % BLOCK_LENGTH]
                .with(|slot| (*slot).assume_init_read())
        };
        self.head.set(head.wrapping_add(1));
        Some(message)
    }

    /// How many messages were there at the last look and were not taken yet.
    pub(crate) fn seen(&self) -> usize {
        self.tail_seen.get().wrapping_sub(self.head.get())
    }

    #[cold]
    fn give_back(&self, block: *mut Block<T>) {
        let second = self.shared.spare.swap(block, Ordering::AcqRel);
        if !second.is_null() {
            // SAFETY: what was in `spare` was spent, and the producer didn't take it.
            drop(unsafe { Box::from_raw(second) });
        }
    }

    /// Whether there is a message, or will be none any more.
    pub(crate) fn has_news(&self) -> bool {
        load_fenced(&self.shared.tail) != self.head.get() || self.is_ended()
    }

    /// Whether no message will follow. Those before can still be there: look again.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.producer_gone.load(Ordering::SeqCst)
    }

    /// Where to wait for a message.
    pub(crate) fn arrival(&self) -> &Sleeper {
        &self.shared.arrival
    }

    /// The producer's messages are refused from now on.
    pub(crate) fn close(&self) {
        self.shared.consumer_gone.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.close();
        // SAFETY: this end alone accesses `first` until both are gone, and it goes last.
        self.shared.first.with_mut(|first| unsafe { *first = (self.block.get(), self.head.get()) });
    }
}
