//! What a completion is for: packed in the 64 bits that io_uring hands back with it.

use crate::slots::Key;

/// The kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody looks at its completion.
    Ignored,
    Recv,
    Send,
    /// A short answer, of which only a failure is told; named by its place in the list of those.
    Silent,
    /// The outcome of a connect.
    Connect,
    /// The hang-up that `peer_gone` waits for.
    HangUp,
    Accept,
    Watch,
    /// The eventfd by which other threads wake the runtime.
    Wake,
    /// What ends waits.
    Timer,
}

const KINDS: [Kind; 10] = [
    Kind::Ignored,
    Kind::Recv,
    Kind::Send,
    Kind::Silent,
    Kind::Connect,
    Kind::HangUp,
    Kind::Accept,
    Kind::Watch,
    Kind::Wake,
    Kind::Timer,
];

const KIND_SHIFT: u32 = 60;
const SERIAL_BITS: u32 = 28;

/// Operations of a connection keep its place in the table until their last completion, so
/// the serial number's upper bits, for which there is no room, are not missed.
pub(super) fn pack(kind: Kind, key: Key) -> u64 {
    let serial = u64::from(key.serial) & ((1 << SERIAL_BITS) - 1);
    (kind as u64) << KIND_SHIFT | serial << 32 | u64::from(key.index)
}

pub(super) fn unpack(name: u64) -> (Kind, u32, u32) {
    let kind = KINDS.get((name >> KIND_SHIFT) as usize).copied().unwrap_or(Kind::Ignored);
    (kind, name as u32, (name >> 32) as u32 & ((1 << SERIAL_BITS) - 1))
}

/// Whether the entry that is in the place is the one that the operation was for.
pub(super) fn is_same(key: Key, serial: u32) -> bool {
    key.serial & ((1 << SERIAL_BITS) - 1) == serial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_packing() {
        for kind in KINDS {
            let key = Key { index: u32::MAX - 1, serial: 0xabcd_ef01 };
            let (same, index, serial) = unpack(pack(kind, key));
            assert_eq!((same, index), (kind, key.index));
            assert!(is_same(key, serial));
            assert!(!is_same(Key { serial: key.serial + 1, ..key }, serial));
        }
    }
}
