//! The receiving half of a pair.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::error::{CloseReason, ShmError};
use crate::linux::incoming::Incoming;
use crate::linux::link::{Link, deadline_in};
use crate::linux::memory::SharedRing;
use crate::ring::{Consumer, Look, Message};

/// Messages up to this size are copied next to each other into one allocation.
const SHARED_MAX: usize = 1024;
/// Bytes of that allocation. It lives as long as any message in it.
const SHARED_SIZE: usize = 16 * 1024;
/// So many of them are copied before they are cut apart.
const SMALL_RUN: usize = 32;

/// The receiving half of one side: for an owner that needs no lock, such as an event loop.
///
/// Its calls either don't wait (`try_`), block the thread (`_blocking`), or are futures for tokio.
/// An event loop calls [`try_recv`](Self::try_recv) until it gives `None`, then
/// [`park`](Self::park), and if that gives `false` waits until the doorbell ([`AsFd`]) is
/// readable; then [`unpark`](Self::unpark) and [`drain_doorbell`](Self::drain_doorbell), and once
/// more.
///
/// A message is copied out before it is given. Small ones share an allocation of 16 KiB with their
/// neighbours, which lives as long as one of them: copy what is to be kept for long.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) ring: Consumer<SharedRing>,
    pub(crate) link: Link,
    small: BytesMut,
}

impl Receiver {
    pub(crate) fn new(ring: Consumer<SharedRing>, link: Link) -> Self {
        Self { ring, link, small: BytesMut::new() }
    }

    /// The largest message, in bytes.
    pub fn slot_size(&self) -> usize {
        self.ring.geometry().slot_size() as usize
    }

    /// Messages that fit into the ring.
    pub fn capacity(&self) -> usize {
        self.ring.geometry().capacity() as usize
    }

    /// What closed the pair, if anything did.
    pub fn closed_by(&self) -> Option<CloseReason> {
        self.link.side.life.reason()
    }

    /// Takes one message, if there is one.
    ///
    /// # Errors
    ///
    /// [`ShmError::Closed`] after the last message of a peer that is gone, or when the token is
    /// cancelled; [`ShmError::Corrupt`], once, when that is what closes it.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Bytes>, ShmError> {
        let Some(message) = self.front()? else { return Ok(None) };
        let bytes = self.copy_out(message);
        self.ring.advance();
        self.release();
        Ok(Some(bytes))
    }

    /// Takes up to `most` messages that are there, and gives their room back at once. They are
    /// appended to `into`; the answer says how many.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv), if there is no message before.
    pub fn try_recv_batch(
        &mut self,
        into: &mut Vec<Bytes>,
        most: usize,
    ) -> Result<usize, ShmError> {
        let Some(first) = self.front()? else { return Ok(0) };
        let mut next = Some(first);
        let mut taken = 0;
        let most = most.min(self.capacity());
        while taken < most {
            let Some(message) = next else { break };
            taken += if message.len() > SHARED_MAX {
                into.push(self.copy_out(message));
                self.ring.advance();
                1
            } else {
                self.copy_out_small(message, into, most - taken)
            };
            // An error shows again at the next call.
            next = self.ring.look().unwrap_or(None);
        }
        self.release();
        Ok(taken)
    }

    /// Copies small messages that follow each other next to each other, and cuts them apart
    /// afterwards: counting references in between would keep their lines from travelling at the
    /// same time. The answer says how many.
    fn copy_out_small(&mut self, first: Message, into: &mut Vec<Bytes>, most: usize) -> usize {
        let mut lens = [0; SMALL_RUN];
        let mut count = 0;
        let mut filled = 0;
        self.make_room(first.len());
        let mut next = Some(first);
        while let Some(message) = next {
            let len = message.len();
            let space = self.small.spare_capacity_mut().get_mut(filled..filled + len);
            let Some(space) = space.filter(|_| len <= SHARED_MAX) else { break };
            self.ring.read(message, 0, space);
            self.ring.advance();
            filled += len;
            lens[count] = len;
            count += 1;
            if count == most.min(SMALL_RUN) {
                break;
            }
            next = self.ring.look().unwrap_or(None);
        }
        // SAFETY: `read` filled so many bytes; the length was 0.
        unsafe { self.small.set_len(filled) };
        into.extend(lens[..count].iter().map(|len| self.small.split_to(*len).freeze()));
        count
    }

    /// Takes one message, if there is one, and appends it to `into`. The answer is its length.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_into(&mut self, into: &mut Vec<u8>) -> Result<Option<usize>, ShmError> {
        let Some(message) = self.front()? else { return Ok(None) };
        let old = into.len();
        into.reserve(message.len());
        self.ring.read(message, 0, &mut into.spare_capacity_mut()[..message.len()]);
        // SAFETY: `read` filled so many bytes behind the old length.
        unsafe { into.set_len(old + message.len()) };
        self.ring.advance();
        self.release();
        Ok(Some(message.len()))
    }

    /// Takes messages until there are none or at least `most` bytes were taken, and appends them to
    /// `into`, one behind the other: for those who read a stream that was cut into messages. Their
    /// room is given back at once, and the peer is woken at most once. The answer is the number of
    /// bytes; 0 means that there was no message, or none but empty ones.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv), if there is no message before.
    pub fn try_recv_stream(&mut self, into: &mut Vec<u8>, most: usize) -> Result<usize, ShmError> {
        let mut next = self.front()?;
        let (old, mut left) = (into.len(), self.capacity());
        while let Some(message) = next {
            let at = into.len();
            into.reserve(message.len());
            self.ring.read(message, 0, &mut into.spare_capacity_mut()[..message.len()]);
            // SAFETY: `read` filled so many bytes behind the old length.
            unsafe { into.set_len(at + message.len()) };
            self.ring.advance();
            left -= 1;
            if left == 0 || into.len() - old >= most {
                break;
            }
            // An error shows again at the next call.
            next = self.ring.look().unwrap_or(None);
        }
        self.release();
        Ok(into.len() - old)
    }

    /// Whether a look at the ring shows a message, or a lie about one. It takes nanoseconds, and
    /// doesn't notice that the peer is gone: for watching.
    #[inline]
    pub fn sees_message(&self) -> bool {
        !matches!(self.ring.look(), Ok(None))
    }

    /// Whether the peer has said that it sends nothing more; what it sent before may still be there.
    /// It takes nanoseconds, and doesn't notice a peer that is gone without a word: for watching.
    #[inline]
    pub fn sees_end(&self) -> bool {
        self.ring.is_closed()
    }

    /// The message in front, in its slot, if there is one: for large messages, which are then not
    /// copied as a whole. It is taken when the guard is dropped.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_in_place(&mut self) -> Result<Option<Incoming<'_>>, ShmError> {
        Ok(self.front()?.map(|message| Incoming::new(self, message)))
    }

    /// The message in front. Looks whether the peer lives only when there is none.
    #[inline]
    fn front(&mut self) -> Result<Option<Message>, ShmError> {
        if self.link.is_closed() || self.link.is_cancelled() {
            return Err(ShmError::Closed);
        }
        match self.ring.look() {
            Ok(Some(message)) => Ok(Some(message)),
            Ok(None) => self.front_closely(),
            Err(lie) => Err(self.link.corrupt(lie)),
        }
    }

    /// Whether there is a message in front.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_message(&mut self) -> Result<bool, ShmError> {
        Ok(self.front()?.is_some())
    }

    fn front_closely(&mut self) -> Result<Option<Message>, ShmError> {
        // In this order: what a peer published before it went is seen by a look after that.
        let gone = self.link.is_peer_gone();
        if !gone && !self.ring.is_closed() {
            return Ok(None);
        }
        match self.ring.look_closely() {
            Ok(Look::Message(message)) => Ok(Some(message)),
            Ok(Look::Empty) if !gone => Ok(None),
            Ok(Look::Empty | Look::Closed) => Err(self.link.close(CloseReason::PeerGone)),
            Err(lie) => Err(self.link.corrupt(lie)),
        }
    }

    #[inline]
    fn copy_out(&mut self, message: Message) -> Bytes {
        let len = message.len();
        if len > SHARED_MAX {
            let mut bytes = Vec::with_capacity(len);
            self.ring.read(message, 0, &mut bytes.spare_capacity_mut()[..len]);
            // SAFETY: `read` filled so many bytes.
            unsafe { bytes.set_len(len) };
            return bytes.into();
        }
        self.make_room(len);
        self.ring.read(message, 0, &mut self.small.spare_capacity_mut()[..len]);
        // SAFETY: `read` filled so many bytes; the length was 0.
        unsafe { self.small.set_len(len) };
        self.small.split().freeze()
    }

    #[inline]
    fn make_room(&mut self, len: usize) {
        if self.small.capacity() < len {
            self.small.reserve(SHARED_SIZE);
        }
    }

    /// Gives the room of what was taken back, and wakes a peer that waits for it.
    #[inline]
    pub(crate) fn release(&mut self) {
        let sleeping = self.ring.release();
        self.link.ring_peer_if(sleeping);
    }

    /// Takes one message, and blocks until there is one. `None` when the pair is closed:
    /// [`closed_by`](Self::closed_by) says by what.
    pub fn recv_blocking(&mut self) -> Option<Bytes> {
        self.wait_message_blocking(None).ok()?;
        self.try_recv().ok()?
    }

    /// Takes one message, and blocks until there is one, for at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv); `Ok(None)` means that the time is over.
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<Option<Bytes>, ShmError> {
        self.wait_message_blocking(Some(limit))?;
        self.try_recv()
    }

    /// Blocks until there is a message, for at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn wait_message_blocking(&mut self, limit: Option<Duration>) -> Result<(), ShmError> {
        let deadline = limit.map(deadline_in);
        while self.front()?.is_none() {
            let ring = &self.ring;
            if self.link.watch(|| !matches!(ring.look(), Ok(None))) || self.park()? {
                continue;
            }
            // Who rings has taken back what `park` said. After any other end of the sleep the next
            // message may ring for nothing, once.
            match deadline {
                None => self.link.sleep_long()?,
                Some(_) => self.link.sleep(deadline)?,
            }
            let ring = &self.ring;
            self.link.expect(|| !matches!(ring.look(), Ok(None)));
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.ring.unpark();
                break;
            }
        }
        Ok(())
    }

    /// Says that this side will sleep until a message comes, and looks once more. `true`: there is
    /// one, or the direction is closed; don't sleep. `false`: the doorbell will ring.
    ///
    /// # Errors
    ///
    /// [`ShmError::Corrupt`] when the peer broke the protocol.
    pub fn park(&mut self) -> Result<bool, ShmError> {
        match self.ring.park() {
            Ok(awake) => Ok(awake || self.link.side.life.is_known_gone()),
            Err(lie) => Err(self.link.corrupt(lie)),
        }
    }

    /// Takes back what [`park`](Self::park) said.
    pub fn unpark(&mut self) {
        self.ring.unpark();
    }

    /// Forgets that the doorbell was rung, so that a level-triggered poll waits again. Look at
    /// both directions after it: they share the doorbell.
    pub fn drain_doorbell(&self) {
        self.link.side.own.drain();
    }

    /// The socket that hangs up when the peer is gone. Nothing is ever sent on it.
    pub fn peer_socket(&self) -> BorrowedFd<'_> {
        self.link.side.life.as_fd()
    }

    /// Asks the kernel whether the peer is gone: one system call. The other calls ask by
    /// themselves every few milliseconds.
    pub fn is_peer_gone(&self) -> bool {
        self.link.side.life.is_gone()
    }

    /// Takes the peer for gone from now on, in both directions: what it published before can still
    /// be taken, and nothing is sent to it any more.
    pub fn note_peer_gone(&self) {
        self.link.side.life.give_up();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let sleeping = self.ring.close();
        self.link.ring_peer_if(sleeping);
    }
}

/// The doorbell of this side, to be waited for after [`park`](Receiver::park).
impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}
