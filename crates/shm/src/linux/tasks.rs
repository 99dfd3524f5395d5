//! The calls of both halves that are futures for tokio.

use bytes::Bytes;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::error::ShmError;
use crate::linux::receiver::Receiver;
use crate::linux::sender::Sender;

impl Sender {
    /// Ends this half's waiting when the token is cancelled: sends then give
    /// [`ShmError::Closed`].
    pub fn set_cancel(&mut self, cancel: CancellationToken) {
        self.link.cancel = Some(cancel);
    }

    /// Sends one message; waits while the ring is full.
    ///
    /// Cancel safe: a future dropped before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// As [`send_blocking`](Self::send_blocking).
    ///
    /// # Panics
    ///
    /// When the ring is full, outside of a tokio runtime with I/O and time enabled.
    pub async fn send(&mut self, message: Bytes) -> Result<(), ShmError> {
        consume_budget().await;
        loop {
            match self.try_send(&message) {
                Err(ShmError::Full) => self.wait_room().await?,
                done => return done,
            }
        }
    }

    /// Sends all messages in as few runs as there is room for; waits while the ring is full.
    ///
    /// A future dropped before it is ready has sent some of them, in order.
    ///
    /// # Errors
    ///
    /// As [`send_batch_blocking`](Self::send_batch_blocking).
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    pub async fn send_batch(&mut self, messages: &[Bytes]) -> Result<(), ShmError> {
        consume_budget().await;
        let mut left = messages;
        loop {
            let sent = self.try_send_batch(left)?;
            left = &left[sent..];
            if left.is_empty() {
                return Ok(());
            }
            self.wait_room().await?;
        }
    }

    /// Waits until there is room for a message.
    ///
    /// # Errors
    ///
    /// As [`wait_room_blocking`](Self::wait_room_blocking).
    ///
    /// # Panics
    ///
    /// As [`send`](Self::send).
    pub async fn wait_room(&mut self) -> Result<(), ShmError> {
        let mut deadline = None;
        loop {
            self.check_open()?;
            if self.has_room()? {
                return Ok(());
            }
            let Some(deadline) = deadline else {
                // The peer may be a task of this thread: let it run before asking to be woken.
                deadline = Some(self.link.full_deadline());
                yield_now().await;
                continue;
            };
            let ring = &self.ring;
            if self.link.watch_briefly(|| ring.sees_room()) || self.park()? {
                continue;
            }
            let heard = self.link.listen(Some(deadline)).await;
            self.ring.unpark();
            heard?;
            self.check_deadline(deadline)?;
        }
    }
}

impl Receiver {
    /// Ends this half's waiting when the token is cancelled: receiving then gives `None` or
    /// [`ShmError::Closed`].
    pub fn set_cancel(&mut self, cancel: CancellationToken) {
        self.link.cancel = Some(cancel);
    }

    /// Takes one message; waits until there is one. `None` when the pair is closed:
    /// [`closed_by`](Self::closed_by) says by what.
    ///
    /// Cancel safe: a future dropped before it is ready has taken nothing.
    ///
    /// # Panics
    ///
    /// When it has to wait, outside of a tokio runtime with I/O enabled.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.wait_message().await.ok()?;
        self.try_recv().ok()?
    }

    /// Waits until there is a message.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    ///
    /// # Panics
    ///
    /// As [`recv`](Self::recv).
    pub async fn wait_message(&mut self) -> Result<(), ShmError> {
        consume_budget().await;
        while !self.has_message()? {
            let ring = &self.ring;
            if self.link.watch_briefly(|| !matches!(ring.look(), Ok(None))) || self.park()? {
                continue;
            }
            // Who rings has taken back what `park` said.
            self.link.listen(None).await?;
            let ring = &self.ring;
            self.link.expect(|| !matches!(ring.look(), Ok(None)));
        }
        Ok(())
    }

    /// Takes up to `most` messages, and waits until there is at least one. They are appended to
    /// `into`; the answer says how many, and is 0 when the pair is closed.
    ///
    /// Cancel safe: a future dropped before it is ready has taken nothing.
    ///
    /// # Panics
    ///
    /// As [`recv`](Self::recv).
    pub async fn recv_batch(&mut self, into: &mut Vec<Bytes>, most: usize) -> usize {
        if self.wait_message().await.is_err() {
            return 0;
        }
        self.try_recv_batch(into, most).unwrap_or(0)
    }
}
