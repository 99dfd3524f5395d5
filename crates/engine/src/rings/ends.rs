//! The two directions of a connection over rings, and what waits in this process to go through them.

use std::io::ErrorKind;

use bytes::Bytes;
use remuda_net::{CloseReason, NetError};
use remuda_shm::{Receiver, Sender, ShmError};

use crate::blocking::LINK_SEND_LIMIT;
use crate::rings::unsent::Unsent;

/// About how many bytes are taken out of a ring before they are looked at.
const READ_BYTES: usize = 64 << 10;

/// Both directions.
pub(super) struct Ends {
    /// None once nothing more is sent.
    pub(super) sender: Option<Sender>,
    pub(super) receiver: Receiver,
    /// What was received and is not a whole line yet.
    pub(super) received: Vec<u8>,
    pub(super) unsent: Unsent,
    /// Nothing more is sent once `unsent` is empty.
    pub(super) ending: bool,
    /// The peer is gone; what it published before is still there.
    pub(super) hung_up: bool,
    /// Why nothing more is received.
    pub(super) end: Option<CloseReason>,
}

impl Ends {
    /// Takes messages out of the ring; true if some came. The end is noted, once nothing is left.
    pub(super) fn receive(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        // In this order: what the peer published before it went is seen after that is known.
        let hung_up = self.hung_up;
        match self.receiver.try_recv_stream(&mut self.received, READ_BYTES) {
            Ok(0) if hung_up && !self.receiver.sees_message() => self.end = Some(CloseReason::Eof),
            Ok(count) => return count > 0,
            Err(ShmError::Corrupt(lie)) => {
                tracing::warn!("a peer broke its rings, and is left: {lie}");
                self.end = Some(CloseReason::Reset(ErrorKind::InvalidData));
            }
            Err(_) => self.end = Some(CloseReason::Eof),
        }
        false
    }

    /// Keeps what is to be sent later.
    pub(super) fn keep(&mut self, data: &[u8]) -> remuda_net::Result<()> {
        self.keep_written(|out| out.extend_from_slice(data)).map(drop)
    }

    /// Keeps what `write` appends; gives how many bytes that is.
    #[inline]
    pub(super) fn keep_written(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> remuda_net::Result<usize> {
        let unsent = self.unsent.len();
        let count = self.unsent.push_at_most(LINK_SEND_LIMIT.saturating_sub(unsent), write);
        if unsent + count > LINK_SEND_LIMIT {
            return Err(NetError::SendLimit { unsent, limit: LINK_SEND_LIMIT });
        }
        Ok(count)
    }

    /// Keeps the pieces of a line, without a copy of the one in the middle.
    pub(super) fn keep_parts(
        &mut self,
        head: &[u8],
        body: Bytes,
        tail: &[u8],
    ) -> remuda_net::Result<()> {
        self.check_limit(head.len() + body.len() + tail.len())?;
        self.unsent.push(head);
        self.unsent.share(body);
        self.unsent.push(tail);
        Ok(())
    }

    fn check_limit(&self, more: usize) -> remuda_net::Result<()> {
        let unsent = self.unsent.len();
        if unsent + more > LINK_SEND_LIMIT {
            return Err(NetError::SendLimit { unsent, limit: LINK_SEND_LIMIT });
        }
        Ok(())
    }

    /// A runtime that is `parked` believes that it has asked for all doorbells. The one for room is
    /// another.
    pub(super) fn await_room(&mut self, parked: bool) {
        let Self { sender: Some(sender), unsent, .. } = self else { return };
        while parked && !unsent.is_empty() && sender.park().unwrap_or(true) {
            let before = unsent.len();
            if !unsent.send(sender) || unsent.len() == before {
                break;
            }
        }
    }

    /// Sends what there is room for, and ends the direction if that was to be the last.
    pub(super) fn flush(&mut self) {
        let Some(sender) = &mut self.sender else { return };
        let reaches = self.unsent.is_empty() || self.unsent.send(sender);
        if !reaches {
            self.unsent = Unsent::default();
            self.hung_up = true;
        }
        if !reaches || self.ending && self.unsent.is_empty() {
            self.sender = None;
        }
    }
}
