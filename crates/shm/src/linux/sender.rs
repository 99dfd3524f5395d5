//! The sending half of a pair.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::error::{CloseReason, ShmError};
use crate::linux::link::Link;
use crate::linux::memory::SharedRing;
use crate::ring::{Producer, PushError, Reserved};

/// To write messages up to this size takes less time than a peer to wake up.
const AHEAD_MAX: usize = 1024;
/// Messages of a stream that the peer is shown at once.
const STREAM_RUN: u32 = 16;

/// The sending half of one side: for an owner that needs no lock, such as an event loop.
///
/// Its calls either don't wait (`try_`), block the thread (`_blocking`), or are futures for tokio.
/// An event loop calls [`try_send`](Self::try_send); when that says
/// [`Full`](ShmError::Full), it calls [`park`](Self::park), and if that gives `false` waits until
/// the doorbell ([`AsFd`]) is readable; then [`unpark`](Self::unpark) and
/// [`drain_doorbell`](Self::drain_doorbell), and once more.
///
/// Dropping it tells the peer, which takes what was sent and then sees the end.
#[derive(Debug)]
pub struct Sender {
    pub(crate) ring: Producer<SharedRing>,
    pub(crate) link: Link,
    /// The peer sleeps, and has been sent what it wasn't woken for.
    pub(crate) unrung: bool,
}

impl Sender {
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

    /// Sends one message, if there is room.
    ///
    /// # Errors
    ///
    /// [`ShmError::Full`], [`ShmError::PacketTooLarge`], [`ShmError::Closed`], or
    /// [`ShmError::Corrupt`], once, when that is what closes it.
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), ShmError> {
        if message.len() <= AHEAD_MAX && self.ring.room_known() > 0 {
            self.wake_ahead();
        }
        self.try_send_unrung(message)?;
        self.ring_doorbell();
        Ok(())
    }

    /// Sends one message, if there is room, and leaves a peer that sleeps asleep: `true`, which
    /// only the first such message gives, says that it is to be woken by
    /// [`ring_doorbell`](Self::ring_doorbell) when all is sent that there is. A peer that is woken
    /// by the first of several messages may take it and sleep again before the next. Any other
    /// call that sends, and dropping this, wake it as well.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_send_unrung(&mut self, message: &[u8]) -> Result<bool, ShmError> {
        self.check_size(message.len())?;
        self.check_open()?;
        match self.ring.push(message) {
            Ok(sleeping) => {
                self.link.note_sent(self.ring.published());
                self.unrung |= sleeping;
                if sleeping {
                    let (memory, slot) = self.ring.next_slot();
                    memory.note_lines(slot, &self.link.side.next_lines);
                }
                Ok(sleeping)
            }
            Err(error) => Err(self.refused(error, message.len())),
        }
    }

    /// Wakes the peer, if [`try_send_unrung`](Self::try_send_unrung) left it asleep.
    #[inline]
    pub fn ring_doorbell(&mut self) {
        let unrung = std::mem::take(&mut self.unrung);
        self.link.ring_peer_if(unrung);
    }

    /// Wakes a peer that sleeps ahead of a message that is about to be sent, within a microsecond or
    /// so: to wake up takes it longer. A message that doesn't follow costs the peer a wake-up for
    /// nothing. Where the peer didn't sleep at the last message, or where it sleeps again before the
    /// message is there, as one that shares this processor may, nothing is done.
    #[inline]
    pub fn wake_ahead(&mut self) {
        if self.ring.wake_ahead() {
            self.link.side.peer.ring();
        }
    }

    #[cold]
    fn refused(&mut self, error: PushError, len: usize) -> ShmError {
        match error {
            PushError::Full => ShmError::Full,
            PushError::TooLarge => self.too_large(len),
            PushError::Closed => self.link.close(CloseReason::PeerGone),
            PushError::Corrupt(lie) => self.link.corrupt(lie),
        }
    }

    #[cold]
    fn too_large(&self, len: usize) -> ShmError {
        ShmError::PacketTooLarge { len, slot_size: self.slot_size() }
    }

    #[inline]
    pub(crate) fn check_size(&self, len: usize) -> Result<(), ShmError> {
        if len > self.slot_size() { Err(self.too_large(len)) } else { Ok(()) }
    }

    /// Fails when this direction is closed, the token is cancelled, or the peer is gone.
    #[inline]
    pub(crate) fn check_open(&mut self) -> Result<(), ShmError> {
        if self.link.is_closed() || self.link.is_cancelled() {
            return Err(ShmError::Closed);
        }
        if self.link.is_peer_gone() || self.ring.is_consumer_gone() {
            return Err(self.link.close(CloseReason::PeerGone));
        }
        Ok(())
    }

    /// Sends as many of the messages as there is room for, in one run, and says how many.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send), but for `Full`: then the answer is 0. When one of the
    /// messages is too large, nothing is sent.
    pub fn try_send_batch<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<usize, ShmError> {
        for message in messages {
            self.check_size(message.as_ref().len())?;
        }
        self.check_open()?;
        if let [message] = messages
            && message.as_ref().len() <= AHEAD_MAX
            && self.ring.room_known() > 0
        {
            self.wake_ahead();
        }
        match self.ring.push_batch(messages) {
            Ok((sent, sleeping)) => {
                self.link.note_sent(self.ring.published());
                self.unrung |= sleeping;
                self.ring_doorbell();
                Ok(sent)
            }
            Err(lie) => Err(self.link.corrupt(lie)),
        }
    }

    /// Sends the bytes of `parts`, one part behind the other, cut into messages of a slot's size: as
    /// much as there is room for. What was sent is taken off the parts; the answer says how many
    /// bytes that is. It is the other end of
    /// [`Receiver::try_recv_stream`](crate::Receiver::try_recv_stream), for streams whose pieces lie
    /// in several places.
    ///
    /// The peer is shown 16 messages at a time, so that it reads the first while the next are
    /// written.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send), but for `Full`: then the answer is 0. After a part was sent,
    /// an error shows at the next call.
    pub fn try_send_stream(&mut self, parts: &mut [&[u8]]) -> Result<usize, ShmError> {
        self.check_open()?;
        let mut sent = 0;
        loop {
            let (count, sleeping) = match self.ring.push_stream(parts, STREAM_RUN) {
                Ok(pushed) => pushed,
                Err(_) if sent > 0 => return Ok(sent),
                Err(lie) => return Err(self.link.corrupt(lie)),
            };
            self.unrung |= sleeping;
            if count == 0 {
                return Ok(sent);
            }
            self.link.note_sent(self.ring.published());
            self.ring_doorbell();
            sent += count;
            if self.ring.is_consumer_gone() {
                return Ok(sent);
            }
        }
    }

    /// Sends one message, and blocks while the ring is full.
    ///
    /// # Errors
    ///
    /// [`ShmError::PacketTooLarge`]; [`ShmError::Closed`] when the pair is closed, or when the
    /// ring stays full for [`Options::full_limit`](crate::Options::full_limit), which closes this
    /// direction; [`ShmError::Corrupt`].
    pub fn send_blocking(&mut self, message: &[u8]) -> Result<(), ShmError> {
        loop {
            match self.try_send(message) {
                Err(ShmError::Full) => self.wait_room_blocking()?,
                done => return done,
            }
        }
    }

    /// Sends all messages in as few runs as there is room for, and blocks while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send_blocking`](Self::send_blocking). When a message is too large, none is sent; when
    /// the pair closes half way, what was sent stays sent.
    pub fn send_batch_blocking<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<(), ShmError> {
        let mut left = messages;
        loop {
            let sent = self.try_send_batch(left)?;
            left = &left[sent..];
            if left.is_empty() {
                return Ok(());
            }
            self.wait_room_blocking()?;
        }
    }

    /// Whether a look at the ring shows room that was not seen before, or a lie about it. It takes
    /// nanoseconds, and doesn't notice that the peer is gone: for watching after
    /// [`Full`](ShmError::Full).
    #[inline]
    pub fn sees_room(&self) -> bool {
        self.ring.sees_room()
    }

    /// Blocks until there is room for a message.
    ///
    /// # Errors
    ///
    /// [`ShmError::Closed`] and [`ShmError::Corrupt`] as [`send_blocking`](Self::send_blocking).
    pub fn wait_room_blocking(&mut self) -> Result<(), ShmError> {
        let mut deadline = None;
        loop {
            self.check_open()?;
            if self.has_room()? {
                return Ok(());
            }
            let ring = &self.ring;
            if self.link.watch(|| ring.sees_room()) {
                continue;
            }
            let _watched = self.link.side.own.watched();
            if self.park()? {
                continue;
            }
            let deadline = *deadline.get_or_insert_with(|| self.link.full_deadline());
            let slept = self.link.sleep(Some(deadline));
            self.ring.unpark();
            slept?;
            self.check_deadline(deadline)?;
        }
    }

    pub(crate) fn has_room(&mut self) -> Result<bool, ShmError> {
        match self.ring.room() {
            Ok(room) => Ok(room > 0),
            Err(lie) => Err(self.link.corrupt(lie)),
        }
    }

    /// Closes this direction when the ring is still full at the deadline. The peer, if it ever
    /// goes on, takes what was sent and then sees the end.
    pub(crate) fn check_deadline(&mut self, deadline: Instant) -> Result<(), ShmError> {
        if Instant::now() < deadline || self.has_room()? {
            return Ok(());
        }
        let closed = self.link.close(CloseReason::Full);
        self.close();
        Err(closed)
    }

    /// Says that this side will sleep until there is room, and looks once more. `true`: there is
    /// room, or the direction is closed; don't sleep. `false`: the doorbell will ring.
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

    /// The next slot, to be written in place: for large messages, which are then copied once.
    /// Nothing is sent until [`Outgoing::commit`].
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send); `PacketTooLarge` when a slot holds fewer than `len` bytes.
    pub fn reserve(&mut self, len: usize) -> Result<Outgoing<'_>, ShmError> {
        self.check_size(len)?;
        self.check_open()?;
        if !self.has_room()? {
            return Err(ShmError::Full);
        }
        let Self { ring, link, unrung } = self;
        match ring.reserve(len) {
            Ok(slot) => Ok(Outgoing { slot, link, unrung }),
            // Room was just seen, and the size checked: the peer has closed.
            Err(_) => Err(link.close(CloseReason::PeerGone)),
        }
    }

    /// Tells the peer that nothing follows.
    fn close(&mut self) {
        self.unrung |= self.ring.close();
        self.ring_doorbell();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.close();
    }
}

/// The doorbell of this side, to be waited for after [`park`](Sender::park).
impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// A slot that is being written in place. Dropping it sends nothing.
#[derive(Debug)]
pub struct Outgoing<'a> {
    slot: Reserved<'a, SharedRing>,
    link: &'a mut Link,
    unrung: &'a mut bool,
}

impl Outgoing<'_> {
    /// Bytes that may be written.
    pub fn len(&self) -> usize {
        self.slot.len()
    }

    /// Whether no byte may be written.
    pub fn is_empty(&self) -> bool {
        self.slot.is_empty()
    }

    /// Copies `bytes` to `offset` in the slot.
    ///
    /// # Panics
    ///
    /// When they reach past the end of what was reserved.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.slot.write(offset, bytes);
    }

    /// The slot as a slice, which saves a copy. It holds bytes of an earlier message, or zeros.
    ///
    /// # Safety
    ///
    /// The peer must be trusted not to write into a slot that isn't its own: a Rust slice over
    /// memory that changes underneath is undefined behaviour. Use [`write`](Self::write) for a
    /// peer that isn't.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: passed on to the caller.
        unsafe { self.slot.as_mut_slice() }
    }

    /// Sends the first `len` bytes as one message.
    ///
    /// # Panics
    ///
    /// When `len` is more than was reserved.
    pub fn commit(self, len: usize) {
        let sleeping = self.slot.commit(len);
        self.link.ring_peer_if(sleeping | std::mem::take(self.unrung));
    }
}
