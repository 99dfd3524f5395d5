//! What one direction of a pair needs besides its ring: doorbells, the proof that the peer lives,
//! how to wait, and what closed it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{CloseReason, Lie, ShmError};
use crate::linux::bell::Bell;
use crate::linux::life::{Life, Pulse};
use crate::linux::memory::NextLines;
use crate::linux::options::Waiting;
use crate::linux::sleeper::Sleeper;
use crate::linux::spin::Spin;
use crate::linux::vigil::Vigil;

/// What both directions of one side share.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) own: Arc<Bell>,
    pub(crate) peer: Arc<Bell>,
    pub(crate) life: Arc<Life>,
    pub(crate) waiting: Waiting,
    /// Messages sent, for the receiver to tell a stream from answers.
    sent: Arc<AtomicU64>,
    pub(crate) next_lines: Arc<NextLines>,
}

impl Side {
    pub(crate) fn new(own: Bell, peer: Bell, life: Life, waiting: Waiting) -> Self {
        Self {
            own: Arc::new(own),
            peer: Arc::new(peer),
            life: Arc::new(life),
            waiting,
            sent: Arc::default(),
            next_lines: Arc::default(),
        }
    }

    /// The descriptors that travel with an offer, besides the memory: for the peer, what is its
    /// own and what is the peer's are swapped.
    pub(crate) fn from_offer(mut descriptors: Vec<OwnedFd>, waiting: Waiting) -> Option<Self> {
        let life = Life::new(descriptors.pop()?);
        let own = Bell::from_peer(descriptors.pop()?);
        let peer = Bell::from_peer(descriptors.pop()?);
        Some(Self::new(own, peer, life, waiting))
    }
}

/// Whether this direction may sleep by a read of the doorbell.
#[derive(Debug)]
enum Vigilance {
    Untried,
    Kept(#[expect(dead_code, reason = "held so that it goes on")] Vigil),
    Impossible,
}

/// The moment when `limit` is over, however long it is.
pub(crate) fn deadline_in(limit: Duration) -> Instant {
    /// Longer than any program runs.
    const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
    Instant::now() + limit.min(FAR)
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) side: Side,
    pulse: Pulse,
    spin: Spin,
    sleeper: Option<Sleeper>,
    vigil: Vigilance,
    closed: bool,
    sent_seen: u64,
    #[cfg(feature = "tokio")]
    pub(crate) ears: Option<crate::linux::ears::Ears>,
    #[cfg(feature = "tokio")]
    pub(crate) cancel: Option<tokio_util::sync::CancellationToken>,
}

impl Link {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            pulse: Pulse::new(Arc::clone(&side.life), side.waiting.asks),
            spin: Spin::new(side.waiting.spin),
            sleeper: None,
            vigil: Vigilance::Untried,
            closed: false,
            sent_seen: 0,
            #[cfg(feature = "tokio")]
            ears: None,
            #[cfg(feature = "tokio")]
            cancel: None,
            side,
        }
    }

    #[inline]
    pub(crate) fn ring_peer_if(&self, sleeping: bool) {
        if sleeping {
            self.side.peer.ring();
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the peer is gone, as of a few milliseconds ago.
    #[inline]
    pub(crate) fn is_peer_gone(&self) -> bool {
        self.pulse.is_gone()
    }

    /// Closes this direction for good. The first reason of either direction is the one told.
    pub(crate) fn close(&mut self, reason: CloseReason) -> ShmError {
        self.closed = true;
        self.side.life.note(reason);
        ShmError::Closed
    }

    /// Closes this direction because the peer broke the protocol; the other one ends as if the
    /// peer were gone.
    pub(crate) fn corrupt(&mut self, lie: Lie) -> ShmError {
        self.close(CloseReason::Corrupt(lie));
        self.side.life.give_up();
        ShmError::Corrupt(lie)
    }

    /// Whether the token was cancelled; if so this direction is closed.
    #[inline]
    pub(crate) fn is_cancelled(&mut self) -> bool {
        #[cfg(feature = "tokio")]
        if self.cancel.as_ref().is_some_and(tokio_util::sync::CancellationToken::is_cancelled) {
            self.close(CloseReason::Cancelled);
            return true;
        }
        false
    }

    /// Remembers how many messages were sent.
    #[inline]
    pub(crate) fn note_sent(&self, sent: u64) {
        self.side.sent.store(sent, Ordering::Relaxed);
    }

    /// Whether this side has sent nothing since it last waited: what it waits for is then no
    /// answer, but one message of many.
    fn is_stream(&mut self) -> bool {
        let sent = self.side.sent.load(Ordering::Relaxed);
        std::mem::replace(&mut self.sent_seen, sent) == sent
    }

    /// Watches for as long as pays.
    pub(crate) fn watch(&mut self, ready: impl Fn() -> bool) -> bool {
        let (limit, stream) = (self.spin.limit(), self.is_stream());
        self.spin.watch(limit, stream, ready)
    }

    /// Watches for what the doorbell may have been rung ahead of.
    pub(crate) fn expect(&self, ready: impl Fn() -> bool) {
        self.spin.expect(ready);
    }

    /// Watches for the short time that an asynchronous task may hold its thread.
    #[cfg(feature = "tokio")]
    pub(crate) fn watch_briefly(&mut self, ready: impl Fn() -> bool) -> bool {
        let (limit, stream) = (self.spin.limit() / 10, self.is_stream());
        self.spin.watch(limit, stream, ready)
    }

    /// Blocks until the doorbell rings, the peer is gone, the token is cancelled, or `deadline`.
    pub(crate) fn sleep(&mut self, deadline: Option<Instant>) -> Result<(), ShmError> {
        if self.side.life.is_known_gone() {
            return Ok(());
        }
        let sleeper = match self.sleeper.take() {
            Some(sleeper) => sleeper,
            None => Sleeper::new(&self.side.own, &self.side.life)?,
        };
        let slept = self.unless_cancelled(|| sleeper.sleep(&self.side.life, deadline));
        self.sleeper = Some(sleeper);
        slept
    }

    /// As [`sleep`](Self::sleep) without a deadline, by a read of the doorbell where that is
    /// possible, which takes half a microsecond less.
    pub(crate) fn sleep_long(&mut self) -> Result<(), ShmError> {
        if self.side.own.is_watched() || !self.may_hear() {
            return self.sleep(None);
        }
        // Here, or by the vigil, which then rings.
        if self.side.life.is_known_gone() {
            return Ok(());
        }
        if self.unless_cancelled(|| self.side.own.hear()).is_err() {
            // The peer, who shares the setting, has it not block.
            self.vigil = Vigilance::Impossible;
        }
        self.side.next_lines.fetch();
        Ok(())
    }

    fn may_hear(&mut self) -> bool {
        if let Vigilance::Untried = self.vigil {
            let kept =
                Vigil::keep(&self.side.life, &self.side.own).filter(|_| self.side.own.let_block());
            self.vigil = kept.map_or(Vigilance::Impossible, Vigilance::Kept);
        }
        matches!(self.vigil, Vigilance::Kept(_))
    }

    /// Blocks in `sleep`, whose doorbell also rings when the token is cancelled.
    fn unless_cancelled<E>(&self, sleep: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        #[cfg(feature = "tokio")]
        return crate::linux::ears::ring_when_cancelled(
            self.cancel.as_ref(),
            &self.side.own,
            sleep,
        );
        #[cfg(not(feature = "tokio"))]
        sleep()
    }

    /// When a send that begins to wait for room has waited for too long.
    pub(crate) fn full_deadline(&self) -> Instant {
        deadline_in(self.side.waiting.full_limit)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // From here on the caller may wait for it as it likes.
        self.side.own.watch_forever();
        self.side.own.as_fd()
    }
}
