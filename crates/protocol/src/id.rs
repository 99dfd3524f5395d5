//! The `id` of a request, echoed as it came.

use std::fmt;

/// The most bytes that an id may have as it is written, the quotes of a string not counted.
pub const ID_BYTES_MAX: usize = 64;

/// An id as it stands in the line: a JSON number or string.
///
/// It is compared and echoed byte for byte as it was written, never converted: `1` and `1.0` are
/// two ids, and 9007199254740993 stays 9007199254740993. Plain whole numbers, which a pool uses on
/// its own links, are held as numbers, because that is cheaper and writes the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Id<'a> {
    /// A number written with nothing but digits that fits a `u64`.
    Number(u64),
    /// Any other number, or a string with its quotes, as written.
    Token(&'a str),
}

impl<'a> Id<'a> {
    /// Takes the text of a checked JSON value, or `None` if it is neither a number nor a string,
    /// or too long.
    pub(crate) fn from_value(text: &'a str) -> Option<Id<'a>> {
        let bytes = text.as_bytes();
        match bytes.first()? {
            b'"' => (bytes.len() <= ID_BYTES_MAX + 2).then_some(Id::Token(text)),
            b'-' | b'0'..=b'9' if bytes.len() <= ID_BYTES_MAX => {
                Some(Id::from_number(bytes).map_or(Id::Token(text), Id::Number))
            }
            _ => None,
        }
    }

    fn from_number(digits: &[u8]) -> Option<u64> {
        digits.iter().try_fold(0u64, |number, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
    }

    /// The id as a whole number, if it is written as one that fits.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        match self {
            Id::Number(number) => Some(number),
            Id::Token(_) => None,
        }
    }

    /// A copy that lives on its own.
    #[must_use]
    #[inline]
    pub fn to_owned(self) -> IdBuf {
        IdBuf::from(self)
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Number(number) => write!(f, "{number}"),
            Id::Token(token) => f.write_str(token),
        }
    }
}

/// How many bytes of an id are kept without an allocation.
const INLINE_BYTES: usize = 22;

/// An [`Id`] that lives on its own: 24 bytes, without an allocation for ids of up to 22 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdBuf(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Number(u64),
    // Bytes past `len` are zero, so that the derived comparison is right.
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Heap(Box<str>),
}

const _: () = assert!(size_of::<IdBuf>() == 24);

impl IdBuf {
    /// The id, borrowed.
    #[must_use]
    pub fn as_id(&self) -> Id<'_> {
        match &self.0 {
            Repr::Number(number) => Id::Number(*number),
            // The bytes came from a `str`; the fallback is never taken and spares an unsafe block.
            Repr::Inline { len, bytes } => {
                Id::Token(str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or("0"))
            }
            Repr::Heap(token) => Id::Token(token),
        }
    }

    fn of_token(token: &str) -> IdBuf {
        if token.len() > INLINE_BYTES {
            return IdBuf(Repr::Heap(token.into()));
        }
        let mut bytes = [0; INLINE_BYTES];
        bytes[..token.len()].copy_from_slice(token.as_bytes());
        IdBuf(Repr::Inline { len: token.len() as u8, bytes })
    }
}

impl From<Id<'_>> for IdBuf {
    /// In line: a number that was written to memory for its caller, who reads it with what is beside
    /// it, is waited for until it is in the cache, and all that was written before.
    #[inline]
    fn from(id: Id<'_>) -> IdBuf {
        match id {
            Id::Number(number) => IdBuf(Repr::Number(number)),
            Id::Token(token) => IdBuf::of_token(token),
        }
    }
}

impl From<u64> for IdBuf {
    fn from(number: u64) -> IdBuf {
        IdBuf(Repr::Number(number))
    }
}

impl fmt::Debug for IdBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdBuf({})", self.as_id())
    }
}

impl fmt::Display for IdBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_id().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{ID_BYTES_MAX, Id, IdBuf};

    #[test]
    fn whole_numbers_are_numbers_and_all_else_stays_as_written() {
        assert_eq!(Id::from_value("7"), Some(Id::Number(7)));
        assert_eq!(Id::from_value("0"), Some(Id::Number(0)));
        assert_eq!(Id::from_value("18446744073709551615"), Some(Id::Number(u64::MAX)));
        assert_eq!(Id::from_value("9007199254740993"), Some(Id::Number(9_007_199_254_740_993)));
        for token in ["1.0", "-1", "1e3", "18446744073709551616", "\"a\\u0041\"", "\"\""] {
            assert_eq!(Id::from_value(token), Some(Id::Token(token)));
        }
        for token in ["null", "true", "{}", "[1]"] {
            assert_eq!(Id::from_value(token), None);
        }
    }

    #[test]
    fn the_limit_counts_what_is_between_the_quotes() {
        let longest = format!("\"{}\"", "x".repeat(ID_BYTES_MAX));
        assert!(Id::from_value(&longest).is_some());
        assert_eq!(Id::from_value(&format!("\"{}\"", "x".repeat(ID_BYTES_MAX + 1))), None);
        assert!(Id::from_value(&"1".repeat(ID_BYTES_MAX)).is_some());
        assert_eq!(Id::from_value(&"1".repeat(ID_BYTES_MAX + 1)), None);
    }

    #[test]
    fn owned_ids_give_back_what_they_took() {
        for token in
            ["12", "\"short\"", "\"exactly-twenty-two!!\"", &format!("\"{}\"", "é".repeat(30))]
        {
            let id = Id::from_value(token).unwrap();
            assert_eq!(IdBuf::from(id).as_id(), id);
            assert_eq!(IdBuf::from(id).to_string(), token);
        }
    }
}
