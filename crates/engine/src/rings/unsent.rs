//! What a ring had no room for, and how bytes are put into a ring.

use std::io::ErrorKind;

use remuda_net::NetError;
use remuda_shm::{CloseReason, Sender, ShmError};

/// A buffer that has grown larger is given back when it is empty.
const KEEP_BYTES: usize = 256 << 10;
/// Messages that are put into a ring at once.
const RUN: usize = 16;

/// Bytes for which the ring had no room.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    from: usize,
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        if self.from > self.len() {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    /// Sends what there is room for; false if it can't reach the peer any more.
    pub(super) fn send(&mut self, sender: &mut Sender) -> bool {
        let waiting = self.len();
        match push(sender, &self.bytes[self.from..]).map(<[u8]>::len) {
            Ok(left) => {
                self.advance(waiting - left);
                true
            }
            Err(_) => false,
        }
    }

    fn advance(&mut self, count: usize) {
        self.from += count;
        if self.is_empty() {
            *self = Self { bytes: emptied(std::mem::take(&mut self.bytes)), from: 0 };
        }
    }
}

/// The buffer, empty, unless it has grown too large to be kept.
pub(super) fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    if buffer.capacity() > KEEP_BYTES { Vec::new() } else { buffer }
}

/// Puts into the ring what there is room for, in as few messages as hold it. Gives the rest.
pub(super) fn push<'a>(sender: &mut Sender, data: &'a [u8]) -> remuda_net::Result<&'a [u8]> {
    let slot = sender.slot_size();
    if data.len() <= slot {
        return match sender.try_send(data) {
            Ok(()) => Ok(&[]),
            Err(ShmError::Full) => Ok(data),
            Err(_) => Err(unsendable(sender)),
        };
    }
    let mut rest = data;
    loop {
        let (mut run, mut count) = ([&[][..]; RUN], 0);
        for (place, part) in run.iter_mut().zip(rest.chunks(slot)) {
            *place = part;
            count += 1;
        }
        let Ok(sent) = sender.try_send_batch(&run[..count]) else { return Err(unsendable(sender)) };
        let bytes = run[..sent].iter().map(|part| part.len()).sum();
        rest = &rest[bytes..];
        if sent < count || rest.is_empty() {
            return Ok(rest);
        }
    }
}

/// Tells a peer that went, whose last answers may be in the ring, from one that broke its rings.
fn unsendable(sender: &Sender) -> NetError {
    NetError::PeerGone(match sender.closed_by() {
        Some(CloseReason::Corrupt(_)) => ErrorKind::InvalidData,
        _ => ErrorKind::BrokenPipe,
    })
}
