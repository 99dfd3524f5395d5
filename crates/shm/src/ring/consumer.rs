//! The side of a ring that takes messages and gives the room back.

use std::cell::Cell;
use std::mem::MaybeUninit;

use super::word::{self, Word};
use super::{CLOSED, WAITING};
use crate::error::Lie;
use crate::geometry::{Geometry, Index};
use crate::storage::{Ordering, Storage};
use crate::sync::full_fence;

/// How many slots ahead of the one being read are fetched, while there is a backlog: the fence of
/// each release would otherwise let one message's lines travel only after the other's.
const LOOKAHEAD: u32 = 4;
/// So many messages in a row without an empty look are a backlog. Without one, fetching ahead
/// would take lines from the producer while it writes them.
const BACKLOG: u32 = 64;

/// The consuming side of a ring.
#[derive(Debug)]
pub struct Consumer<S> {
    storage: S,
    geometry: Geometry,
    /// Messages taken, those included whose room was not given back yet.
    head: u64,
    /// Messages whose room was given back.
    released: u64,
    /// The slot of the next message.
    slot: u32,
    /// Messages taken since the ring was last seen empty.
    streak: Cell<u32>,
    /// What the next message's slot held then: while it does, there is no need to read it again.
    before: Cell<u64>,
}

/// What the consumer sees in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A message.
    Message(Message),
    /// Nothing yet.
    Empty,
    /// Nothing, and nothing will follow: the producer has left.
    Closed,
}

/// The length of a message and where it begins in its slot, both checked: what was read of the
/// slot's word, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    len: u32,
    spread: bool,
}

impl Message {
    /// Bytes of the message, at most the slot's size.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether the message has no bytes.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl<S: Storage> Consumer<S> {
    /// A consumer on storage that was all zeros when its producer began.
    ///
    /// # Safety
    ///
    /// In this process it is the only consumer that ever uses the storage.
    pub unsafe fn new(storage: S) -> Self {
        let geometry = storage.geometry();
        Self {
            storage,
            geometry,
            head: 0,
            released: 0,
            slot: 0,
            streak: Cell::new(0),
            before: Cell::new(0),
        }
    }

    /// The shape of the ring.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Messages taken since the ring was made.
    pub fn taken(&self) -> u64 {
        self.head
    }

    /// Whether a message is there, without a look at anything but its slot.
    ///
    /// # Errors
    ///
    /// [`Lie`] when the slot's word is impossible.
    #[inline]
    pub fn look(&self) -> Result<Option<Message>, Lie> {
        let was_empty = self.streak.get() == 0;
        if was_empty {
            // The second line of a message that was waited for then travels together with its
            // first.
            self.storage.expect_read(self.slot);
        }
        let word = self.storage.load_slot(self.slot, Ordering::Acquire);
        if was_empty && word == self.before.get() {
            return Ok(None);
        }
        match word::decode(word, self.head, self.geometry.capacity()) {
            Word::Published { len, spread } => self.check(word, len, spread).map(Some),
            Word::Before => {
                self.streak.set(0);
                self.before.set(word);
                Ok(None)
            }
            Word::Foreign => Err(Lie::Sequence { word, position: self.head }),
        }
    }

    #[inline]
    fn check(&self, word: u64, len: u32, spread: bool) -> Result<Message, Lie> {
        let slot_size = self.geometry.slot_size();
        if len > slot_size {
            return Err(Lie::Length { len, slot_size });
        }
        // A long message in the place of a short one would reach past the end of its slot.
        let fits = if spread {
            self.geometry.has_spread_slots()
        } else {
            !self.geometry.is_spread(len as usize)
        };
        if !fits {
            return Err(Lie::Sequence { word, position: self.head });
        }
        Ok(Message { len, spread })
    }

    /// Like [`look`](Self::look), and tells an empty ring from one whose producer has left.
    ///
    /// # Errors
    ///
    /// [`Lie`] when the slot's word is impossible.
    pub fn look_closely(&self) -> Result<Look, Lie> {
        if let Some(message) = self.look()? {
            return Ok(Look::Message(message));
        }
        if !self.is_closed() {
            return Ok(Look::Empty);
        }
        // What was published before the producer left is seen by a look after that was seen.
        Ok(self.look()?.map_or(Look::Closed, Look::Message))
    }

    /// Whether the producer has left. Messages may be there nevertheless.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.storage.load(Index::Producer, Ordering::Acquire) & CLOSED != 0
    }

    /// Copies bytes of the message in front out of its slot, from `offset`, and fills `into`.
    ///
    /// # Panics
    ///
    /// When they reach past the end of the message.
    #[inline]
    pub fn read(&self, message: Message, offset: usize, into: &mut [MaybeUninit<u8>]) {
        let end = offset.checked_add(into.len());
        assert!(end.is_some_and(|end| end <= message.len()), "read past the end of the message");
        // SAFETY: the word said that the message is published, so an honest producer leaves the
        // slot alone until its room is given back, and this is the only consumer.
        unsafe { self.storage.read(self.slot, message.spread, offset, into) };
    }

    /// Where the message in front lies.
    pub fn payload(&self, message: Message) -> *const u8 {
        self.storage.payload(self.slot, message.spread)
    }

    /// Goes on to the next message. The room is given back by [`release`](Self::release).
    ///
    /// # Panics
    ///
    /// When more messages than the ring has slots would be taken without a release.
    #[inline]
    pub fn advance(&mut self) {
        assert!(self.head - self.released < u64::from(self.geometry.capacity()), "release first");
        self.head += 1;
        self.slot += 1;
        if self.slot == self.geometry.capacity() {
            self.slot = 0;
        }
        self.streak.set(self.streak.get().saturating_add(1));
        self.look_ahead();
    }

    /// Fetches a message further behind, while there is a backlog.
    #[inline]
    fn look_ahead(&self) {
        if self.streak.get() > BACKLOG {
            let ahead = self.slot + LOOKAHEAD;
            let capacity = self.geometry.capacity();
            self.storage.expect_read(if ahead < capacity { ahead } else { ahead % capacity });
        }
    }

    /// Gives the room of all messages taken back to the producer. `true` means that the producer
    /// sleeps and must be woken; it is said once a sleep.
    #[inline]
    pub fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        self.storage.store(Index::Head, self.head, Ordering::Release);
        self.wake_producer()
    }

    #[inline]
    fn wake_producer(&mut self) -> bool {
        full_fence();
        self.storage.load(Index::Producer, Ordering::Relaxed) & WAITING != 0
            && self.storage.clear(Index::Producer, WAITING, Ordering::Relaxed) & WAITING != 0
    }

    /// Takes one message: its bytes are appended to `into`. `Some(true)` means that the producer
    /// sleeps and must be woken, `None` that there is no message.
    ///
    /// # Errors
    ///
    /// [`Lie`] when the producer broke the protocol; nothing was taken.
    pub fn pop(&mut self, into: &mut Vec<u8>) -> Result<Option<bool>, Lie> {
        let Some(message) = self.look()? else { return Ok(None) };
        into.reserve(message.len());
        let len = into.len();
        self.read(message, 0, &mut into.spare_capacity_mut()[..message.len()]);
        // SAFETY: `read` has filled so many bytes behind `len`.
        unsafe { into.set_len(len + message.len()) };
        self.advance();
        Ok(Some(self.release()))
    }

    /// Says that this side is about to sleep until a message comes, and looks once more. `true`
    /// means that there is one, or that the producer has left: don't sleep.
    ///
    /// # Errors
    ///
    /// [`Lie`] when the producer broke the protocol.
    pub fn park(&mut self) -> Result<bool, Lie> {
        self.storage.set(Index::Consumer, WAITING, Ordering::Relaxed);
        full_fence();
        let looked = self.look_before_sleep();
        if !matches!(looked, Ok(Look::Empty)) {
            self.unpark();
        }
        looked.map(|look| look != Look::Empty)
    }

    /// The tail is read here alone: a tail ahead of an empty slot means that the memory was
    /// taken away, and nobody would ever wake this side. It may be behind: the tail is stored
    /// after the word that makes a run visible.
    fn look_before_sleep(&self) -> Result<Look, Lie> {
        let look = self.look_closely()?;
        let tail = self.storage.load(Index::Tail, Ordering::Acquire);
        let capacity = self.geometry.capacity();
        if tail.saturating_sub(self.head) > u64::from(capacity) {
            return Err(Lie::Tail { tail, head: self.head, capacity });
        }
        if look == Look::Empty && tail > self.head {
            let missing = Lie::Missing { position: self.head };
            return self.look()?.map(Look::Message).ok_or(missing);
        }
        Ok(look)
    }

    /// Takes back what [`park`](Self::park) said. It needn't be called once a message is there: who
    /// sent that has taken it back, or is about to; until then a further message may wake this side
    /// for nothing.
    pub fn unpark(&mut self) {
        self.storage.clear(Index::Consumer, WAITING, Ordering::Relaxed);
    }

    /// Says that no message will be taken any more. `true` means that the producer sleeps and
    /// must be woken.
    pub fn close(&mut self) -> bool {
        self.storage.set(Index::Consumer, CLOSED, Ordering::Release);
        self.unpark();
        self.wake_producer()
    }
}
