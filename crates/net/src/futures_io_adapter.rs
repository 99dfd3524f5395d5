//! A connection as a stream of `futures-io`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_io::{AsyncBufRead, AsyncRead, AsyncWrite};

use crate::conn::CloseReason;
use crate::ctx::ConnCtx;
use crate::recv::{ParseResult, WithBytesFuture};
use crate::send::Flushed;

/// Unsent bytes above which a write waits.
const WRITE_AHEAD: usize = 256 << 10;

/// A connection as `AsyncRead`, `AsyncBufRead` and `AsyncWrite` of `futures-io`. Dropping it
/// leaves the connection open; closing the stream ends its sending half.
///
/// ```no_run
/// # async fn example(conn: remuda_net::ConnCtx) {
/// let stream = remuda_net::ConnStream::new(conn);
/// // Anything that takes a futures_io::AsyncRead + AsyncWrite takes it.
/// # }
/// ```
pub struct ConnStream {
    conn: ConnCtx,
    /// Received bytes that were taken from the connection and not read from here.
    held: Bytes,
}

impl ConnStream {
    /// Wraps a connection. While it is read from here, it isn't to be read by other means.
    pub fn new(conn: ConnCtx) -> Self {
        Self { conn, held: Bytes::new() }
    }

    /// The connection.
    pub fn conn(&self) -> ConnCtx {
        self.conn
    }
}

impl AsyncBufRead for ConnStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            let mut taken = Bytes::new();
            let mut take: WithBytesFuture<_> = this.conn.with_bytes(|bytes| {
                let len = bytes.len();
                taken = bytes;
                ParseResult::Consumed(len)
            });
            let polled = Pin::new(&mut take).poll(cx);
            drop(take);
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => {
                    if let Some(CloseReason::Reset(kind)) = this.conn.closed_by() {
                        return Poll::Ready(Err(kind.into()));
                    }
                }
                Poll::Ready(_) => this.held = taken,
            }
        }
        Poll::Ready(Ok(&this.held))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        let held = &mut self.get_mut().held;
        held.advance(count.min(held.len()));
    }
}

impl AsyncRead for ConnStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let there = match self.as_mut().poll_fill_buf(cx) {
            Poll::Ready(Ok(there)) => there,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let count = there.len().min(into.len());
        into[..count].copy_from_slice(&there[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl ConnStream {
    fn poll_flushed(&self, mark: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut flushed: Flushed = self.conn.flushed(mark);
        Pin::new(&mut flushed).poll(cx).map_err(io::Error::from)
    }
}

impl AsyncWrite for ConnStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_flushed(WRITE_AHEAD, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let some = &data[..data.len().min(WRITE_AHEAD)];
        Poll::Ready(self.conn.send_nowait(some).map(|()| some.len()).map_err(io::Error::from))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(0, cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.shutdown_write();
        self.poll_flushed(0, cx)
    }
}
