//! Scatter-gather sends.

use bytes::Bytes;

use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::send::{SendFuture, sendable};
use crate::{runtime, send};

enum Part {
    /// So many of the copied bytes.
    Copied(usize),
    Shared(Bytes),
}

/// Collects the parts of one message; made by [`ConnCtx::send_parts`]. All are accepted, or none.
///
/// ```no_run
/// # async fn example(conn: remuda_net::ConnCtx, body: Vec<u8>) -> remuda_net::Result<()> {
/// let header = format!("{}\n", body.len());
/// conn.send_parts().copy(header.as_bytes()).guard(body).submit()?.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent before submit"]
pub struct AsyncSendBuilder {
    conn: ConnCtx,
    copied: Vec<u8>,
    parts: Vec<Part>,
}

impl AsyncSendBuilder {
    /// Adds a copy of `data`.
    pub fn copy(mut self, data: &[u8]) -> Self {
        self.copied.extend_from_slice(data);
        match self.parts.last_mut() {
            Some(Part::Copied(len)) => *len += data.len(),
            _ => self.parts.push(Part::Copied(data.len())),
        }
        self
    }

    /// Adds memory that is sent as it is. Its owner is kept until the kernel has the bytes, and
    /// is dropped then. (TLS encrypts, which copies.)
    pub fn guard(self, owner: impl AsRef<[u8]> + Send + 'static) -> Self {
        self.bytes(Bytes::from_owner(owner))
    }

    /// Adds shared memory, which is sent as it is.
    pub fn bytes(mut self, data: Bytes) -> Self {
        if !data.is_empty() {
            self.parts.push(Part::Shared(data));
        }
        self
    }

    /// Bytes of all parts.
    pub fn len(&self) -> usize {
        let shared = |part: &Part| match part {
            Part::Copied(_) => 0,
            Part::Shared(bytes) => bytes.len(),
        };
        self.copied.len() + self.parts.iter().map(shared).sum::<usize>()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends the parts, in their order, and gives a future that resolves to their length when
    /// the kernel has all of them.
    ///
    /// # Errors
    /// As [`ConnCtx::send_nowait`]; then no part was accepted.
    pub fn submit(self) -> Result<SendFuture> {
        let (key, len) = (self.conn.key, self.len());
        let end = self.accept()?;
        Ok(SendFuture::new(key, len, end))
    }

    /// Sends the parts without a future.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_nowait(self) -> Result<()> {
        self.accept().map(drop)
    }

    fn accept(self) -> Result<u64> {
        let (key, len) = (self.conn.key, self.len());
        let copies = self.parts.iter().filter(|part| matches!(part, Part::Copied(_))).count();
        let copied = self.copied.len();
        let checked = runtime::with_io(|state, _| {
            let conn = sendable(&mut state.conns, state.limits, key, len)?;
            let end = conn.send.queued;
            // Each copied part may need a piece of its own, so that none fails half-way.
            if state.send_pool.has_room_for(copied, copies) {
                Ok(end)
            } else {
                Err(state.send_pool.exhausted())
            }
        });
        let mut end = checked.unwrap_or(Err(NetError::NoRuntime))?;
        let mut rest = &self.copied[..];
        for part in self.parts {
            end = match part {
                Part::Copied(len) => {
                    let (data, after) = rest.split_at(len);
                    rest = after;
                    send::copied(key, data)?
                }
                Part::Shared(bytes) => send::shared(key, bytes)?,
            };
        }
        Ok(end)
    }
}

impl ConnCtx {
    /// Begins a message of several parts, some copied and some sent from where they are.
    pub fn send_parts(&self) -> AsyncSendBuilder {
        AsyncSendBuilder { conn: *self, copied: Vec::new(), parts: Vec::new() }
    }
}
