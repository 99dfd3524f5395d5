//! A connection over a pair of rings in shared memory, with what a socket's connection has.
//!
//! Each direction is one stream of bytes, cut into ring messages of up to a slot. While the
//! runtime is awake it looks at the rings by itself; before it sleeps it asks for the doorbell.
//! So under load nobody makes a system call for a message.

mod ends;
mod sizes;
mod unsent;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use remuda_net::{CloseReason, NetError, ParseResult, ReadyFd, Source, SourceHandle};
use remuda_shm::{Receiver, Sender};

use crate::rings::ends::Ends;
use crate::rings::sizes::GATHER_BYTES;
pub(crate) use crate::rings::sizes::{options, worker_gather, worker_options};
use crate::rings::unsent::{Unsent, emptied, push};

/// So often a ring is read in a row, before others get their turn.
const READS_IN_A_ROW: u32 = 8;
/// Behind what is no longer than this the ring isn't looked at again before the wait, which looks
/// anyhow: it came alone. While more is on its way, more has mostly come meanwhile.
const ALONE_BYTES: usize = 512;
/// How long what a closed connection still has to send waits for room; as on a socket.
const CLOSE_LINGER: Duration = Duration::from_secs(5);

/// A connection over rings: one side of a pair. The peer has the other.
pub(crate) struct Rings {
    ring: Rc<Ring>,
    handle: SourceHandle,
    /// What is gathered goes out once it is so much.
    gather_bytes: usize,
}

/// What the runtime looks at.
struct Ring {
    ends: RefCell<Ends>,
    paused: Cell<bool>,
    /// Its task waits for the peer's end or for room, and takes no messages meanwhile.
    only_sends: Cell<bool>,
    /// The runtime sleeps, or has not yet been told by the doorbell that it needn't.
    parked: Cell<bool>,
    /// Looks as if nothing were there: its task has had its turn.
    held: Cell<bool>,
    /// Something happened on this side that the task has to look at.
    nudged: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    reads: Cell<u32>,
    /// All that there was has just been read: there is nothing to be read but what a look shows.
    drained: Cell<bool>,
}

/// What a look at the rings led to.
enum Step {
    /// So many bytes were made something of.
    Used(usize),
    /// Nothing more will come.
    Over,
    /// More is there, but others are to have their turn.
    NextTurn,
    /// Nothing is there.
    Wait,
}

impl Rings {
    /// Watches the pool's side of a pair.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn new((sender, receiver): (Sender, Receiver)) -> remuda_net::Result<Self> {
        let ends = Ends {
            sender: Some(sender),
            receiver,
            received: Vec::new(),
            unsent: Unsent::default(),
            ending: false,
            hung_up: false,
            end: None,
        };
        let ring = Rc::new(Ring {
            ends: RefCell::new(ends),
            paused: Cell::new(false),
            only_sends: Cell::new(false),
            parked: Cell::new(false),
            held: Cell::new(false),
            nudged: Cell::new(false),
            waker: RefCell::new(None),
            reads: Cell::new(0),
            drained: Cell::new(false),
        });
        let handle = remuda_net::watch_source(ring.clone(), &ring.ends.borrow().receiver)?;
        Ok(Self { ring, handle, gather_bytes: GATHER_BYTES })
    }

    /// The same, of which so many bytes are gathered.
    pub(crate) fn gathering(mut self, gather_bytes: usize) -> Self {
        self.gather_bytes = gather_bytes;
        self
    }

    /// Has the end of the peer noticed by the socket that both sides hold open.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn watch_peer(self: &Rc<Self>) -> remuda_net::Result<()> {
        let life = ReadyFd::readable(&self.ring.ends.borrow().receiver.peer_socket())?;
        let rings = Rc::downgrade(self);
        remuda_net::spawn(async move {
            // An error means that the runtime ends.
            let _ = life.ready().await;
            if let Some(rings) = rings.upgrade() {
                rings.hang_up();
            }
        });
        Ok(())
    }

    /// Waits for bytes and has `f` parse them, as a socket's `with_data` does: gives how many it
    /// consumed, or 0 at the end. `f` gets what it didn't consume again, with more behind it.
    /// Cancel safe.
    pub(crate) async fn with_data(&self, f: &mut impl FnMut(&[u8]) -> ParseResult) -> usize {
        loop {
            match self.step(f) {
                Step::Used(count) => return count,
                Step::Over => return 0,
                Step::NextTurn => self.next_turn().await,
                Step::Wait => self.wait().await,
            }
        }
    }

    fn step(&self, f: &mut impl FnMut(&[u8]) -> ParseResult) -> Step {
        let reads = self.ring.reads.replace(self.ring.reads.get() + 1);
        if reads >= READS_IN_A_ROW {
            self.ring.reads.set(0);
            return Step::NextTurn;
        }
        let was_drained = self.ring.drained.take();
        let mut ends = self.ring.ends.borrow_mut();
        ends.flush();
        let is_over = ends.end.is_some() || ends.hung_up || ends.receiver.sees_end();
        if was_drained && !is_over {
            return Step::Wait;
        }
        if self.ring.paused.get() && ends.end.is_none() && !ends.hung_up {
            return Step::Wait;
        }
        if !ends.receive() {
            return if ends.end.is_some() { Step::Over } else { Step::Wait };
        }
        let is_alone = ends.received.len() <= ALONE_BYTES;
        let mut received = std::mem::take(&mut ends.received);
        // `f` may send on this connection, or close it.
        drop(ends);
        let used = match f(&received) {
            ParseResult::Consumed(count) => count.min(received.len()),
            ParseResult::NeedMore => 0,
        };
        if used == received.len() {
            received = emptied(received);
        } else {
            received.drain(..used);
        }
        self.ring.ends.borrow_mut().received = received;
        // Nothing was made of it: it takes more, or there is no more.
        if used == 0 {
            return self.step(f);
        }
        self.ring.drained.set(is_alone);
        Step::Used(used)
    }

    /// Waits until there is something to take, or room that is waited for, or something happened
    /// on this side.
    async fn wait(&self) {
        poll_fn(|context| {
            if self.ring.nudged.take() {
                return Poll::Ready(());
            }
            self.ring.note(context.waker());
            // The runtime asks for the doorbell when it goes to sleep. What is waited for may have
            // changed since then.
            if self.ring.parked.get() && self.ring.ask_for_doorbell() {
                return Poll::Ready(());
            }
            let polled = self.poll_ready(context);
            if polled.is_pending() {
                self.ring.reads.set(0);
            }
            polled
        })
        .await;
    }

    /// Waits until the runtime has looked at everything else.
    async fn next_turn(&self) {
        let mut waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) || !self.ring.is_ready() {
                return Poll::Ready(());
            }
            // If it was asleep it knows from here on that it isn't, and will look.
            let _ = self.poll_ready(context);
            self.ring.note(context.waker());
            self.ring.held.set(true);
            let polled = self.poll_ready(context);
            self.ring.held.set(false);
            polled
        })
        .await;
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        pin!(self.handle.ready()).poll(context)
    }

    /// Takes `data` to send it: into the ring where there is room, else to wait for it.
    ///
    /// # Errors
    /// The peer is gone, nothing more is sent, or too much waits already.
    pub(crate) fn send_nowait(&self, data: &[u8]) -> remuda_net::Result<()> {
        let ends = &mut *self.ring.ends.borrow_mut();
        let Some(sender) = ends.sender.as_mut().filter(|_| !ends.ending) else {
            return Err(NetError::Closed);
        };
        let rest = if ends.unsent.is_empty() { push(sender, data)? } else { data };
        if rest.is_empty() {
            return Ok(());
        }
        ends.keep(rest)?;
        ends.await_room(self.ring.parked.get());
        Ok(())
    }

    /// Sends what `write` appends, which is written where it waits: small pieces are put together,
    /// and shown to the peer as one by [`send_gathered`](Self::send_gathered). `true` says that this
    /// is due, before the thread does anything else. Errors are those of
    /// [`send_nowait`](Self::send_nowait).
    #[inline]
    pub(crate) fn gather(&self, write: impl FnOnce(&mut Vec<u8>)) -> remuda_net::Result<bool> {
        let is_first = {
            let ends = &mut *self.ring.ends.borrow_mut();
            if ends.sender.is_none() || ends.ending {
                return Err(NetError::Closed);
            }
            let before = ends.unsent.len();
            let count = ends.keep_written(write)?;
            if before + count < self.gather_bytes {
                return Ok(before == 0);
            }
            before == 0
        };
        self.send_gathered();
        Ok(is_first)
    }

    /// Sends a line in three parts, the middle one without a copy, behind what was gathered.
    pub(crate) fn send_parts(
        &self,
        head: &[u8],
        body: Bytes,
        tail: &[u8],
    ) -> remuda_net::Result<()> {
        {
            let ends = &mut *self.ring.ends.borrow_mut();
            if ends.sender.is_none() || ends.ending {
                return Err(NetError::Closed);
            }
            ends.keep_parts(head, body, tail)?;
        }
        self.send_gathered();
        Ok(())
    }

    /// Shows the peer what was gathered, and wakes it if it sleeps.
    pub(crate) fn send_gathered(&self) {
        let is_cut = {
            let ends = &mut *self.ring.ends.borrow_mut();
            let had_sender = ends.sender.is_some();
            ends.flush();
            ends.await_room(self.ring.parked.get());
            had_sender && ends.hung_up
        };
        if is_cut {
            self.ring.nudge();
        }
    }

    /// Something short is about to be sent: a peer that sleeps wakes up while it is made.
    pub(crate) fn wake_ahead(&self) {
        let ends = &mut *self.ring.ends.borrow_mut();
        if let Some(sender) = &mut ends.sender
            && ends.unsent.is_empty()
            && !ends.ending
        {
            sender.wake_ahead();
        }
    }

    /// Bytes that wait for room in the ring.
    pub(crate) fn unsent(&self) -> usize {
        self.ring.ends.borrow().unsent.len()
    }

    /// Takes nothing more out of the ring.
    pub(crate) fn pause_recv(&self) {
        self.ring.paused.set(true);
    }

    /// Undoes `pause_recv`.
    pub(crate) fn resume_recv(&self) {
        self.ring.paused.set(false);
        self.ring.nudge();
    }

    /// Why nothing more will be received.
    pub(crate) fn closed_by(&self) -> Option<CloseReason> {
        self.ring.ends.borrow().end
    }

    /// The peer is known to be gone: what it published before is read, then nothing more.
    pub(crate) fn hang_up(&self) {
        {
            let ends = &mut *self.ring.ends.borrow_mut();
            ends.hung_up = true;
            ends.receiver.note_peer_gone();
        }
        self.ring.nudge();
    }

    /// Resolves when nothing that is sent can reach the peer. What waits for room goes on being
    /// sent meanwhile. Nothing is received.
    pub(crate) async fn peer_gone(&self) {
        // A message that nobody takes would have it look for ever.
        let _sending = OnlySends::begin(&self.ring);
        while !self.try_flush() {
            self.wait().await;
        }
    }

    /// Sends what there is room for; true if nothing that is sent can reach the peer.
    fn try_flush(&self) -> bool {
        let ends = &mut *self.ring.ends.borrow_mut();
        ends.flush();
        ends.hung_up || ends.sender.is_none()
    }

    /// Sends nothing more, once what waits for room has gone out. Receiving goes on.
    pub(crate) fn shutdown_write(&self) {
        let ends = &mut *self.ring.ends.borrow_mut();
        ends.ending = true;
        ends.flush();
    }

    /// Receives nothing more, and sends nothing but what waits for room.
    pub(crate) fn close(self: &Rc<Self>) {
        {
            let ends = &mut *self.ring.ends.borrow_mut();
            ends.end = Some(CloseReason::Local);
            ends.ending = true;
            ends.flush();
            if ends.sender.is_some() {
                let rings = Rc::clone(self);
                remuda_net::spawn(async move {
                    // What is not taken within that time is dropped.
                    let _ = remuda_net::timeout(CLOSE_LINGER, rings.peer_gone()).await;
                });
            }
        }
        self.ring.nudge();
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        // Whoever still holds a duplicate of it, the task that watches it among them, hears of it.
        let ends = self.ring.ends.borrow();
        let _ = rustix::net::shutdown(ends.receiver.peer_socket(), rustix::net::Shutdown::Both);
    }
}

/// As long as it is there, messages that came wake nobody.
struct OnlySends<'a>(&'a Ring);

impl<'a> OnlySends<'a> {
    fn begin(ring: &'a Ring) -> Self {
        ring.only_sends.set(true);
        Self(ring)
    }
}

impl Drop for OnlySends<'_> {
    fn drop(&mut self) {
        self.0.only_sends.set(false);
    }
}

impl Ring {
    /// Wakes the task that waits.
    fn nudge(&self) {
        self.nudged.set(true);
        if let Some(waiting) = self.waker.borrow_mut().take() {
            waiting.wake();
        }
    }

    /// Remembers which task waits.
    fn note(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Whether messages are waited for.
    fn receives(&self, ends: &Ends) -> bool {
        ends.end.is_none() && !self.paused.get() && !self.only_sends.get()
    }

    /// Asks for the doorbell for all that is waited for; true if some of it has come already.
    fn ask_for_doorbell(&self) -> bool {
        let ends = &mut *self.ends.borrow_mut();
        // An error shows when the ring is used.
        let mut come = self.receives(ends) && ends.receiver.park().unwrap_or(true);
        if !ends.unsent.is_empty()
            && let Some(sender) = &mut ends.sender
        {
            come |= sender.park().unwrap_or(true);
        }
        come
    }
}

impl Source for Ring {
    fn is_ready(&self) -> bool {
        if self.held.get() {
            return false;
        }
        let ends = self.ends.borrow();
        self.receives(&ends) && ends.receiver.sees_message()
            || !ends.unsent.is_empty() && ends.sender.as_ref().is_some_and(Sender::sees_room)
    }

    fn park(&self) -> bool {
        self.parked.set(true);
        let has_come = self.ask_for_doorbell();
        if has_come {
            // An end doesn't show in `is_ready`: the task is to look more closely.
            self.nudged.set(true);
        }
        has_come
    }

    fn unpark(&self) {
        self.parked.set(false);
        let ends = &mut *self.ends.borrow_mut();
        // Who sent a message takes back what `park` said, and rings. To do it here, too, would first
        // wait for that word to travel.
        if !ends.receiver.sees_message() {
            ends.receiver.unpark();
        }
        ends.sender.iter_mut().for_each(Sender::unpark);
    }
}
