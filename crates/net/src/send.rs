//! Sending: what is accepted, and the futures that wait for it to go out.

use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::conn::{Conn, Splicing};
use crate::driver::{DIRECT_BYTES, Driver, RingSlice};
use crate::error::{NetError, Result};
use crate::runtime;
use crate::send_queue::Chunk;
use crate::sleeper::Sleeper;
use crate::slots::{Key, Slots};
use crate::state::{Lent, Limits, State};

/// The connection, if it can take `len` bytes more for sending.
#[inline]
pub(crate) fn sendable(
    conns: &mut Slots<Conn>,
    limits: Limits,
    key: Key,
    len: usize,
) -> Result<&mut Conn> {
    let limit = limits.send;
    let Some(conn) = conns.live(key) else { return Err(NetError::Closed) };
    if let Some(kind) = conn.send_error {
        return Err(NetError::PeerGone(kind));
    }
    if conn.fin_wanted {
        return Err(NetError::Closed);
    }
    if conn.splicing == Splicing::On {
        return Err(NetError::Forwarding);
    }
    let unsent = conn.send.unsent();
    if unsent + len > limit {
        return Err(NetError::SendLimit { unsent, limit });
    }
    Ok(conn)
}

/// Accepts a copy; returns how far the stream will be when it has gone out.
pub(crate) fn copied(key: Key, data: &[u8]) -> Result<u64> {
    let accepted = runtime::with_io(|state, driver| {
        let conn = sendable(&mut state.conns, state.limits, key, data.len())?;
        if data.len() >= DIRECT_BYTES || conn.tls().is_some() {
            return long_or_encrypted(state, driver, key, data);
        }
        conn.send.push_copied(data, &mut state.send_pool)?;
        conn.mark_dirty(key, &mut state.dirty);
        Ok(conn.send.queued)
    });
    let Some(accepted) = accepted else { return Err(NetError::NoRuntime) };
    accepted
}

/// The part of [`copied`] for what is not just put in the queue.
fn long_or_encrypted(state: &mut State, driver: &mut Driver, key: Key, data: &[u8]) -> Result<u64> {
    let Some(conn) = state.conns.get_mut(key) else { return Err(NetError::Closed) };
    if !conn.send.fits_in_last(data.len()) && !state.send_pool.has_room(data.len()) {
        return Err(state.send_pool.exhausted());
    }
    if conn.tls().is_some() {
        state.with_tls(key, |tls, queue| tls.send(data, queue)).unwrap_or(Ok(()))?;
        return state.conns.get(key).map(|conn| conn.send.queued).ok_or(NetError::Closed);
    }
    let gone = driver.send_directly(state, key, data);
    let Some(conn) = state.conns.get_mut(key) else { return Err(NetError::Closed) };
    // There is room for it: that was looked at before anything was sent.
    conn.send.push_copied(&data[gone..], &mut state.send_pool)?;
    if conn.send.has_chunks() {
        conn.mark_dirty(key, &mut state.dirty);
    }
    Ok(conn.send.queued)
}

/// Accepts shared memory; returns as [`copied`].
pub(crate) fn shared(key: Key, data: Bytes) -> Result<u64> {
    let accepted = runtime::with_io(|state, _| {
        let conn = sendable(&mut state.conns, state.limits, key, data.len())?;
        if conn.tls().is_some() {
            state.with_tls(key, |tls, queue| tls.send(&data, queue)).unwrap_or(Ok(()))?;
            return state.conns.get(key).map(|conn| conn.send.queued).ok_or(NetError::Closed);
        }
        if !data.is_empty() {
            conn.send.push(Chunk::Shared(data));
        }
        conn.mark_dirty(key, &mut state.dirty);
        Ok(conn.send.queued)
    });
    let Some(accepted) = accepted else { return Err(NetError::NoRuntime) };
    accepted
}

/// Accepts a part of the ring buffer that a closure has before it, or copies.
pub(crate) fn forwarded(key: Key, data: &[u8]) -> Result<()> {
    let accepted = runtime::with_io(|state, driver| {
        let plenty = driver.can_spare_buffer(state);
        // What keeps anything from being sent is told where it is copied.
        let Some(conn) = state.conns.live(key) else { return false };
        let fits = conn.send.unsent() + data.len() <= state.limits.send;
        if !fits || !plenty || data.is_empty() || !conn.sends_in_place() {
            return false;
        }
        let inside = |lent: &&mut Lent| {
            let end = lent.start.wrapping_add(lent.len);
            !lent.forwarded && data.as_ptr() >= lent.start && data.as_ptr_range().end <= end
        };
        let Some(lent) = state.lent.iter_mut().rev().find(inside) else { return false };
        lent.forwarded = true;
        // SAFETY: `data` is inside the lent buffer's initialized bytes. As `forwarded` is set,
        // the loan doesn't hand the buffer back: this slice alone does, when it was sent.
        let slice = unsafe { RingSlice::new(data.as_ptr(), data.len(), lent.buffer) };
        conn.send.push(Chunk::Ring(slice));
        conn.mark_dirty(key, &mut state.dirty);
        true
    });
    if accepted == Some(true) { Ok(()) } else { copied(key, data).map(drop) }
}

/// Waits on a connection's stream.
struct Waiting {
    key: Key,
    cancels: Option<u32>,
    local: PhantomData<Rc<()>>,
}

impl Waiting {
    fn new(key: Key) -> Self {
        Self { key, cancels: None, local: PhantomData }
    }

    /// Ready when the stream has come to what `target` says of the connection.
    fn poll(&mut self, waker: &Waker, target: impl Fn(&Conn) -> u64) -> Poll<Result<()>> {
        let key = self.key;
        let polled = runtime::with_io(|state, _| {
            let Some(conn) = state.conns.get_mut(key) else {
                return Poll::Ready(Err(NetError::Closed));
            };
            let target = target(conn);
            if conn.send.sent >= target {
                return Poll::Ready(Ok(()));
            }
            if let Some(kind) = conn.send_error {
                return Poll::Ready(Err(NetError::PeerGone(kind)));
            }
            if *self.cancels.get_or_insert(conn.cancels) != conn.cancels {
                return Poll::Ready(Err(NetError::Cancelled));
            }
            wait_for(conn, target, waker);
            Poll::Pending
        });
        polled.unwrap_or(Poll::Ready(Err(NetError::NoRuntime)))
    }
}

fn wait_for(conn: &mut Conn, target: u64, waker: &Waker) {
    let sleeper = Sleeper::of(waker);
    let waiters = &mut conn.rare().send_waiters;
    match waiters.iter_mut().find(|(_, known)| *known == sleeper) {
        // One task that waits for several things is woken for the first, and looks again.
        Some((position, _)) => *position = target.min(*position),
        None => waiters.push((target, sleeper)),
    }
}

/// Made by [`ConnCtx::send`](crate::ConnCtx::send).
#[must_use = "the bytes are sent in any case; await this to know when"]
pub struct SendFuture {
    waiting: Waiting,
    len: usize,
    end: u64,
}

impl SendFuture {
    pub(crate) fn new(key: Key, len: usize, end: u64) -> Self {
        Self { waiting: Waiting::new(key), len, end }
    }
}

impl Future for SendFuture {
    type Output = Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (len, end) = (self.len, self.end);
        self.waiting.poll(cx.waker(), |_| end).map_ok(|()| len)
    }
}

/// Made by [`ConnCtx::flushed`](crate::ConnCtx::flushed).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Flushed {
    waiting: Waiting,
    mark: usize,
}

impl Flushed {
    pub(crate) fn new(key: Key, mark: usize) -> Self {
        Self { waiting: Waiting::new(key), mark }
    }
}

impl Future for Flushed {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mark = self.mark as u64;
        self.waiting.poll(cx.waker(), |conn| conn.send.queued.saturating_sub(mark))
    }
}

/// Made by [`ConnCtx::peer_gone`](crate::ConnCtx::peer_gone).
#[must_use = "futures do nothing unless they are awaited"]
pub struct PeerGone {
    key: Key,
    local: PhantomData<Rc<()>>,
}

impl PeerGone {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, local: PhantomData }
    }
}

impl Future for PeerGone {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = runtime::with_io(|state, driver| {
            let Some(conn) = state.live(self.key) else { return Poll::Ready(()) };
            if conn.gone {
                return Poll::Ready(());
            }
            driver.watch_gone(state, self.key);
            let Some(conn) = state.live(self.key) else { return Poll::Ready(()) };
            conn.note_event_waiter(cx.waker());
            Poll::Pending
        });
        polled.unwrap_or(Poll::Ready(()))
    }
}
