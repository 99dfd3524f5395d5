//! Sending and receiving, the same on both sides of a pair.

/// Gives a side that has `sender: Turn<Sender>` and `receiver: Turn<Receiver>` its calls.
macro_rules! sends_and_receives {
    ($side:ident) => {
        impl $side {
            /// Ends all waiting when the token is cancelled: `recv` then gives `None`, `send`
            /// [`ShmError::Closed`].
            #[cfg(feature = "tokio")]
            pub fn set_cancel(&mut self, cancel: ::tokio_util::sync::CancellationToken) {
                self.sender.get_mut().set_cancel(cancel.clone());
                self.receiver.get_mut().set_cancel(cancel);
            }

            /// Sends one message to the peer. While the ring is full it yields, then sleeps until
            /// the peer has taken something.
            ///
            /// May be called from several tasks; each gets its turn. Cancel safe: a future dropped
            /// before it is ready has sent nothing.
            ///
            /// # Errors
            ///
            /// [`ShmError::PacketTooLarge`]; [`ShmError::Closed`] when the peer is gone, the token
            /// was cancelled, or the ring stayed full for
            /// [`Options::full_limit`](crate::Options::full_limit) (five seconds by the clock),
            /// which closes this direction; [`ShmError::Corrupt`] when the peer broke the
            /// protocol. [`closed_by`](Self::closed_by) says what closed it.
            ///
            /// # Panics
            ///
            /// When the ring is full, outside of a tokio runtime with I/O and time enabled.
            #[cfg(feature = "tokio")]
            pub async fn send(&self, pkt: ::bytes::Bytes) -> Result<(), ShmError> {
                self.sender.take().await.send(pkt).await
            }

            /// Sends several messages, in order and with no other caller's between them, in as few
            /// runs as there is room for. Each run is published at once: one look at the peer's
            /// index for each time the ring seems full, one store of the tail, and at most one
            /// wake-up. The peer is woken before this side waits for room.
            ///
            /// When the future is dropped, or the pair closes half way, what was sent stays sent.
            ///
            /// # Errors
            ///
            /// As [`send`](Self::send). All sizes are checked first: when a message is too large,
            /// none is sent.
            ///
            /// # Panics
            ///
            /// As [`send`](Self::send).
            #[cfg(feature = "tokio")]
            pub async fn send_batch(&self, pkts: &[::bytes::Bytes]) -> Result<(), ShmError> {
                self.sender.take().await.send_batch(pkts).await
            }

            /// Receives one message from the peer; waits until there is one. `None` when the peer
            /// is gone and everything it sent was received, or when the token was cancelled.
            ///
            /// May be called from several tasks; each message goes to one of them. Cancel safe: a
            /// future dropped before it is ready has taken nothing.
            ///
            /// # Panics
            ///
            /// When it has to wait, outside of a tokio runtime with I/O enabled.
            #[cfg(feature = "tokio")]
            pub async fn recv(&self) -> Option<::bytes::Bytes> {
                self.receiver.take().await.recv().await
            }

            /// Receives up to `most` messages, and waits until there is at least one. They are
            /// appended to `into`; the answer says how many, and is 0 when the pair is closed.
            ///
            /// Cancel safe: a future dropped before it is ready has taken nothing.
            ///
            /// # Panics
            ///
            /// As [`recv`](Self::recv).
            #[cfg(feature = "tokio")]
            pub async fn recv_batch(&self, into: &mut Vec<::bytes::Bytes>, most: usize) -> usize {
                self.receiver.take().await.recv_batch(into, most).await
            }

            /// Sends one message, if there is room and no other caller waits for it.
            ///
            /// # Errors
            ///
            /// As [`Sender::try_send`](crate::Sender::try_send).
            pub fn try_send(&self, pkt: &[u8]) -> Result<(), ShmError> {
                match self.sender.try_take() {
                    Some(mut sender) => sender.try_send(pkt),
                    None => Err(ShmError::Full),
                }
            }

            /// Receives one message, if there is one and no other caller waits for it.
            ///
            /// # Errors
            ///
            /// As [`Receiver::try_recv`](crate::Receiver::try_recv).
            pub fn try_recv(&self) -> Result<Option<::bytes::Bytes>, ShmError> {
                match self.receiver.try_take() {
                    Some(mut receiver) => receiver.try_recv(),
                    None => Ok(None),
                }
            }

            /// Receives up to `most` messages that are there, unless another caller waits for
            /// them. They are appended to `into`; the answer says how many.
            ///
            /// # Errors
            ///
            /// As [`Receiver::try_recv_batch`](crate::Receiver::try_recv_batch).
            pub fn try_recv_batch(
                &self,
                into: &mut Vec<::bytes::Bytes>,
                most: usize,
            ) -> Result<usize, ShmError> {
                match self.receiver.try_take() {
                    Some(mut receiver) => receiver.try_recv_batch(into, most),
                    None => Ok(0),
                }
            }

            /// Sends one message, and blocks the thread while the ring is full.
            ///
            /// # Errors
            ///
            /// As [`Sender::send_blocking`](crate::Sender::send_blocking).
            pub fn send_blocking(&self, pkt: &[u8]) -> Result<(), ShmError> {
                self.sender.take_blocking().send_blocking(pkt)
            }

            /// Sends several messages as [`Sender::send_batch_blocking`]
            /// (crate::Sender::send_batch_blocking) does.
            ///
            /// # Errors
            ///
            /// As [`Sender::send_batch_blocking`](crate::Sender::send_batch_blocking).
            pub fn send_batch_blocking<M: AsRef<[u8]>>(&self, pkts: &[M]) -> Result<(), ShmError> {
                self.sender.take_blocking().send_batch_blocking(pkts)
            }

            /// Receives one message, and blocks the thread until there is one. `None` when the
            /// pair is closed.
            pub fn recv_blocking(&self) -> Option<::bytes::Bytes> {
                self.receiver.take_blocking().recv_blocking()
            }

            /// The largest message, in bytes.
            pub fn slot_size(&self) -> usize {
                self.geometry.slot_size() as usize
            }

            /// Messages that fit into the ring of each direction.
            pub fn capacity(&self) -> usize {
                self.geometry.capacity() as usize
            }

            /// What closed the pair, or one direction of it, if anything did.
            pub fn closed_by(&self) -> Option<$crate::CloseReason> {
                self.life.reason()
            }
        }
    };
}

pub(crate) use sends_and_receives;
