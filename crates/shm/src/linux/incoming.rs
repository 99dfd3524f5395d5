//! A received message that is still in its slot.

use std::mem::MaybeUninit;

use crate::linux::receiver::Receiver;
use crate::ring::Message;

/// Bytes that [`Incoming::for_each_chunk`] copies at a time: they stay in the first-level cache.
const CHUNK: usize = 4096;

/// A message in its slot. Its length was read once and checked; its bytes are the peer's to spoil,
/// and are copied before they are looked at.
///
/// Dropping it takes the message and gives the room back. Leaking it leaves the message in front.
#[derive(Debug)]
pub struct Incoming<'a> {
    receiver: &'a mut Receiver,
    message: Message,
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(receiver: &'a mut Receiver, message: Message) -> Self {
        Self { receiver, message }
    }
}

impl Incoming<'_> {
    /// Bytes of the message.
    pub fn len(&self) -> usize {
        self.message.len()
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// Copies bytes of the message, from `offset`, and fills `into`.
    ///
    /// # Panics
    ///
    /// When they reach past the end of the message.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: `u8` and `MaybeUninit<u8>` have the same layout, and `read` only writes
        // initialized bytes.
        let into = unsafe { &mut *(std::ptr::from_mut(into) as *mut [MaybeUninit<u8>]) };
        self.receiver.ring.read(self.message, offset, into);
    }

    /// Hands over the message in pieces of at most 4 KiB, each copied to where it stays in the
    /// processor's cache: the whole message is read from memory once and written nowhere.
    pub fn for_each_chunk(&self, mut f: impl FnMut(&[u8])) {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        for offset in (0..self.len()).step_by(CHUNK) {
            let chunk = &mut chunk[..CHUNK.min(self.len() - offset)];
            self.receiver.ring.read(self.message, offset, chunk);
            // SAFETY: `read` filled it.
            f(unsafe { chunk.assume_init_ref() });
        }
    }

    /// The message as a slice, which saves the copy.
    ///
    /// # Safety
    ///
    /// The peer must be trusted not to write into a slot that isn't its own: a Rust slice over
    /// memory that changes underneath is undefined behaviour. Use [`read`](Self::read) or
    /// [`for_each_chunk`](Self::for_each_chunk) for a peer that isn't.
    pub unsafe fn as_slice(&self) -> &[u8] {
        let start = self.receiver.ring.payload(self.message);
        // SAFETY: the slot has so many initialized bytes, stays this side's until the guard is
        // dropped, and the caller vouches for the peer.
        unsafe { std::slice::from_raw_parts(start, self.len()) }
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.receiver.ring.advance();
        self.receiver.release();
    }
}
