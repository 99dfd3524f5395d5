//! Passing on what arrives on either of two connections to the other.

use std::cell::Cell;
use std::future::pending;

use crate::combine::{Either, select};
use crate::conn::CloseReason;
use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::recv::ParseResult;
use crate::runtime;
use crate::splice;

/// Unsent bytes of a connection at which the other isn't read any more.
const UNSENT: usize = 256 << 10;
/// So many arrivals of so many bytes in a row make splicing worth its while.
const LARGE: (u32, usize) = (4, 32 << 10);

/// How many bytes were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// From the first connection to the second.
    pub there: u64,
    /// From the second connection to the first.
    pub back: u64,
    /// Of both, those that were never in this process's memory.
    pub spliced: u64,
}

/// Sends on to `second` what arrives on `first`, and the other way round, until both have ended
/// their sending halves; when one ends, the other's sending half is ended. Bytes that are
/// buffered already go first. Neither connection is closed.
///
/// Where large pieces arrive, on two connections without TLS, the kernel passes them on by
/// `splice(2)`, from one socket to the other, without copying them to this process and back.
/// Meanwhile sending to either gives [`NetError::Forwarding`], four descriptors are in use
/// for pipes and up to four more to wait with. Small pieces, and all where SIGPIPE isn't
/// ignored (a Rust program ignores it), go through receive buffers as by
/// [`ConnCtx::forward_recv_buf`].
///
/// A connection whose peer doesn't read holds up its own direction only: at most 512 KiB of
/// it wait here.
///
/// # Errors
/// [`NetError::PeerGone`] if either connection breaks, [`NetError::Closed`] if it is closed
/// on this side, [`NetError::Cancelled`] by [`ConnCtx::cancel`], and those of
/// [`ConnCtx::send_nowait`]. What was on its way then is lost.
///
/// Dropping the future is no error, but may lose what was taken from one connection and is
/// not sent to the other yet.
pub async fn forward_both(first: ConnCtx, second: ConnCtx) -> Result<Forwarded> {
    let there = Direction::new(first, second);
    let back = Direction::new(second, first);
    let mut may_splice = splice::is_possible(first, second);
    while !(there.ended.get() && back.ended.get()) {
        let turn = both(there.copy(may_splice), back.copy(may_splice)).await?;
        if turn == Turn::Large {
            may_splice = splice::pass_on(&there, &back).await?;
        }
    }
    let spliced = there.spliced.get() + back.spliced.get();
    Ok(Forwarded { there: there.total.get(), back: back.total.get(), spliced })
}

/// Why one way of passing on stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This direction has ended.
    Ended,
    /// The pieces have become large, and could be spliced.
    Large,
    /// They have become small, and would better be copied.
    Small,
    /// The kernel splices none of these.
    Refused,
}

/// Runs both directions until one has something to say. Neither loses anything by being dropped.
pub(crate) async fn both(
    there: impl Future<Output = Result<Turn>>,
    back: impl Future<Output = Result<Turn>>,
) -> Result<Turn> {
    match select(there, back).await {
        Either::First(turn) | Either::Second(turn) => turn,
    }
}

/// Unsent bytes that a connection may have.
fn limit() -> usize {
    runtime::with_io(|state, _| state.limits.send).unwrap_or_default()
}

/// One direction, and what has gone through.
pub(crate) struct Direction {
    pub(crate) from: ConnCtx,
    pub(crate) to: ConnCtx,
    pub(crate) total: Cell<u64>,
    pub(crate) spliced: Cell<u64>,
    pub(crate) ended: Cell<bool>,
}

impl Direction {
    fn new(from: ConnCtx, to: ConnCtx) -> Self {
        let (total, spliced) = (Cell::new(0), Cell::new(0));
        Self { from, to, total, spliced, ended: Cell::new(false) }
    }

    /// Passes on by way of receive buffers.
    async fn copy(&self, may_splice: bool) -> Result<Turn> {
        let mut large = 0;
        while !self.ended.get() {
            self.room().await?;
            let mut sent = Ok(());
            let pass_on = |data: &[u8]| self.send(data, &mut sent);
            let count = self.from.with_data(pass_on).await;
            sent?;
            if count == 0 {
                return self.end();
            }
            self.total.set(self.total.get() + count as u64);
            large = if count >= LARGE.1 { large + 1 } else { 0 };
            if may_splice && large >= LARGE.0 {
                return Ok(Turn::Large);
            }
        }
        pending().await
    }

    /// What a closure makes of the bytes that have arrived, of which as many go as there is
    /// room for.
    fn send(&self, data: &[u8], sent: &mut Result<()>) -> ParseResult {
        let room = limit().saturating_sub(self.to.unsent());
        let part = &data[..data.len().min(room)];
        *sent = self.to.forward_recv_buf(part);
        // On an error all is consumed, so that the future resolves.
        ParseResult::Consumed(if sent.is_ok() { part.len() } else { data.len() })
    }

    /// Sends on what is buffered.
    pub(crate) async fn drain(&self) -> Result<()> {
        loop {
            let mut sent = Ok(());
            let parsed = self.from.try_with_data(|data| self.send(data, &mut sent));
            sent?;
            let Some(ParseResult::Consumed(count)) = parsed else { break };
            self.total.set(self.total.get() + count as u64);
            self.room().await?;
        }
        self.to.flushed(0).await
    }

    /// Waits until there are few unsent bytes.
    async fn room(&self) -> Result<()> {
        let most = UNSENT.min(limit() / 2);
        if self.to.unsent() > most { self.to.flushed(most).await } else { Ok(()) }
    }

    /// Nothing more comes: tells the other side, if that is an end and no failure.
    pub(crate) fn end(&self) -> Result<Turn> {
        match self.from.closed_by() {
            Some(CloseReason::Eof) => {}
            Some(CloseReason::Reset(kind)) => return Err(NetError::PeerGone(kind)),
            Some(CloseReason::Local) => return Err(NetError::Closed),
            None => return Err(NetError::Cancelled),
        }
        self.ended.set(true);
        self.to.shutdown_write();
        Ok(Turn::Ended)
    }
}
