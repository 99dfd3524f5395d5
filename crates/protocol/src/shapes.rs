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
#[inline]
pub(crate) fn call(line: &[u8]) -> Option<Request<'_>> {
    let mut rest = Rest { line, at: 0 };
    rest.expect(br#"{"op":"call","id":"#)?;
    let id = rest.id()?;
    rest.expect(br#","body":"#)?;
    let body = rest.value(b"}")?;
    let (mut timeout_ms, mut hops) = (None, 0);
    if !rest.is(b"}") {
        if rest.expect(br#","timeout_ms":"#).is_some() {
            timeout_ms = Some(rest.number()?);
        }
        if rest.expect(br#","hops":"#).is_some() {
            hops = u32::try_from(rest.number()?).ok()?;
        }
        rest.is(b"}").then_some(())?;
    }
    Some(Request {
        id: Some(id),
        op: Op::Call(Call { payload: Payload::One(body), timeout_ms, hops }),
    })
}

/// Reads `{"id":ID,"ok":true,"data":{"kind":"result","body":BODY}}`.
#[inline]
pub(crate) fn result(line: &[u8]) -> Option<Reply<'_>> {
    let mut rest = Rest { line, at: 0 };
    rest.expect(br#"{"id":"#)?;
    let id = rest.id()?;
    rest.expect(br#","ok":true,"data":{"kind":"result","body":"#)?;
    let body = rest.value(b"}}")?;
    rest.is(b"}}").then_some(Reply { id: Some(id), answer: Answer::Result(body) })
}

/// A line, and how far it was read. Only an id and a body can hold anything but ASCII, so they
/// alone are checked to be UTF-8.
struct Rest<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    /// Steps over `expected`, if that comes next.
    #[inline]
    fn expect(&mut self, expected: &[u8]) -> Option<()> {
        let is_next = self.line[self.at..].starts_with(expected);
        self.at += if is_next { expected.len() } else { 0 };
        is_next.then_some(())
    }

    /// Whether this is all that comes.
    #[inline]
    fn is(&self, expected: &[u8]) -> bool {
        self.line[self.at..] == *expected
    }

    #[inline]
    fn id(&mut self) -> Option<Id<'a>> {
        if self.line.get(self.at) == Some(&b'"') {
            let start = self.at;
            self.at = skip_string(self.line, start + 1).ok()?;
            return Id::from_value(str::from_utf8(&self.line[start..self.at]).ok()?);
        }
        // Other ways to write a number go on behind it, and are left to the general reader.
        self.number().filter(|_| self.line.get(self.at) == Some(&b',')).map(Id::Number)
    }

    /// Reads a value. Mostly all that follows it is `end`, and it is a string of plain ASCII.
    #[inline]
    fn value<const N: usize>(&mut self, end: &[u8; N]) -> Option<Raw<'a>> {
        if let Some((text, rest)) = self.line[self.at..].split_last_chunk()
            && rest == end
            && let Some(string) = Raw::if_plain_string(text)
        {
            self.at += text.len();
            return Some(string);
        }
        self.any_value()
    }

    #[inline(never)] // Kept out of the way of plain strings.
    fn any_value(&mut self) -> Option<Raw<'a>> {
        let start = self.at;
        self.at = skip_value(self.line, start).ok()?;
        Raw::if_utf8(&self.line[start..self.at])
    }

    /// Reads a number without a leading zero.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        /// As many fit a `u64` whatever they are.
        const DIGITS_MAX: usize = 19;
        let rest = &self.line[self.at..];
        let mut number = 0;
        let mut count = 0;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            if count == DIGITS_MAX {
                return None;
            }
            number = number * 10 + u64::from(digit);
            count += 1;
        }
        self.at += count;
        let leading_zero = count > 1 && rest[0] == b'0';
        (count > 0 && !leading_zero).then_some(number)
    }
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
            assert!(call(line.as_bytes()).is_some(), "{line}");
        }
        assert!(result(br#"{"id":7,"ok":true,"data":{"kind":"result","body":"x"}}"#).is_some());
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
            assert!(call(line.as_bytes()).is_none(), "{line}");
        }
        for line in [
            r#"{"id":7,"ok":true,"data":{"kind":"result","body":1}"#,
            r#"{"id":7,"ok":true,"data":{"kind":"result","body":1,"more":2}}"#,
            r#"{"id":-7,"ok":true,"data":{"kind":"result","body":1}}"#,
        ] {
            assert!(result(line.as_bytes()).is_none(), "{line}");
        }
    }
}
