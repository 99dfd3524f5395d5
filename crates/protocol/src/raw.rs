//! A body: one JSON value that was checked once and is passed on as text.

use std::fmt;

use serde::Deserialize;

use crate::scan::{is_plain_ascii, skip_space, skip_value, syntax};

/// Why some bytes are not one JSON value that may travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadJson {
    /// What is wrong.
    pub kind: BadJsonKind,
    /// At which byte, counted from 0.
    pub at: usize,
}

/// What is wrong with a [`BadJson`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadJsonKind {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// Against the grammar of JSON, or cut off.
    Syntax,
    /// More arrays and objects inside each other than [`DEPTH_MAX`](crate::DEPTH_MAX).
    TooDeep,
}

impl fmt::Display for BadJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            BadJsonKind::NotUtf8 => write!(f, "not UTF-8 at byte {}", self.at),
            BadJsonKind::Syntax => write!(f, "not valid JSON at byte {}", self.at),
            BadJsonKind::TooDeep => {
                write!(f, "nested more than {} deep at byte {}", crate::DEPTH_MAX, self.at)
            }
        }
    }
}

impl std::error::Error for BadJson {}

/// One JSON value as text: valid, at most [`DEPTH_MAX`](crate::DEPTH_MAX) deep, without white
/// space around it.
///
/// It may have line breaks between its tokens; the encoders leave those out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    /// The value `null`.
    pub const NULL: Raw<'static> = Raw(b"null");

    /// Checks that `bytes` are one JSON value, white space around it aside.
    ///
    /// # Errors
    ///
    /// [`BadJson`] says what is wrong and where.
    pub fn new(bytes: &'a [u8]) -> Result<Raw<'a>, BadJson> {
        if let Some(string) = Raw::if_plain_string(bytes) {
            return Ok(string);
        }
        check_utf8(bytes)?;
        let start = skip_space(bytes, 0);
        let end = skip_value(bytes, start)?;
        let rest = skip_space(bytes, end);
        if rest != bytes.len() {
            return Err(syntax(rest).into());
        }
        Ok(Raw(&bytes[start..end]))
    }

    /// Takes text that the scanner has checked.
    pub(crate) const fn checked(text: &'a str) -> Raw<'a> {
        Raw(text.as_bytes())
    }

    /// Takes a string of nothing but ASCII without escapes, as most bodies are.
    #[inline]
    pub(crate) fn if_plain_string(json: &'a [u8]) -> Option<Raw<'a>> {
        let [b'"', text @ .., b'"'] = json else { return None };
        is_plain_ascii(text).then_some(Raw(json))
    }

    /// Takes bytes that the scanner has checked, if they are UTF-8.
    #[inline]
    pub(crate) fn if_utf8(json: &'a [u8]) -> Option<Raw<'a>> {
        check_utf8(json).ok().map(|()| Raw(json))
    }

    /// The JSON text. It costs a look at each byte, which [`as_bytes`](Raw::as_bytes) doesn't.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        // It was checked; the fallback is never taken and spares an unsafe block.
        str::from_utf8(self.0).unwrap_or("null")
    }

    /// The JSON text as bytes, as the encoders take it.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Reads the value into a type of serde, which may borrow from it.
    ///
    /// # Errors
    ///
    /// Those of `serde_json`, when the value has another shape.
    pub fn parse<T: Deserialize<'a>>(self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.0)
    }
}

/// The bytes as text, or where they stop being UTF-8.
#[inline]
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, BadJson> {
    str::from_utf8(bytes)
        .map_err(|error| BadJson { kind: BadJsonKind::NotUtf8, at: error.valid_up_to() })
}

/// As [`utf8`], where the text is not needed: nearly all is ASCII, which is found out faster.
#[inline]
fn check_utf8(bytes: &[u8]) -> Result<(), BadJson> {
    if bytes.is_ascii() { Ok(()) } else { utf8(bytes).map(|_| ()) }
}

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<[u8]> for Raw<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}
