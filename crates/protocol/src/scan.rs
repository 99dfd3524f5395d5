//! One pass over JSON text that checks its grammar and depth, and finds where a value ends.
//!
//! A pool passes bodies on as text, so it needs no tree; but what it passes on must be valid, or a
//! worker that is stricter would die of it. This is the grammar of RFC 8259. Strings, the bulk of
//! most bodies, are read 32 bytes at a time.

use crate::DEPTH_MAX;
use crate::raw::{BadJson, BadJsonKind};

/// Where the text stops being JSON, and why, in one word, so that a result with it fits two
/// registers: it is returned for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop(usize);

/// Set in a [`Stop`] that is due to depth. No slice is as long as half the address space.
const TOO_DEEP: usize = 1 << (usize::BITS - 1);

impl From<Stop> for BadJson {
    fn from(Stop(at): Stop) -> BadJson {
        let kind = if at & TOO_DEEP == 0 { BadJsonKind::Syntax } else { BadJsonKind::TooDeep };
        BadJson { kind, at: at & !TOO_DEEP }
    }
}

/// The index of the first byte at or after `at` that is not white space.
#[inline]
pub(crate) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

pub(crate) const fn syntax(at: usize) -> Stop {
    Stop(at)
}

/// Checks the value that starts at `at` (no white space before it), and returns where it ends.
#[inline]
pub(crate) fn skip_value(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text.get(at) {
        Some(b'"') => skip_string(text, at + 1),
        Some(b'{' | b'[') => skip_container(text, at),
        _ => skip_scalar(text, at),
    }
}

fn skip_scalar(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text.get(at) {
        Some(b'-' | b'0'..=b'9') => skip_number(text, at),
        Some(b't') => skip_literal(text, at, b"true"),
        Some(b'f') => skip_literal(text, at, b"false"),
        Some(b'n') => skip_literal(text, at, b"null"),
        _ => Err(syntax(at)),
    }
}

fn skip_literal(text: &[u8], at: usize, literal: &[u8]) -> Result<usize, Stop> {
    if text[at..].starts_with(literal) { Ok(at + literal.len()) } else { Err(syntax(at)) }
}

fn skip_digits(text: &[u8], at: usize) -> Result<usize, Stop> {
    let mut end = at;
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    if end == at { Err(syntax(at)) } else { Ok(end) }
}

fn skip_number(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    if text[at] == b'-' {
        at += 1;
    }
    at = if text.get(at) == Some(&b'0') { at + 1 } else { skip_digits(text, at)? };
    if text.get(at) == Some(&b'.') {
        at = skip_digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = skip_digits(text, at)?;
    }
    Ok(at)
}

/// Checks a string whose opening quote is before `at`, and returns the index behind its closing one.
#[inline]
pub(crate) fn skip_string(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        at += plain_run(&text[at..]);
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = skip_escape(text, at)?,
            _ => return Err(syntax(at)),
        }
    }
}

fn skip_escape(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match text.get(at + 2..at + 6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(at + 6),
            _ => Err(syntax(at)),
        },
        _ => Err(syntax(at)),
    }
}

/// How many bytes at the start stand for themselves in a JSON string: neither a quote, nor a
/// backslash, nor a control character.
#[inline]
pub(crate) fn plain_run(text: &[u8]) -> usize {
    let mut at = 0;
    // Most names and many strings end within two words.
    for _ in 0..2 {
        let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
        let hits = special_bytes(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // The compiler turns the comparison of a whole block into a few vector instructions.
    while let Some(block) = text.get(at..at + 32) {
        let special = block.iter().fold(false, |hit, byte| hit | is_special(*byte));
        if special {
            break;
        }
        at += 32;
    }
    while let Some(word) = text[at..].first_chunk::<8>() {
        let hits = special_bytes(u64::from_le_bytes(*word));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // The last word overlaps what is known to be plain.
    if let Some(word) = text.last_chunk::<8>() {
        let hits = special_bytes(u64::from_le_bytes(*word));
        // Without a hit there are 64 zeros, and the run ends with the text.
        return text.len() - 8 + hits.trailing_zeros() as usize / 8;
    }
    while text.get(at).is_some_and(|byte| !is_special(*byte)) {
        at += 1;
    }
    at
}

/// Whether all bytes are ASCII that stands for itself in a JSON string.
///
/// Nearly all strings are such, and are so read in one pass that checks that they are UTF-8, too.
#[inline]
pub(crate) fn is_plain_ascii(text: &[u8]) -> bool {
    // The last block overlaps what was looked at.
    let Some(last) = text.last_chunk::<16>() else {
        return text.iter().all(|byte| plainness(*byte) > 0);
    };
    text.as_chunks::<16>().0.iter().all(are_plain) && are_plain(last)
}

#[inline(always)] // The call would take as long.
fn are_plain(block: &[u8; 16]) -> bool {
    let mut found = [0; 16];
    for (found, byte) in found.iter_mut().zip(block) {
        *found = plainness(*byte);
    }
    found.iter().fold(true, |all, found| all & (*found > 0))
}

/// Zero for a quote, a backslash, a control character, and what is not ASCII. In arithmetic that
/// processors have for a whole block at once, which a choice for each byte is not.
#[inline]
fn plainness(byte: u8) -> u8 {
    let of_text = 0x60_u8.saturating_sub(byte.wrapping_sub(0x20));
    (byte ^ b'"').min(byte ^ b'\\').min(of_text)
}

#[inline]
const fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The high bit of each special byte of a word. Those above the lowest may be false alarms, for a
/// subtraction borrows upwards only; the lowest is exact.
#[inline]
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let hits =
        (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash) | control;
    hits & HIGH
}

/// Which of the open containers are objects: a bit for each level, the innermost lowest.
struct Open {
    objects: u128,
    depth: usize,
}

impl Open {
    fn push(&mut self, object: bool, at: usize) -> Result<(), Stop> {
        if self.depth == DEPTH_MAX {
            return Err(Stop(at | TOO_DEEP));
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// Checks the object or array that starts at `at`, without recursion.
fn skip_container(text: &[u8], mut at: usize) -> Result<usize, Stop> {
    let mut open = Open { objects: 0, depth: 0 };
    loop {
        // A value starts here.
        match text.get(at) {
            Some(b'"') => at = skip_string(text, at + 1)?,
            Some(bracket @ (b'{' | b'[')) => {
                let object = *bracket == b'{';
                open.push(object, at)?;
                at = skip_space(text, at + 1);
                if text.get(at) == Some(if object { &b'}' } else { &b']' }) {
                    open.pop();
                    at += 1;
                } else {
                    if object {
                        at = skip_key(text, at)?;
                    }
                    continue;
                }
            }
            _ => at = skip_scalar(text, at)?,
        }
        // A value has ended: close what ends with it, or go on to the next.
        loop {
            if open.depth == 0 {
                return Ok(at);
            }
            at = skip_space(text, at);
            match (text.get(at), open.in_object()) {
                (Some(b','), true) => {
                    at = skip_key(text, skip_space(text, at + 1))?;
                    break;
                }
                (Some(b','), false) => {
                    at = skip_space(text, at + 1);
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    open.pop();
                    at += 1;
                }
                _ => return Err(syntax(at)),
            }
        }
    }
}

/// Checks a key and its colon, and returns where the value starts.
fn skip_key(text: &[u8], at: usize) -> Result<usize, Stop> {
    if text.get(at) != Some(&b'"') {
        return Err(syntax(at));
    }
    let at = skip_space(text, skip_string(text, at + 1)?);
    if text.get(at) != Some(&b':') {
        return Err(syntax(at));
    }
    Ok(skip_space(text, at + 1))
}

#[cfg(test)]
mod tests {
    use super::is_plain_ascii;

    #[test]
    fn every_byte_that_is_not_plain_is_found_wherever_it_is() {
        for length in [0, 1, 7, 15, 16, 17, 31, 48, 63, 64, 65, 80, 130] {
            let mut text = vec![b'a'; length];
            assert!(is_plain_ascii(&text));
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    text[at] = byte;
                    let is_plain = matches!(byte, 0x20..=0x7f) && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain_ascii(&text), is_plain, "{byte} at {at} of {length}");
                }
                text[at] = b'a';
            }
        }
    }
}
