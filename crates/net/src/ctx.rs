//! The handle of a connection.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use bytes::Bytes;

use crate::conn::{CloseReason, Conn, Kind};
use crate::error::{NetError, Result};
use crate::io;
use crate::peer::{self, PeerAddr, PeerCred};
use crate::recv::{ParseResult, Reading, RecvReadyFuture, WithBytesFuture, WithDataFuture};
use crate::runtime;
use crate::send::{self, Flushed, PeerGone, SendFuture};
use crate::slots::Key;

/// Names a connection of this worker. Of a slot that is used again it is told apart by its
/// generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnToken(pub(crate) Key);

impl ConnToken {
    /// The connection's slot.
    pub fn index(&self) -> usize {
        self.0.index as usize
    }

    /// How often the slot has been used, counted from 1.
    pub fn generation(&self) -> u32 {
        self.0.serial
    }
}

impl fmt::Debug for ConnToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0.index, self.0.serial)
    }
}

/// A connection, to be received from, sent to and closed.
///
/// It is a small value that is copied freely and stays on its thread. It is valid for the
/// lifetime of the connection: afterwards nothing it does reaches another connection, even one
/// in the same slot. Receiving then gives 0, sending [`NetError::Closed`].
///
/// One task at a time may wait to receive; of two, the one that waited last is woken.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnCtx {
    pub(crate) key: Key,
    local: PhantomData<Rc<()>>,
}

impl fmt::Debug for ConnCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnCtx({:?})", self.token())
    }
}

impl ConnCtx {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, local: PhantomData }
    }

    /// The connection's slot, for indexing arrays: small, and used again after a close.
    pub fn index(&self) -> usize {
        self.key.index as usize
    }

    /// The connection's name, which is not used again.
    pub fn token(&self) -> ConnToken {
        ConnToken(self.key)
    }

    /// Waits until received bytes are there, then has `f` parse them. Resolves to the number
    /// of bytes consumed; to 0 when the stream is over (ended, reset or closed) and `f` made
    /// nothing of what was left, which it is shown once more.
    ///
    /// It resolves immediately when data is buffered. If `f` returns
    /// [`ParseResult::NeedMore`], or `Consumed(0)`, it is called again with all that is there
    /// then, once more bytes have arrived. `f` may call any method of this or another connection;
    /// within it, this connection's buffer looks empty.
    ///
    /// Cancel safe: what was not consumed stays.
    pub fn with_data<F: FnMut(&[u8]) -> ParseResult>(&self, f: F) -> WithDataFuture<F> {
        WithDataFuture::new(self.key, f)
    }

    /// As [`with_data`](Self::with_data), with bytes that can be kept and sliced without a copy.
    /// (A slice that is kept holds the memory of the whole read.)
    pub fn with_bytes<F: FnMut(Bytes) -> ParseResult>(&self, f: F) -> WithBytesFuture<F> {
        WithBytesFuture::new(self.key, f)
    }

    /// As [`with_data`](Self::with_data), for a future that is written by hand and polls this.
    pub fn reading(&self) -> Reading {
        Reading::new(self.key)
    }

    /// Has received bytes written to `target` instead of the connection's buffer, until `len`
    /// are there or the sink is taken. Bytes that are buffered already stay in the buffer:
    /// take those first. Replaces a sink that was set before.
    ///
    /// # Safety
    /// `target` must point to `len` bytes that may be written to, and that nothing else reads or
    /// writes, until [`take_recv_sink`](Self::take_recv_sink) was called or the connection was
    /// closed on this side.
    pub unsafe fn set_recv_sink(&self, target: *mut u8, len: usize) {
        self.conn(|conn| {
            conn.rare().sink = Some(crate::conn::Sink { target, len, filled: 0, told: 0 });
        });
    }

    /// Takes the sink away; returns the number of bytes that were written to it, 0 if there
    /// was none.
    pub fn take_recv_sink(&self) -> usize {
        self.conn(|conn| conn.rare.as_mut()?.sink.take()).flatten().map_or(0, |sink| sink.filled)
    }

    /// Resolves when bytes are buffered, when the sink has got more than when this last
    /// resolved (or is full), or when the stream is over. Cancel safe.
    pub fn recv_ready(&self) -> RecvReadyFuture {
        RecvReadyFuture::new(self.key)
    }

    /// Has `f` parse what is buffered; `None` if nothing is.
    pub fn try_with_data<F: FnOnce(&[u8]) -> ParseResult>(&self, f: F) -> Option<ParseResult> {
        crate::recv::try_with_data(self.key, f)
    }

    /// Stops reading from the kernel, so that the peer is held back once its and our buffers
    /// are full. What is buffered can still be parsed.
    pub fn pause_recv(&self) {
        self.set_paused(true);
    }

    /// Undoes [`pause_recv`](Self::pause_recv).
    pub fn resume_recv(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        runtime::with_io(|state, driver| {
            if let Some(conn) = state.live(self.key) {
                conn.recv_paused = paused;
                driver.update_recv(state, self.key);
            }
        });
    }

    /// Copies `data` and sends it with whatever else this turn sends to the connection.
    ///
    /// # Errors
    /// [`NetError::SendPoolExhausted`] or [`NetError::SendLimit`] if too much is unsent: then
    /// nothing of `data` was taken. [`NetError::PeerGone`] or [`NetError::Closed`] if it can
    /// never be sent.
    pub fn send_nowait(&self, data: &[u8]) -> Result<()> {
        send::copied(self.key, data).map(drop)
    }

    /// As [`send_nowait`](Self::send_nowait), without a copy, for large bodies.
    ///
    /// # Errors
    /// As `send_nowait`; the pool has no part in it.
    pub fn send_bytes(&self, data: Bytes) -> Result<()> {
        send::shared(self.key, data).map(drop)
    }

    /// Sends `data`, a part of what a [`with_data`](Self::with_data) closure was shown, to this
    /// connection without a copy where that is possible: the receive buffer itself is sent, and
    /// goes back to the kernel when that is done. To be called within the closure.
    ///
    /// Anything else is copied, as by [`send_nowait`](Self::send_nowait): data from TLS, from
    /// mio, from a message that came in several reads, or while receive buffers are scarce.
    ///
    /// # Errors
    /// As `send_nowait`.
    pub fn forward_recv_buf(&self, data: &[u8]) -> Result<()> {
        send::forwarded(self.key, data)
    }

    /// Copies `data`, sends it, and gives a future that resolves to its length when the kernel
    /// has all of it. Dropping the future doesn't take the bytes back.
    ///
    /// # Errors
    /// As [`send_nowait`](Self::send_nowait).
    pub fn send(&self, data: &[u8]) -> Result<SendFuture> {
        let end = send::copied(self.key, data)?;
        Ok(SendFuture::new(self.key, data.len(), end))
    }

    /// Bytes accepted for sending that the kernel doesn't have yet; 0 when they never will
    /// be sent.
    pub fn unsent(&self) -> usize {
        let unsent = |conn: &mut Conn| {
            if conn.send_error.is_some() { 0 } else { conn.send.unsent() }
        };
        self.conn(unsent).unwrap_or(0)
    }

    /// Resolves when at most `mark` bytes are unsent. Cancel safe.
    pub fn flushed(&self, mark: usize) -> Flushed {
        Flushed::new(self.key, mark)
    }

    /// Ends the sending half when all that was accepted has gone out. Receiving goes on.
    pub fn shutdown_write(&self) {
        runtime::with_io(|state, _| {
            let Some(conn) = state.live(self.key) else { return };
            if !std::mem::replace(&mut conn.fin_wanted, true) {
                state.with_tls(self.key, |tls, queue| tls.end(queue));
                state.mark_dirty(self.key);
            }
        });
    }

    /// Makes all that is being waited for on this connection resolve: receiving to 0, sending
    /// and connecting (begun with this connection's `connect*`) to [`NetError::Cancelled`].
    /// The connection stays usable, and bytes that were accepted still go out.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub fn cancel(&self) -> Result<()> {
        let cancelled = runtime::with_io(|state, _| {
            let Some(conn) = state.conns.live(self.key) else { return false };
            conn.cancels = conn.cancels.wrapping_add(1);
            conn.wake_event_waiters(&mut state.wakes);
            state.wakes.extend(conn.recv_waker.take());
            conn.wake_send_waiters(&mut state.wakes);
            true
        });
        if cancelled == Some(true) { Ok(()) } else { Err(NetError::Closed) }
    }

    /// Asks the worker to stop: it stops listening, drops its tasks, and closes its connections
    /// when what they accepted for sending has gone out. See
    /// [`shutdown_requested`](crate::shutdown_requested) for a runtime of `run_local`.
    pub fn request_shutdown(&self) {
        if let Some(token) = runtime::with(|core| core.shutdown().clone()) {
            token.cancel();
        }
    }

    /// Closes the connection. Whoever waits on it is woken; bytes that were accepted for sending
    /// are still tried for `Config::close_linger`. Closing again does nothing.
    ///
    /// On TCP, if the peer's bytes are unread, they are read and dropped until its end comes or
    /// that time is over: the kernel would reset the connection otherwise, and the peer might
    /// lose what was sent last.
    ///
    /// For a connection of an [`AsyncEventHandler`](crate::AsyncEventHandler) its task is dropped,
    /// at its next suspension if it is the one that calls this.
    pub fn close(&self) {
        let task = runtime::with_io(|state, driver| io::close(state, driver, self.key, false));
        if let Some(task) = task.flatten() {
            runtime::with(|core| core.abort(task));
        }
    }

    /// The peer's address, asked of the kernel; `None` once the connection is broken or closed.
    pub fn peer_addr(&self) -> Option<PeerAddr> {
        self.conn(|conn| peer::peer_addr(conn)).flatten()
    }

    /// Who the peer was when it connected (or, for a listener's peer, when it listened).
    /// `None` for TCP.
    pub fn peer_cred(&self) -> Option<PeerCred> {
        self.conn(|conn| if conn.kind == Kind::Unix { peer::peer_cred(conn) } else { None })
            .flatten()
    }

    /// Whether this side connected.
    pub fn is_outbound(&self) -> bool {
        self.conn(|conn| conn.rare.as_ref().is_some_and(|rare| rare.outbound)).unwrap_or(false)
    }

    /// Why nothing more will be received; `None` while something may be. What came before
    /// may still be buffered.
    pub fn closed_by(&self) -> Option<CloseReason> {
        self.conn(|conn| conn.recv_end).unwrap_or(Some(CloseReason::Local))
    }

    /// Resolves when the peer can't be reached any more: a Unix socket's peer closed, the
    /// connection was reset, sending failed, or it was closed on this side. A peer that only
    /// ended its sending half is not gone. (TCP doesn't tell one from the other until a send
    /// fails.) Cancel safe.
    pub fn peer_gone(&self) -> PeerGone {
        PeerGone::new(self.key)
    }

    /// Runs `f` with the connection's state, if it is open.
    pub(crate) fn conn<R>(&self, f: impl FnOnce(&mut Conn) -> R) -> Option<R> {
        runtime::with_io(|state, _| state.live(self.key).map(f)).flatten()
    }
}
