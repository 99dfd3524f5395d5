//! Plain text to a JSON string and back.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;

use crate::scan::plain_run;

/// The text can't be a JSON string, because it is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line is not UTF-8 at byte {at}: convert it, or use --stdio, which passes any bytes")]
pub struct NotUtf8 {
    /// At which byte, counted from 0.
    pub at: usize,
}

/// The value is no JSON string with a meaning as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadString {
    /// It is another kind of value, or no valid JSON.
    #[error("the value is not a JSON string")]
    NotAString,
    /// It has half a surrogate pair, which stands for no character.
    #[error("the JSON string holds \\u{code_unit:04x} alone, which is half a character")]
    LoneSurrogate {
        /// The half.
        code_unit: u16,
    },
}

/// Appends `text` as a JSON string, quotes included.
///
/// # Errors
///
/// [`NotUtf8`]; `out` is then as it was.
#[inline]
pub fn json_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), NotUtf8> {
    match str::from_utf8(text) {
        Ok(text) => {
            json_str(out, text);
            Ok(())
        }
        Err(error) => Err(NotUtf8 { at: error.valid_up_to() }),
    }
}

/// Appends `text` as a JSON string, quotes included.
#[inline]
pub fn json_str(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let run = plain_run(rest);
        out.extend_from_slice(&rest[..run]);
        match rest.get(run) {
            Some(byte) => push_escape(out, *byte),
            None => break,
        }
        rest = &rest[run + 1..];
    }
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// The text that a JSON string stands for. It borrows when nothing is escaped.
///
/// # Errors
///
/// [`BadString`] for another kind of value, and for half a surrogate pair.
#[inline]
pub fn unescape(json: &str) -> Result<Cow<'_, str>, BadString> {
    let inner = inner(json)?;
    if memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    unescape_inner(inner, |part| text.push_str(part), Lone::Refuse)?;
    Ok(Cow::Owned(text))
}

/// Appends the text that a JSON string stands for.
///
/// # Errors
///
/// As [`unescape`]; `out` is then as it was.
#[inline]
pub fn unescape_into(out: &mut Vec<u8>, json: &str) -> Result<(), BadString> {
    let inner = inner(json)?;
    if memchr(b'\\', inner.as_bytes()).is_none() {
        out.extend_from_slice(inner.as_bytes());
        return Ok(());
    }
    let before = out.len();
    let done = unescape_inner(inner, |part| out.extend_from_slice(part.as_bytes()), Lone::Refuse);
    if done.is_err() {
        out.truncate(before);
    }
    done
}

fn inner(json: &str) -> Result<&str, BadString> {
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(BadString::NotAString)
}

#[derive(Clone, Copy, PartialEq)]
enum Lone {
    Refuse,
    Replace,
}

/// Hands the text of an escaped string to `push`, part by part.
fn unescape_inner(mut rest: &str, mut push: impl FnMut(&str), lone: Lone) -> Result<(), BadString> {
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
        push(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).ok_or(BadString::NotAString)?;
        let (character, length) = match escape {
            b'"' => ('"', 2),
            b'\\' => ('\\', 2),
            b'/' => ('/', 2),
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => unicode_escape(&rest[at..], lone)?,
            _ => return Err(BadString::NotAString),
        };
        push(character.encode_utf8(&mut [0; 4]));
        rest = rest.get(at + length..).ok_or(BadString::NotAString)?;
    }
    push(rest);
    Ok(())
}

/// The character of `\uXXXX` or of a pair of them, and the length of what was read.
fn unicode_escape(text: &str, lone: Lone) -> Result<(char, usize), BadString> {
    let first = code_unit(text).ok_or(BadString::NotAString)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Ok((character, 6));
    }
    let second = text.get(6..).and_then(code_unit);
    if let Some(second @ 0xdc00..=0xdfff) = second
        && first < 0xdc00
    {
        let pair = 0x10000 + ((u32::from(first) - 0xd800) << 10) + (u32::from(second) - 0xdc00);
        return char::from_u32(pair).map(|character| (character, 12)).ok_or(BadString::NotAString);
    }
    match lone {
        Lone::Refuse => Err(BadString::LoneSurrogate { code_unit: first }),
        Lone::Replace => Ok((char::REPLACEMENT_CHARACTER, 6)),
    }
}

fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits
        .bytes()
        .try_fold(0, |unit: u16, byte| Some(unit << 4 | char::from(byte).to_digit(16)? as u16))
}

/// A JSON string as it stands in a line: read only when somebody wants to.
///
/// For messages: half a surrogate pair becomes U+FFFD, since a broken message is better than none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// Takes a checked JSON string, or `None` for another kind of value.
    pub(crate) fn from_value(json: &'a str) -> Option<Text<'a>> {
        inner(json).ok().map(|_| Text(json))
    }

    /// The JSON string, quotes included.
    #[must_use]
    pub const fn as_json(self) -> &'a str {
        self.0
    }

    /// The text. It borrows when nothing is escaped.
    #[must_use]
    pub fn decode(self) -> Cow<'a, str> {
        // Only checked strings become a `Text`; the fallback spares an unwrap.
        let inner = inner(self.0).unwrap_or_default();
        if memchr(b'\\', inner.as_bytes()).is_none() {
            return Cow::Borrowed(inner);
        }
        let mut text = String::with_capacity(inner.len());
        match unescape_inner(inner, |part| text.push_str(part), Lone::Replace) {
            Ok(()) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(inner),
        }
    }

    /// Whether it stands for `other`.
    #[must_use]
    #[inline]
    pub fn is(self, other: &str) -> bool {
        let inner = inner(self.0).unwrap_or_default();
        inner == other || (inner.len() > other.len() && self.decode() == other)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decode())
    }
}
