//! The side of a ring that writes messages and publishes them in runs.

use super::ahead::Ahead;
use super::{CLOSED, WAITING, word};
use crate::error::Lie;
use crate::geometry::{Geometry, Index};
use crate::storage::{Ordering, Storage};
use crate::sync::full_fence;

/// How many slots ahead of the one being written are fetched for writing. Their lines are then in
/// this core's cache when the fence after a publication waits for the stores.
const LOOKAHEAD: u32 = 4;

/// The producing side of a ring.
#[derive(Debug)]
pub struct Producer<S> {
    storage: S,
    geometry: Geometry,
    /// Messages published.
    tail: u64,
    /// Messages written behind the tail, which the consumer can't see yet.
    staged: u32,
    /// The slot of the next message to stage.
    slot: u32,
    /// The slot and the word that will make the staged run visible.
    first: (u32, u64),
    /// Messages taken, as far as this side has looked.
    head: u64,
    consumer_gone: bool,
    /// Whether the consumer slept at the last publication.
    consumer_slept: bool,
    ahead: Ahead,
    /// `park` said that this side sleeps, and that was not taken back.
    parked: bool,
}

/// Why [`Producer::push`] did not publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No slot is free.
    #[error("the ring is full")]
    Full,
    /// The message is larger than a slot.
    #[error("the message is larger than a slot")]
    TooLarge,
    /// The consumer has closed its side.
    #[error("the consumer has left")]
    Closed,
    /// The consumer broke the protocol.
    #[error(transparent)]
    Corrupt(#[from] Lie),
}

impl<S: Storage> Producer<S> {
    /// A producer on storage that is all zeros.
    ///
    /// # Safety
    ///
    /// In this process it is the only producer that ever uses the storage.
    pub unsafe fn new(storage: S) -> Self {
        let geometry = storage.geometry();
        Self {
            storage,
            geometry,
            tail: 0,
            staged: 0,
            slot: 0,
            first: (0, 0),
            head: 0,
            consumer_gone: false,
            consumer_slept: false,
            ahead: Ahead::default(),
            parked: false,
        }
    }

    /// The shape of the ring.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The storage, and the slot of the next message.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub(crate) fn next_slot(&self) -> (&S, u32) {
        (&self.storage, self.slot)
    }

    /// Messages published since the ring was made.
    pub fn published(&self) -> u64 {
        self.tail
    }

    /// Whether the consumer had left when this side last looked, which it does whenever it
    /// publishes or parks.
    pub fn is_consumer_gone(&self) -> bool {
        self.consumer_gone
    }

    /// Publishes one message. `Ok(true)` means that the consumer sleeps and must be woken.
    ///
    /// # Errors
    ///
    /// [`PushError`]; nothing was published.
    pub fn push(&mut self, message: &[u8]) -> Result<bool, PushError> {
        if message.len() > self.geometry.slot_size() as usize {
            return Err(PushError::TooLarge);
        }
        if self.consumer_gone {
            return Err(PushError::Closed);
        }
        if self.room()? == 0 {
            return Err(PushError::Full);
        }
        self.stage(message);
        Ok(self.publish())
    }

    /// Publishes as many of the messages as there is room for, in one run. Gives how many, and
    /// whether the consumer sleeps and must be woken.
    ///
    /// # Errors
    ///
    /// [`Lie::Head`] when the consumer's index is impossible; nothing was published.
    ///
    /// # Panics
    ///
    /// When a message is larger than a slot.
    pub fn push_batch<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<(usize, bool), Lie> {
        let mut count = 0;
        for message in messages {
            if self.room()? == 0 {
                break;
            }
            self.stage(message.as_ref());
            count += 1;
        }
        Ok((count, self.publish()))
    }

    /// Publishes the bytes of `parts`, one part behind the other, as messages of a slot's size, the
    /// last of which may be shorter: at most `most` messages, as far as there is room, in one run.
    /// What was published is taken off the parts. Gives how many bytes that is, and whether the
    /// consumer sleeps and must be woken.
    ///
    /// # Errors
    ///
    /// [`Lie::Head`] when the consumer's index is impossible; nothing was published.
    pub fn push_stream(&mut self, parts: &mut [&[u8]], most: u32) -> Result<(usize, bool), Lie> {
        let slot_size = self.geometry.slot_size() as usize;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let (mut left, mut place) = (total, 0);
        let mut count = 0;
        while left > 0 && count < most && self.room()? > 0 {
            let len = left.min(slot_size);
            let spread = self.geometry.is_spread(len);
            let mut filled = 0;
            while filled < len {
                let (piece, rest) = parts[place].split_at(parts[place].len().min(len - filled));
                // SAFETY: as in `stage`; the pieces of a message are as long as it together.
                unsafe { self.storage.write(self.slot, spread, filled, piece) };
                filled += piece.len();
                parts[place] = rest;
                place += usize::from(rest.is_empty());
            }
            self.mark(len as u32, spread);
            left -= len;
            count += 1;
        }
        Ok((total - left, self.publish()))
    }

    /// How many messages may be staged. The consumer's index is loaded only when as many as were
    /// free at the last look are used up, and then once.
    ///
    /// # Errors
    ///
    /// [`Lie::Head`] when that index is impossible.
    #[inline]
    pub fn room(&mut self) -> Result<u32, Lie> {
        let room = self.room_known();
        if room > 0 {
            return Ok(room);
        }
        self.refresh()?;
        Ok(self.room_known())
    }

    /// Whether there is room that is known already (of which [`park`](Self::park) may have learned),
    /// or a look at the consumer's index would show some, or a lie. For watching.
    #[inline]
    pub fn sees_room(&self) -> bool {
        self.room_known() > 0 || self.storage.load(Index::Head, Ordering::Acquire) != self.head
    }

    /// How many messages may be staged, as far as this side has looked.
    #[inline]
    pub(crate) fn room_known(&self) -> u32 {
        // At most `capacity`, since `refresh` checked the head.
        self.geometry.capacity() - (self.tail - self.head) as u32 - self.staged
    }

    fn refresh(&mut self) -> Result<(), Lie> {
        let head = self.storage.load(Index::Head, Ordering::Acquire);
        if head < self.head || head > self.tail {
            return Err(Lie::Head { head, taken: self.head, tail: self.tail });
        }
        self.head = head;
        Ok(())
    }

    /// Writes a message behind those staged before, without showing it to the consumer.
    ///
    /// # Panics
    ///
    /// When [`room`](Self::room) is 0, or when the message is larger than a slot.
    #[inline]
    pub fn stage(&mut self, message: &[u8]) {
        assert!(message.len() <= self.geometry.slot_size() as usize, "message larger than a slot");
        assert!(self.room_known() > 0, "no slot is free");
        if self.consumer_slept && self.staged == 0 {
            // It read or wrote both when it went to sleep. They travel while the slot is written.
            self.storage.expect_store(Index::Consumer);
            self.storage.expect_store(Index::Tail);
        }
        let spread = self.geometry.is_spread(message.len());
        // SAFETY: the slot lies behind the tail and within the room, so that the consumer of an
        // honest peer doesn't touch it, and this is the only producer.
        unsafe { self.storage.write(self.slot, spread, 0, message) };
        self.mark(message.len() as u32, spread);
    }

    /// Gives the slot just written its word, unless it is the first of the run: that one is
    /// withheld until `publish`.
    #[inline]
    fn mark(&mut self, len: u32, spread: bool) {
        let word = word::encode(self.tail + u64::from(self.staged), len, spread);
        if self.staged == 0 {
            self.first = (self.slot, word);
        } else {
            self.storage.store_slot(self.slot, word, Ordering::Relaxed);
        }
        self.staged += 1;
        self.slot = self.after(self.slot, 1);
        self.storage.expect_write(self.after(self.slot, LOOKAHEAD));
    }

    #[inline]
    fn after(&self, slot: u32, steps: u32) -> u32 {
        let next = slot + steps;
        if next < self.geometry.capacity() { next } else { next % self.geometry.capacity() }
    }

    /// Shows all staged messages to the consumer at once, with one store of the word that it waits
    /// for and one of the tail. `true` means that the consumer sleeps and must be woken; it is said
    /// once a sleep.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.staged == 0 {
            return false;
        }
        let (slot, word) = self.first;
        self.storage.store_slot(slot, word, Ordering::Release);
        self.tail += u64::from(self.staged);
        self.staged = 0;
        self.storage.store(Index::Tail, self.tail, Ordering::Release);
        self.wake_consumer()
    }

    #[inline]
    fn wake_consumer(&mut self) -> bool {
        full_fence();
        // A consumer that slept probably sleeps again: a load would then only fetch its line a
        // first time, for the write that follows to fetch it again.
        let state = if self.consumer_slept {
            self.storage.clear(Index::Consumer, WAITING, Ordering::Relaxed)
        } else {
            self.storage.load(Index::Consumer, Ordering::Relaxed)
        };
        // One that was woken for this message sleeps before the next one, too.
        let was_asleep = self.ahead.end(state & WAITING != 0);
        if state & (WAITING | CLOSED) == 0 {
            self.consumer_slept = was_asleep;
            return false;
        }
        self.wake_seen(state)
    }

    /// Takes note that a message is about to be published, within a microsecond or so. `true` means
    /// that the consumer sleeps and is to be woken at once: it takes longer to wake up than the
    /// message to be made. Should it sleep again before that, [`publish`](Self::publish) has it
    /// woken again, and after a few of these it is rarely woken ahead.
    ///
    /// Where the consumer did not sleep at the last message, it is left alone.
    #[inline]
    pub fn wake_ahead(&mut self) -> bool {
        if !self.consumer_slept || self.consumer_gone || !self.ahead.pays() {
            return false;
        }
        let state = self.storage.clear(Index::Consumer, WAITING, Ordering::Relaxed);
        let sleeps = state & WAITING != 0;
        if sleeps {
            self.ahead.begin();
        }
        sleeps
    }

    #[cold]
    fn wake_seen(&mut self, seen: u64) -> bool {
        self.consumer_gone |= seen & CLOSED != 0;
        let was_cleared = self.consumer_slept;
        let state = if was_cleared || seen & WAITING == 0 {
            seen
        } else {
            self.storage.clear(Index::Consumer, WAITING, Ordering::Relaxed)
        };
        self.consumer_slept = state & WAITING != 0;
        self.consumer_slept
    }

    /// Says that this side is about to sleep until there is room, and looks once more. `true`
    /// means that there is room, or that the consumer has left: don't sleep.
    ///
    /// # Errors
    ///
    /// [`Lie::Head`] when the consumer's index is impossible.
    pub fn park(&mut self) -> Result<bool, Lie> {
        self.parked = true;
        self.storage.set(Index::Producer, WAITING, Ordering::Relaxed);
        full_fence();
        let looked = self.refresh();
        let consumer = self.storage.load(Index::Consumer, Ordering::Acquire);
        self.consumer_gone |= consumer & CLOSED != 0;
        let awake = looked.is_err() || self.consumer_gone || self.room_known() > 0;
        if awake {
            self.unpark();
        }
        looked.map(|()| awake)
    }

    /// Takes back what [`park`](Self::park) said; costs nothing where it said nothing.
    #[inline]
    pub fn unpark(&mut self) {
        if std::mem::take(&mut self.parked) {
            self.storage.clear(Index::Producer, WAITING, Ordering::Relaxed);
        }
    }

    /// Says that no message follows. What was published can still be taken. `true` means that the
    /// consumer sleeps and must be woken.
    pub fn close(&mut self) -> bool {
        self.storage.set(Index::Producer, CLOSED, Ordering::Release);
        self.unpark();
        self.wake_consumer()
    }

    /// The next slot, to be written in place. Nothing is published until
    /// [`Reserved::commit`]; dropping it publishes nothing.
    ///
    /// Messages staged before are published with it.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push); `TooLarge` when a slot holds fewer than `len` bytes.
    pub fn reserve(&mut self, len: usize) -> Result<Reserved<'_, S>, PushError> {
        if len > self.geometry.slot_size() as usize {
            return Err(PushError::TooLarge);
        }
        if self.consumer_gone {
            return Err(PushError::Closed);
        }
        if self.room()? == 0 {
            return Err(PushError::Full);
        }
        Ok(Reserved { producer: self, len })
    }
}

/// A slot that is being written in place.
#[derive(Debug)]
pub struct Reserved<'a, S: Storage> {
    producer: &'a mut Producer<S>,
    len: usize,
}

impl<S: Storage> Reserved<'_, S> {
    /// Bytes that may be written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte may be written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn spread(&self) -> bool {
        self.producer.geometry.is_spread(self.len)
    }

    /// Copies `bytes` to `offset` in the slot.
    ///
    /// # Panics
    ///
    /// When they reach past the end of what was reserved.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.len), "write past the end of the reservation");
        // SAFETY: as in `stage`: the slot is free, and this is the only producer.
        unsafe { self.producer.storage.write(self.producer.slot, self.spread(), offset, bytes) };
    }

    /// The slot as a slice, for a peer that is trusted not to touch a slot which isn't its own.
    /// The bytes are those of an earlier message, or zeros.
    ///
    /// # Safety
    ///
    /// The peer doesn't write the slot while the slice lives.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        let start = self.producer.storage.payload(self.producer.slot, self.spread());
        // SAFETY: the slot has `len` initialized bytes, is ours in this process until it is
        // published, and the caller vouches for the peer.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }

    /// Publishes the first `len` bytes as one message. `true` means that the consumer sleeps and
    /// must be woken.
    ///
    /// # Panics
    ///
    /// When `len` is more than was reserved.
    pub fn commit(self, len: usize) -> bool {
        assert!(len <= self.len, "commit of more than was reserved");
        let spread = self.spread();
        self.producer.mark(len as u32, spread);
        self.producer.publish()
    }
}
