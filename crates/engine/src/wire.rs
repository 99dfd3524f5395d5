//! What clients and workers are reached through: a socket, or a pair of rings in shared memory.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;
use remuda_net::{CloseReason, ConnCtx, ParseResult};

use crate::rings::Rings;

/// The socket that proves that the peer lives, the memory, the doorbells, and one more to watch them.
const RINGS_DESCRIPTORS: usize = 6;

/// A connection of either kind. A copy is another handle of the same connection.
#[derive(Clone)]
pub(crate) enum Wire {
    /// A socket.
    Socket(ConnCtx),
    /// A pair of rings.
    Rings(Rc<Rings>),
}

impl Wire {
    /// Waits for bytes and has `f` parse them; gives how many it consumed, or 0 at the end.
    pub(crate) async fn with_data(&self, f: &mut impl FnMut(&[u8]) -> ParseResult) -> usize {
        match self {
            Self::Socket(conn) => conn.with_data(f).await,
            Self::Rings(rings) => rings.with_data(f).await,
        }
    }

    /// Has `f` parse what comes, until nothing more does.
    pub(crate) async fn read_to_end(&self, f: &mut impl FnMut(&[u8]) -> ParseResult) {
        match self {
            Self::Socket(conn) => {
                let mut reading = conn.reading();
                let mut on = |bytes: &[u8]| ControlFlow::Continue(f(bytes));
                poll_fn(|context| reading.poll_with_data(context, &mut on)).await;
            }
            Self::Rings(rings) => while rings.with_data(f).await != 0 {},
        }
    }

    /// Takes `data` to send it; the error says that it never will be.
    pub(crate) fn send_nowait(&self, data: &[u8]) -> remuda_net::Result<()> {
        match self {
            Self::Socket(conn) => conn.send_nowait(data),
            Self::Rings(rings) => rings.send_nowait(data),
        }
    }

    /// As [`send_nowait`](Self::send_nowait) with what `write` appends, but over rings it waits for
    /// [`send_gathered`](Self::send_gathered): `true` says that this is due.
    #[inline]
    pub(crate) fn gather(
        &self,
        scratch: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> remuda_net::Result<bool> {
        match self {
            Self::Socket(conn) => {
                scratch.clear();
                write(scratch);
                conn.send_nowait(scratch).map(|()| false)
            }
            Self::Rings(rings) => rings.gather(write),
        }
    }

    /// Sends a line in three parts, the middle one without a copy. After an error the line may be
    /// there in part: the connection is of no more use.
    pub(crate) fn send_parts(
        &self,
        head: &[u8],
        body: Bytes,
        tail: &[u8],
    ) -> remuda_net::Result<()> {
        match self {
            Self::Socket(conn) => {
                conn.send_nowait(head)?;
                conn.send_bytes(body)?;
                conn.send_nowait(tail)
            }
            Self::Rings(rings) => rings.send_parts(head, body, tail),
        }
    }

    /// Something short is about to be sent: over rings, a peer that sleeps is woken at once.
    pub(crate) fn wake_ahead(&self) {
        if let Self::Rings(rings) = self {
            rings.wake_ahead();
        }
    }

    /// Sends what was gathered.
    pub(crate) fn send_gathered(&self) {
        if let Self::Rings(rings) = self {
            rings.send_gathered();
        }
    }

    /// Sends what the connection takes; one that doesn't take it is cut.
    pub(crate) fn send_or_cut(&self, data: &[u8]) {
        if self.send_nowait(data).is_err() {
            self.close();
        }
    }

    /// Bytes that were taken and that the peer can't read yet.
    pub(crate) fn unsent(&self) -> usize {
        match self {
            Self::Socket(conn) => conn.unsent(),
            Self::Rings(rings) => rings.unsent(),
        }
    }

    /// Takes nothing more from the peer, which is held back once its buffers are full.
    pub(crate) fn pause_recv(&self) {
        match self {
            Self::Socket(conn) => conn.pause_recv(),
            Self::Rings(rings) => rings.pause_recv(),
        }
    }

    /// Undoes `pause_recv`.
    pub(crate) fn resume_recv(&self) {
        match self {
            Self::Socket(conn) => conn.resume_recv(),
            Self::Rings(rings) => rings.resume_recv(),
        }
    }

    /// Why nothing more will be received, if that is so.
    pub(crate) fn closed_by(&self) -> Option<CloseReason> {
        match self {
            Self::Socket(conn) => conn.closed_by(),
            Self::Rings(rings) => rings.closed_by(),
        }
    }

    /// Resolves when nothing that is sent can reach the peer any more.
    pub(crate) async fn peer_gone(&self) {
        match self {
            Self::Socket(conn) => conn.peer_gone().await,
            Self::Rings(rings) => rings.peer_gone().await,
        }
    }

    /// How many descriptors it takes.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Socket(_) => 1,
            Self::Rings(_) => RINGS_DESCRIPTORS,
        }
    }

    /// Closes it; what was taken for sending still goes out, if the peer takes it soon.
    pub(crate) fn close(&self) {
        match self {
            Self::Socket(conn) => conn.close(),
            Self::Rings(rings) => rings.close(),
        }
    }
}
