//! Numbers as decimal text, as ids and limits are written.

/// The least number with more than eight digits.
const EIGHT_DIGITS: u64 = 100_000_000;
/// Eight times the character zero.
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// Appends a number in decimal.
#[inline]
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    if number >= EIGHT_DIGITS {
        return push_large_number(out, number);
    }
    let digits = eight_digits(number);
    // A zero has a digit, too.
    let leading = (digits.trailing_zeros() / 8).min(7);
    // All eight bytes are written, since that takes no loop, and what is too much is taken off.
    out.extend_from_slice(&((digits + ZEROS) >> (leading * 8)).to_le_bytes());
    out.truncate(out.len() - leading as usize);
}

/// The digits of a number below [`EIGHT_DIGITS`], each in a byte, the first one lowest. Halved, and
/// the halves halved, all of them at once: a division by a constant is a multiplication.
#[inline]
const fn eight_digits(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let tens = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = tens | ((fours - tens * 100) << 16);
    let ones = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    ones | ((twos - ones * 10) << 8)
}

#[inline(never)]
fn push_large_number(out: &mut Vec<u8>, number: u64) {
    push_number(out, number / EIGHT_DIGITS);
    let rest = eight_digits(number % EIGHT_DIGITS);
    out.extend_from_slice(&(rest + ZEROS).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::push_number;

    #[test]
    fn numbers_of_any_length_are_written_as_they_are() {
        let mut powers: Vec<u64> = (0..20).map(|power| 10u64.pow(power)).collect();
        powers.extend([0, 7, 12, 305, 1_000_000_007, u64::MAX]);
        for power in powers {
            for number in [power.saturating_sub(1), power, power.saturating_add(1)] {
                let mut out = Vec::new();
                push_number(&mut out, number);
                assert_eq!(out, number.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn numbers_of_four_digits_are_written_as_they_are() {
        for number in (0..10_000).flat_map(|low| [low, low * 10_000, low * 10_001]) {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
