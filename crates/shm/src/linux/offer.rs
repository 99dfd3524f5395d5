//! The message that hands a pair of rings over: 32 bytes, as values, without any I/O.
//!
//! ```text
//!  0  magic      8 bytes  "REMUSHM\0"
//!  8  version    u32      1
//! 12  kind       u32      0 an offer, 1 and up a refusal
//! 16  capacity   u32      slots a ring
//! 20  slot size  u32      bytes a slot
//! 24  size       u64      bytes of the region, which follow from the two
//! ```
//!
//! Integers are in the machine's own order: both sides run on it. Four descriptors travel with an
//! offer: the memory, the engine's doorbell, the application's doorbell, and the application's end
//! of the socket that proves each side to the other. None travel with a refusal.

use crate::error::{Refusal, ShmError};
use crate::geometry::Geometry;

/// Bytes of the message.
pub const OFFER_LEN: usize = 32;
/// Descriptors that travel with an offer.
pub const OFFER_DESCRIPTORS: usize = 4;

const MAGIC: [u8; 8] = *b"REMUSHM\0";
/// Changes whenever the layout of the memory or the meaning of a word in it does.
const VERSION: u32 = 1;

/// What the engine says to an application that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Here is a pair of rings of this shape.
    Pair(Geometry),
    /// No pair, and why.
    Refused(Refusal),
}

impl Offer {
    /// The message's bytes.
    pub fn encode(self) -> [u8; OFFER_LEN] {
        let (kind, capacity, slot_size, size) = match self {
            Self::Pair(geometry) => {
                (0, geometry.capacity(), geometry.slot_size(), geometry.region_size())
            }
            Self::Refused(reason) => (code(reason), 0, 0, 0),
        };
        let mut bytes = [0; OFFER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[12..16].copy_from_slice(&u32::to_ne_bytes(kind));
        bytes[16..20].copy_from_slice(&u32::to_ne_bytes(capacity));
        bytes[20..24].copy_from_slice(&u32::to_ne_bytes(slot_size));
        bytes[24..].copy_from_slice(&u64::to_ne_bytes(size));
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`ShmError::BadOffer`] for anything that [`encode`](Self::encode) doesn't write.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShmError> {
        let bytes: &[u8; OFFER_LEN] =
            bytes.try_into().map_err(|_| ShmError::BadOffer("it has another length"))?;
        if bytes[..8] != MAGIC {
            return Err(ShmError::BadOffer("it does not begin with the magic bytes"));
        }
        if word(bytes, 8) != VERSION {
            return Err(ShmError::BadOffer("it has another version; use the same on both sides"));
        }
        let (capacity, slot_size) = (word(bytes, 16), word(bytes, 20));
        let size = (u64::from(word(bytes, 24)), u64::from(word(bytes, 28)));
        let size = if cfg!(target_endian = "little") {
            size.0 | size.1 << 32
        } else {
            size.0 << 32 | size.1
        };
        match word(bytes, 12) {
            0 => {
                let geometry = Geometry::new(capacity, slot_size)
                    .map_err(|_| ShmError::BadOffer("its rings are outside of the limits"))?;
                if geometry.region_size() != size {
                    return Err(ShmError::BadOffer("its size does not follow from its rings"));
                }
                Ok(Self::Pair(geometry))
            }
            kind if (capacity, slot_size, size) == (0, 0, 0) => {
                [Refusal::Taken, Refusal::WrongUser, Refusal::Exhausted]
                    .into_iter()
                    .find(|reason| code(*reason) == kind)
                    .map(Self::Refused)
                    .ok_or(ShmError::BadOffer("it is of an unknown kind"))
            }
            _ => Err(ShmError::BadOffer("it is of an unknown kind")),
        }
    }
}

fn code(reason: Refusal) -> u32 {
    match reason {
        Refusal::Taken => 1,
        Refusal::WrongUser => 2,
        Refusal::Exhausted => 3,
    }
}

fn word(bytes: &[u8; OFFER_LEN], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pair = Offer::Pair(Geometry::new(3, 100).unwrap());
        let refusals = [Refusal::Taken, Refusal::WrongUser, Refusal::Exhausted].map(Offer::Refused);
        for offer in [pair].into_iter().chain(refusals) {
            assert_eq!(Offer::decode(&offer.encode()).unwrap(), offer);
        }
    }

    #[test]
    fn a_single_wrong_byte_in_what_is_fixed_is_an_error() {
        let good = Offer::Pair(Geometry::new(3, 100).unwrap()).encode();
        for at in (0..16).chain(24..32) {
            let mut bad = good;
            bad[at] ^= 0x41;
            assert!(Offer::decode(&bad).is_err(), "byte {at}");
        }
        assert!(Offer::decode(&good[1..]).is_err());
    }
}
