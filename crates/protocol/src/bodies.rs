//! The bodies of a batch: a JSON array that was checked, walked over lazily.

use std::fmt;

use memchr::memchr2;

use crate::raw::Raw;
use crate::scan::{Stop, skip_space, skip_value, syntax};

/// Several bodies in one message, as they stand in the line.
///
/// Iterating costs a second, cheaper look at the text, and no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bodies<'a> {
    text: &'a str,
    count: usize,
}

impl<'a> Bodies<'a> {
    /// Checks the array that starts at `at`, and returns it with the index behind it.
    ///
    /// Each element may be [`DEPTH_MAX`](crate::DEPTH_MAX) deep. `Ok(None)`: not an array.
    pub(crate) fn read(text: &'a str, at: usize) -> Result<Option<(Bodies<'a>, usize)>, Stop> {
        let bytes = text.as_bytes();
        if bytes.get(at) != Some(&b'[') {
            return Ok(None);
        }
        let mut count = 0;
        let mut end = skip_space(bytes, at + 1);
        if bytes.get(end) == Some(&b']') {
            return Ok(Some((Bodies { text: &text[at..=end], count }, end + 1)));
        }
        loop {
            end = skip_space(bytes, skip_value(bytes, end)?);
            count += 1;
            match bytes.get(end) {
                Some(b',') => end = skip_space(bytes, end + 1),
                Some(b']') => return Ok(Some((Bodies { text: &text[at..=end], count }, end + 1))),
                _ => return Err(syntax(end)),
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bodies, in order.
    #[must_use]
    pub fn iter(&self) -> BodiesIter<'a> {
        BodiesIter { text: self.text, at: 1, left: self.count }
    }

    /// The whole array as one JSON value, for a handler that takes a list.
    #[must_use]
    pub const fn as_array(&self) -> Raw<'a> {
        Raw::checked(self.text)
    }
}

impl<'a> IntoIterator for Bodies<'a> {
    type Item = Raw<'a>;
    type IntoIter = BodiesIter<'a>;

    fn into_iter(self) -> BodiesIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Bodies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Walks over [`Bodies`].
#[derive(Debug, Clone)]
pub struct BodiesIter<'a> {
    text: &'a str,
    at: usize,
    left: usize,
}

impl<'a> Iterator for BodiesIter<'a> {
    type Item = Raw<'a>;

    #[inline]
    fn next(&mut self) -> Option<Raw<'a>> {
        self.left = self.left.checked_sub(1)?;
        let bytes = self.text.as_bytes();
        let start = skip_space(bytes, self.at);
        let end = end_of_checked(bytes, start);
        // One byte behind it is the comma or the bracket, white space aside.
        self.at = skip_space(bytes, end) + 1;
        Some(Raw::checked(self.text.get(start..end)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for BodiesIter<'_> {}

/// Where the value at `at` ends, in text that is known to be valid.
#[inline]
fn end_of_checked(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(b'"') => end_of_string(text, at),
        Some(b'{' | b'[') => end_of_container(text, at),
        _ => text[at.min(text.len())..]
            .iter()
            .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
            .map_or(text.len(), |length| at + length),
    }
}

fn end_of_string(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

fn end_of_container(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(text, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}
