//! The sequence word in front of each slot: whose message it is, how long, and where it begins.

/// Set in the word of every published message, so that a slot of zeros is never one.
const PUBLISHED: u64 = 1 << 31;
/// Set when the payload begins on the line after the word.
const SPREAD: u64 = 1 << 30;
const LEN_MASK: u64 = (1 << 28) - 1;

/// A sequence word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The message awaited, its length and whether its payload is spread. Unchecked.
    Published { len: u32, spread: bool },
    /// The message awaited isn't published yet.
    Before,
    /// Neither: no honest producer writes this.
    Foreign,
}

/// The word of the message at `position`.
pub(super) fn encode(position: u64, len: u32, spread: bool) -> u64 {
    let spread = if spread { SPREAD } else { 0 };
    (position << 32) | PUBLISHED | spread | u64::from(len)
}

/// What `word` says to a consumer that awaits the message at `position` in a ring of `capacity`.
pub(super) fn decode(word: u64, position: u64, capacity: u32) -> Word {
    let sequence = (word >> 32) as u32;
    if word & PUBLISHED == 0 {
        // Only a slot that was never used is unpublished, and it is zero.
        return if word == 0 && position < u64::from(capacity) {
            Word::Before
        } else {
            Word::Foreign
        };
    }
    if sequence == position as u32 {
        let reserved = word & u64::from(u32::MAX) & !(PUBLISHED | SPREAD | LEN_MASK);
        if reserved != 0 {
            return Word::Foreign;
        }
        return Word::Published { len: (word & LEN_MASK) as u32, spread: word & SPREAD != 0 };
    }
    let before = position.wrapping_sub(u64::from(capacity)) as u32;
    if sequence == before && position >= u64::from(capacity) { Word::Before } else { Word::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written() {
        for position in [0, 1, 7, u64::from(u32::MAX), u64::from(u32::MAX) + 1] {
            for (len, spread) in [(0, false), (56, false), (64 << 20, true)] {
                let word = encode(position, len, spread);
                assert_eq!(decode(word, position, 4), Word::Published { len, spread });
                assert_eq!(decode(word, position + 4, 4), Word::Before);
                assert_eq!(decode(word, position + 1, 4), Word::Foreign);
            }
        }
    }

    #[test]
    fn zeros_are_a_fresh_slot_in_the_first_lap_only() {
        assert_eq!(decode(0, 3, 4), Word::Before);
        assert_eq!(decode(0, 4, 4), Word::Foreign);
    }
}
