//! What a ring had no room for, and how bytes are put into a ring.

use std::collections::VecDeque;
use std::io::ErrorKind;

use bytes::{Buf, Bytes};
use remuda_net::NetError;
use remuda_shm::{CloseReason, Sender, ShmError};

/// A buffer that has grown larger is given back when it is empty.
const KEEP_BYTES: usize = 256 << 10;
/// Pieces that are put into a ring at once.
const PIECES: usize = 16;

/// Bytes for which the ring had no room.
#[derive(Default)]
pub(super) struct Unsent {
    /// What goes first.
    bytes: Vec<u8>,
    from: usize,
    /// What goes behind it. Only large bodies bring anything here.
    behind: VecDeque<Piece>,
    behind_len: usize,
}

/// A part of what goes behind.
enum Piece {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Unsent {
    pub(super) fn len(&self) -> usize {
        self.first().len() + self.behind_len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn first(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        self.push_at_most(usize::MAX, |out| out.extend_from_slice(data));
    }

    /// Pushes what `write` appends, and gives how many bytes that is. If they are more than `most`,
    /// they are taken back.
    #[inline]
    pub(super) fn push_at_most(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let is_behind = !self.behind.is_empty();
        let out = if is_behind { self.last_behind() } else { self.compacted() };
        let before = out.len();
        write(out);
        let count = out.len() - before;
        if count > most {
            out.truncate(before);
        } else if is_behind {
            self.behind_len += count;
        }
        count
    }

    /// What goes first, without most of what has gone.
    fn compacted(&mut self) -> &mut Vec<u8> {
        if self.from > self.bytes.len() - self.from {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
        &mut self.bytes
    }

    /// The last piece, to which more can be appended.
    #[cold] // Only large bodies bring anything there.
    fn last_behind(&mut self) -> &mut Vec<u8> {
        if !matches!(self.behind.back(), Some(Piece::Copied(_))) {
            self.behind.push_back(Piece::Copied(Vec::new()));
        }
        match self.behind.back_mut() {
            Some(Piece::Copied(last)) => last,
            _ => &mut self.bytes,
        }
    }

    /// As [`push`](Self::push), without a copy.
    pub(super) fn share(&mut self, data: Bytes) {
        self.behind_len += data.len();
        self.behind.push_back(Piece::Shared(data));
    }

    /// Sends what there is room for; false if it can't reach the peer any more.
    pub(super) fn send(&mut self, sender: &mut Sender) -> bool {
        if !self.behind.is_empty() {
            return self.send_pieces(sender);
        }
        let waiting = self.len();
        match push(sender, self.first()).map(<[u8]>::len) {
            Ok(left) => {
                self.advance(waiting - left);
                true
            }
            Err(_) => false,
        }
    }

    fn send_pieces(&mut self, sender: &mut Sender) -> bool {
        while !self.is_empty() {
            let mut parts = [&[][..]; PIECES];
            parts[0] = self.first();
            for (part, piece) in parts[1..].iter_mut().zip(&self.behind) {
                *part = piece.as_slice();
            }
            let wanted: usize = parts.iter().map(|part| part.len()).sum();
            let Ok(sent) = sender.try_send_stream(&mut parts) else { return false };
            self.advance(sent);
            if sent < wanted {
                break;
            }
        }
        true
    }

    fn advance(&mut self, count: usize) {
        let of_first = count.min(self.first().len());
        self.from += of_first;
        let mut left = count - of_first;
        self.behind_len -= left;
        while self.first().is_empty() {
            (self.bytes, self.from) = (emptied(std::mem::take(&mut self.bytes)), 0);
            match self.behind.pop_front() {
                None => return,
                Some(Piece::Shared(mut bytes)) if left < bytes.len() => {
                    bytes.advance(left);
                    self.behind.push_front(Piece::Shared(bytes));
                    return;
                }
                Some(Piece::Shared(bytes)) => left -= bytes.len(),
                Some(Piece::Copied(bytes)) => {
                    self.behind_len -= bytes.len() - left.min(bytes.len());
                    self.from = left.min(bytes.len());
                    left -= self.from;
                    self.bytes = bytes;
                }
            }
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
    let mut rest = [data];
    match sender.try_send_stream(&mut rest) {
        Ok(_) => Ok(rest[0]),
        Err(_) => Err(unsendable(sender)),
    }
}

/// Tells a peer that went, whose last answers may be in the ring, from one that broke its rings.
fn unsendable(sender: &Sender) -> NetError {
    NetError::PeerGone(match sender.closed_by() {
        Some(CloseReason::Corrupt(_)) => ErrorKind::InvalidData,
        _ => ErrorKind::BrokenPipe,
    })
}

#[cfg(test)]
mod tests {
    use super::Unsent;
    use bytes::Bytes;

    fn waiting(unsent: &Unsent) -> Vec<u8> {
        let behind = unsent.behind.iter().flat_map(|piece| piece.as_slice());
        unsent.first().iter().chain(behind).copied().collect()
    }

    #[test]
    fn pieces_go_out_in_their_order_wherever_the_ring_was_full() {
        for step in 1..40 {
            let mut unsent = Unsent::default();
            unsent.push(b"head 1 ");
            unsent.share(Bytes::from_static(b"shared 1 "));
            unsent.push(b"tail 1 ");
            unsent.push(b"head 2 ");
            unsent.share(Bytes::from_static(b"shared 2 "));
            unsent.share(Bytes::from_static(b"shared 3 "));
            unsent.push(b"tail 3");
            let whole = b"head 1 shared 1 tail 1 head 2 shared 2 shared 3 tail 3";
            let mut sent = 0;
            while sent < whole.len() {
                assert_eq!(waiting(&unsent), whole[sent..]);
                assert_eq!(unsent.len(), whole.len() - sent);
                let count = step.min(unsent.len());
                unsent.advance(count);
                sent += count;
            }
            assert!(unsent.is_empty() && unsent.behind.is_empty());
            unsent.push(b"next");
            assert_eq!(waiting(&unsent), b"next");
        }
    }
    #[test]
    fn what_is_more_than_may_wait_is_taken_back_and_nothing_before_it() {
        let mut unsent = Unsent::default();
        unsent.push(b"head ");
        for is_behind in [false, true] {
            if is_behind {
                unsent.share(Bytes::from_static(b"shared "));
            }
            let before = waiting(&unsent);
            assert_eq!(unsent.push_at_most(3, |out| out.extend_from_slice(b"long")), 4);
            assert_eq!((waiting(&unsent), unsent.len()), (before.clone(), before.len()));
            assert_eq!(unsent.push_at_most(4, |out| out.extend_from_slice(b"fits")), 4);
            assert_eq!(waiting(&unsent), [&before[..], b"fits"].concat());
            assert_eq!(unsent.len(), before.len() + 4);
        }
        unsent.advance(unsent.len());
        assert!(unsent.is_empty() && unsent.behind.is_empty());
    }
}
