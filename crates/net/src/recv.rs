//! Receiving: the futures, and the lending of a connection's buffer to a closure.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::conn::Conn;
use crate::ctx::ConnCtx;
use crate::driver::Driver;
use crate::recv_buf::RecvBuf;
use crate::runtime;
use crate::sleeper::Sleeper;
use crate::slots::Key;
use crate::state::{Lent, State};

/// What a closure made of the bytes that it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseResult {
    /// So many bytes from the front are done with.
    Consumed(usize),
    /// The message isn't all there; all bytes stay.
    NeedMore,
}

/// What a future that parses remembers between polls.
struct Waiting {
    key: Key,
    /// Bytes that had arrived when a closure was shown them and needed more; 0 before that.
    offered: u64,
    cancels: Option<u32>,
    local: PhantomData<Rc<()>>,
}

impl Waiting {
    fn new(key: Key) -> Self {
        Self { key, offered: 0, cancels: None, local: PhantomData }
    }

    #[inline]
    fn poll(
        &mut self,
        waker: &Waker,
        mut parse: impl FnMut(&mut Loan) -> ControlFlow<ParseResult, ParseResult>,
    ) -> Poll<usize> {
        loop {
            let mut loan = Loan::none(self.key);
            match self.begin(&mut loan, waker) {
                Step::Done(count) => return Poll::Ready(count),
                Step::Wait => return Poll::Pending,
                Step::Parse => {}
            }
            let (parsed, goes_on) = match parse(&mut loan) {
                ControlFlow::Continue(parsed) => (parsed, true),
                ControlFlow::Break(parsed) => (parsed, false),
            };
            let polled = self.end(&mut loan, parsed, goes_on, waker);
            if !goes_on || !matches!(polled, Poll::Ready(1..)) {
                return polled;
            }
        }
    }

    /// Lends the connection's buffer if `f` has not seen all of it; else notes who waits.
    #[inline]
    fn begin(&mut self, loan: &mut Loan, waker: &Waker) -> Step {
        let key = self.key;
        let step = runtime::with_io(|state, driver| {
            let Some(conn) = state.conns.live(key) else { return Step::Done(0) };
            if *self.cancels.get_or_insert(conn.cancels) != conn.cancels {
                return Step::Done(0);
            }
            conn.recv_mark = 0;
            let is_new = self.offered != conn.arrived || conn.recv_end.is_some();
            if is_new && !conn.recv.is_empty() {
                loan.take(conn, &mut state.lent);
                return Step::Parse;
            }
            if conn.recv_end.is_some() {
                return Step::Done(0);
            }
            park(conn, waker);
            if !conn.receives() {
                driver.update_recv(state, key);
            }
            Step::Wait
        });
        step.unwrap_or(Step::Done(0))
    }

    /// Gives the buffer back after a parse. One that `goes_on` waits at once if nothing is left.
    #[inline]
    fn end(
        &mut self,
        loan: &mut Loan,
        parsed: ParseResult,
        goes_on: bool,
        waker: &Waker,
    ) -> Poll<usize> {
        let key = self.key;
        let consumed = match parsed {
            ParseResult::Consumed(count) => count.min(loan.data.len()),
            ParseResult::NeedMore => 0,
        };
        let polled = runtime::with_io(|state, driver| {
            loan.settle(consumed, state);
            let Some(conn) = state.live(key) else { return Poll::Ready(consumed) };
            if consumed > 0 {
                (self.offered, self.cancels) = (0, None);
                if !conn.receives() {
                    driver.update_recv(state, key);
                } else if goes_on && conn.recv_end.is_none() {
                    self.cancels = Some(conn.cancels);
                    park(conn, waker);
                    return Poll::Pending;
                }
                return Poll::Ready(consumed);
            }
            conn.recv.thaw();
            if conn.recv_end.is_some() || self.cancels != Some(conn.cancels) {
                return Poll::Ready(0);
            }
            self.offered = conn.arrived;
            park(conn, waker);
            driver.update_recv(state, key);
            Poll::Pending
        });
        polled.unwrap_or(Poll::Ready(0))
    }
}

enum Step {
    Parse,
    Wait,
    Done(usize),
}

#[inline]
fn park(conn: &mut Conn, waker: &Waker) {
    conn.recv_waker = Some(Sleeper::of(waker));
}

/// A connection's buffer while a closure looks at it. It is out of the connection, so that
/// the closure may use the connection; and it goes back even if the closure panics.
struct Loan {
    key: Key,
    data: RecvBuf,
    in_ring: bool,
}

impl Loan {
    fn none(key: Key) -> Self {
        Self { key, data: RecvBuf::Empty, in_ring: false }
    }

    #[inline]
    fn take(&mut self, conn: &mut Conn, lent: &mut Vec<Lent>) {
        self.data = std::mem::take(&mut conn.recv);
        if let RecvBuf::Ring(slice) = &self.data {
            let bytes = slice.as_slice();
            let (start, len, buffer) = (bytes.as_ptr(), bytes.len(), slice.buffer);
            lent.push(Lent { start, len, buffer, forwarded: false });
            self.in_ring = true;
        }
    }

    /// Gives the buffer back, without what was consumed of it.
    fn settle(&mut self, consumed: usize, state: &mut State) {
        let lent = if std::mem::take(&mut self.in_ring) { state.lent.pop() } else { None };
        let forwarded = lent.is_some_and(|lent| lent.forwarded);
        let data = std::mem::take(&mut self.data);
        if consumed >= data.len() {
            // A buffer that was forwarded belongs to a send by now, which hands it back.
            if !forwarded {
                data.release(&mut state.recv_pool);
            }
            return;
        }
        self.put_back(data, forwarded, consumed, state);
    }

    /// Puts what was not consumed where it was.
    #[inline(never)]
    fn put_back(&self, mut data: RecvBuf, forwarded: bool, consumed: usize, state: &mut State) {
        if forwarded {
            let mut copy = RecvBuf::Empty;
            copy.append(&data.as_slice()[consumed..], &mut state.recv_pool);
            data = copy;
        } else {
            data.consume(consumed, &mut state.recv_pool);
        }
        match state.conns.get_mut(self.key) {
            Some(conn) if conn.recv.is_empty() && conn.is_open() => conn.recv = data,
            _ => data.release(&mut state.recv_pool),
        }
    }
}

impl Drop for Loan {
    #[inline]
    fn drop(&mut self) {
        if self.in_ring || !self.data.is_empty() {
            runtime::with_io(|state, _| self.settle(0, state));
        }
    }
}

macro_rules! parsing_future {
    ($(#[$doc:meta])* $name:ident, $argument:ty, $prepare:expr) => {
        $(#[$doc])*
        #[must_use = "futures do nothing unless they are awaited"]
        pub struct $name<F> {
            waiting: Waiting,
            f: F,
        }

        // `f` is never pinned.
        impl<F> Unpin for $name<F> {}

        impl<F> $name<F> {
            pub(crate) fn new(key: Key, f: F) -> Self {
                Self { waiting: Waiting::new(key), f }
            }
        }

        impl<F: FnMut($argument) -> ParseResult> Future for $name<F> {
            type Output = usize;

            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
                let Self { waiting, f } = &mut *self;
                waiting.poll(cx.waker(), |loan| ControlFlow::Break(f($prepare(loan))))
            }
        }
    };
}

parsing_future!(
    /// Made by [`ConnCtx::with_data`](crate::ConnCtx::with_data).
    WithDataFuture,
    &[u8],
    Loan::as_slice
);

parsing_future!(
    /// Made by [`ConnCtx::with_bytes`](crate::ConnCtx::with_bytes).
    WithBytesFuture,
    Bytes,
    Loan::freeze
);

/// Receives for a future that is written by hand; made by [`ConnCtx::reading`]. It is smaller than
/// what an `async` block makes of [`ConnCtx::with_data`].
pub struct Reading(Waiting);

impl Reading {
    pub(crate) fn new(key: Key) -> Self {
        Self(Waiting::new(key))
    }

    /// The connection.
    pub fn conn(&self) -> ConnCtx {
        ConnCtx::new(self.0.key)
    }

    /// As the future that [`ConnCtx::with_data`] makes of `f`, but it goes on with what comes next
    /// until `f` gives [`ControlFlow::Break`]. Once it was ready, the next poll is the first of another
    /// such future.
    #[inline]
    pub fn poll_with_data(
        &mut self,
        cx: &Context<'_>,
        mut f: impl FnMut(&[u8]) -> ControlFlow<ParseResult, ParseResult>,
    ) -> Poll<usize> {
        let polled = self.0.poll(cx.waker(), |loan| f(loan.as_slice()));
        if polled.is_ready() {
            self.0 = Waiting::new(self.0.key);
        }
        polled
    }
}

impl Loan {
    fn as_slice(&mut self) -> &[u8] {
        self.data.as_slice()
    }

    fn freeze(&mut self) -> Bytes {
        let frozen = runtime::with_io(|state, _| {
            if std::mem::take(&mut self.in_ring) {
                state.lent.pop();
            }
            self.data.freeze(&mut state.recv_pool)
        });
        frozen.unwrap_or_default()
    }
}

pub(crate) fn try_with_data<F>(key: Key, f: F) -> Option<ParseResult>
where
    F: FnOnce(&[u8]) -> ParseResult,
{
    let mut loan = Loan::none(key);
    let lent = runtime::with_io(|state, _| {
        let Some(conn) = state.conns.live(key).filter(|conn| !conn.recv.is_empty()) else {
            return false;
        };
        loan.take(conn, &mut state.lent);
        true
    });
    if lent != Some(true) {
        return None;
    }
    let parsed = f(loan.data.as_slice());
    let consumed = match parsed {
        ParseResult::Consumed(count) => count.min(loan.data.len()),
        ParseResult::NeedMore => 0,
    };
    runtime::with_io(|state, driver: &mut Driver| {
        loan.settle(consumed, state);
        driver.update_recv(state, key);
    });
    Some(parsed)
}

/// Made by [`ConnCtx::recv_ready`](crate::ConnCtx::recv_ready).
#[must_use = "futures do nothing unless they are awaited"]
pub struct RecvReadyFuture {
    key: Key,
    cancels: Option<u32>,
    local: PhantomData<Rc<()>>,
}

impl RecvReadyFuture {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, cancels: None, local: PhantomData }
    }
}

impl Future for RecvReadyFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let key = self.key;
        let polled = runtime::with_io(|state, driver| {
            let Some(conn) = state.live(key) else { return Poll::Ready(()) };
            let cancelled = *self.cancels.get_or_insert(conn.cancels) != conn.cancels;
            let in_sink = conn.sink().is_some_and(|sink| {
                let told = std::mem::replace(&mut sink.told, sink.filled);
                sink.filled > told || sink.room() == 0
            });
            if cancelled || in_sink || !conn.recv.is_empty() || conn.recv_end.is_some() {
                return Poll::Ready(());
            }
            park(conn, cx.waker());
            driver.update_recv(state, key);
            Poll::Pending
        });
        polled.unwrap_or(Poll::Ready(()))
    }
}
