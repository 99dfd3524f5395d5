//! The shapes of line that this crate's own encoders write, read without looking at names.
//!
//! Nearly all lines of a busy pool are one of two: a call with an id and a body, and its result.
//! Here they are compared with what is expected; any deviation, an error included, gives `None`,
//! and the general reader decides. It takes a third of its time.

use crate::id::Id;
use crate::raw::Raw;
use crate::reply::{Answer, Reply};
use crate::request::{Call, Op, Payload, Request};
use crate::scan::{skip_string, skip_value};

/// Reads `{"op":"call","id":ID,"body":BODY}`, with `timeout_ms` and `hops` behind, in this order.
pub(crate) fn call(text: &str) -> Option<Request<'_>> {
    let bytes = text.as_bytes();
    let at = expect(bytes, 0, br#"{"op":"call","id":"#)?;
    let (id, at) = id(text, at)?;
    let at = expect(bytes, at, br#","body":"#)?;
    let (body, at) = value(text, at)?;
    let (timeout_ms, at) = field(bytes, at, br#","timeout_ms":"#)?;
    let (hops, at) = field(bytes, at, br#","hops":"#)?;
    ends(bytes, at, b"}")?;
    let hops = u32::try_from(hops.unwrap_or(0)).ok()?;
    let op = Op::Call(Call { payload: Payload::One(body), timeout_ms, hops });
    Some(Request { id: Some(id), op })
}

/// Reads `{"id":ID,"ok":true,"data":{"kind":"result","body":BODY}}`.
pub(crate) fn result(text: &str) -> Option<Reply<'_>> {
    let bytes = text.as_bytes();
    let at = expect(bytes, 0, br#"{"id":"#)?;
    let (id, at) = id(text, at)?;
    let at = expect(bytes, at, br#","ok":true,"data":{"kind":"result","body":"#)?;
    let (body, at) = value(text, at)?;
    ends(bytes, at, b"}}")?;
    Some(Reply { id: Some(id), answer: Answer::Result(body) })
}

#[inline]
fn expect(bytes: &[u8], at: usize, expected: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(expected).then_some(at + expected.len())
}

fn ends(bytes: &[u8], at: usize, expected: &[u8]) -> Option<()> {
    (bytes.get(at..)? == expected).then_some(())
}

#[inline]
fn id(text: &str, at: usize) -> Option<(Id<'_>, usize)> {
    let bytes = text.as_bytes();
    if let Some((number, end)) = digits(bytes, at) {
        // Other ways to write a number go on here, and are left to the general reader.
        return (bytes.get(end) == Some(&b',')).then_some((Id::Number(number), end));
    }
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let end = skip_string(bytes, at + 1).ok()?;
    Some((Id::from_value(text.get(at..end)?)?, end))
}

#[inline]
fn value(text: &str, at: usize) -> Option<(Raw<'_>, usize)> {
    let end = skip_value(text.as_bytes(), at).ok()?;
    Some((Raw::checked(text.get(at..end)?), end))
}

/// A field that may be there; the outer `None` if it is there and no plain number.
#[inline]
fn field(bytes: &[u8], at: usize, name: &[u8]) -> Option<(Option<u64>, usize)> {
    match expect(bytes, at, name) {
        None => Some((None, at)),
        Some(at) => digits(bytes, at).map(|(number, end)| (Some(number), end)),
    }
}

/// A number without a leading zero, and where it ends.
#[inline]
fn digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    /// As many fit a `u64` whatever they are.
    const MAX_DIGITS: usize = 19;
    let mut end = at;
    let mut number = 0;
    while let Some(digit @ b'0'..=b'9') = bytes.get(end) {
        if end - at == MAX_DIGITS {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
        end += 1;
    }
    let leading_zero = end - at > 1 && bytes[at] == b'0';
    (end > at && !leading_zero).then_some((number, end))
}

#[cfg(test)]
mod tests {
    use super::{call, result};

    #[test]
    fn what_the_encoders_write_is_recognized() {
        for line in [
            r#"{"op":"call","id":7,"body":{"a":[1]}}"#,
            r#"{"op":"call","id":"x","body":null,"timeout_ms":250}"#,
            r#"{"op":"call","id":0,"body":"","timeout_ms":0,"hops":4294967295}"#,
        ] {
            assert!(call(line).is_some(), "{line}");
        }
        assert!(result(r#"{"id":7,"ok":true,"data":{"kind":"result","body":"x"}}"#).is_some());
    }

    #[test]
    fn deviations_are_left_to_the_general_reader() {
        for line in [
            r#"{"op":"call","id":07,"body":1}"#,
            r#"{"op":"call","id":7.0,"body":1}"#,
            r#"{"op":"call","id":null,"body":1}"#,
            r#"{"op":"call","id":99999999999999999999,"body":1}"#,
            r#"{"op":"call","id":7,"body":1,"body":2}"#,
            r#"{"op":"call","id":7,"body":1,"timeout_ms":1.5}"#,
            r#"{"op":"call","id":7,"body":1,"hops":4294967296}"#,
            r#"{"op":"call","id":7,"body":1}x"#,
            r#"{"op":"call","id":7,"body":[1}"#,
            r#"{"op":"call","id":7,"body":1"#,
            r#"{"op":"call","id":7"#,
        ] {
            assert!(call(line).is_none(), "{line}");
        }
        for line in [
            r#"{"id":7,"ok":true,"data":{"kind":"result","body":1}"#,
            r#"{"id":7,"ok":true,"data":{"kind":"result","body":1,"more":2}}"#,
            r#"{"id":-7,"ok":true,"data":{"kind":"result","body":1}}"#,
        ] {
            assert!(result(line).is_none(), "{line}");
        }
    }
}
