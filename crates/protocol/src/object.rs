//! Walking over the members of an object, one key at a time, without a tree.

use std::borrow::Cow;

use memchr::memchr;

use crate::raw::Raw;
use crate::scan::{Stop, skip_space, skip_string, skip_value, syntax};
use crate::text::Text;

/// A cursor over an object: each [`Members::key`] is followed by one look at its value.
pub(crate) struct Members<'a> {
    text: &'a str,
    /// Where the next unread byte is.
    pub(crate) at: usize,
    started: bool,
}

impl<'a> Members<'a> {
    /// Enters the object that starts at `at`, white space before it allowed.
    ///
    /// `Ok(None)` if there is a value of another kind.
    pub(crate) fn open(text: &'a str, at: usize) -> Result<Option<Members<'a>>, Stop> {
        let at = skip_space(text.as_bytes(), at);
        match text.as_bytes().get(at) {
            Some(b'{') => Ok(Some(Members { text, at: at + 1, started: false })),
            Some(_) => Ok(None),
            None => Err(syntax(at)),
        }
    }

    /// The next key, or `None` behind the closing brace. The cursor is then at the value.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Option<Cow<'a, str>>, Stop> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        match (bytes.get(at), self.started) {
            (Some(b'}'), _) => {
                self.at = at + 1;
                return Ok(None);
            }
            (Some(b','), true) => at = skip_space(bytes, at + 1),
            (_, false) => {}
            _ => return Err(syntax(at)),
        }
        self.started = true;
        if bytes.get(at) != Some(&b'"') {
            return Err(syntax(at));
        }
        let end = skip_string(bytes, at + 1)?;
        let colon = skip_space(bytes, end);
        if bytes.get(colon) != Some(&b':') {
            return Err(syntax(colon));
        }
        self.at = skip_space(bytes, colon + 1);
        let key = &self.text[at + 1..end - 1];
        if memchr(b'\\', key.as_bytes()).is_some() {
            // `"\u006fp"` is `"op"`: two readers of one line must not disagree about it.
            return Ok(Text::from_value(&self.text[at..end]).map(Text::decode));
        }
        Ok(Some(Cow::Borrowed(key)))
    }

    /// The value at the cursor, as text, checked.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Raw<'a>, Stop> {
        let start = self.at;
        self.at = skip_value(self.text.as_bytes(), start)?;
        Ok(Raw::checked(&self.text[start..self.at]))
    }

    /// Checks that nothing but white space follows the object.
    pub(crate) fn finish(&self) -> Result<(), Stop> {
        let rest = skip_space(self.text.as_bytes(), self.at);
        if rest == self.text.len() { Ok(()) } else { Err(syntax(rest)) }
    }
}

/// A whole number of at least 0 as JSON writes it; fractions are rounded up, `null` is nothing.
///
/// Python writes `0.25 * 1000` as `250.0`. The outer `None`: no such number.
pub(crate) fn whole_number(raw: Raw<'_>) -> Option<Option<u64>> {
    let text = raw.as_str();
    if text == "null" {
        return Some(None);
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(Some(number));
    }
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    let number = text.parse::<f64>().ok()?;
    // `as` saturates, so that 1e300 is as good as for ever.
    (number >= 0.0).then(|| Some(number.ceil() as u64))
}
