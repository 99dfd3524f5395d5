//! JSON text that lives on its own.

use std::fmt;

use remuda_protocol::{BadJson, Raw};
use serde::{Deserialize, Serialize};

/// One JSON value as text, valid and at most [`DEPTH_MAX`](remuda_protocol::DEPTH_MAX) deep: a
/// body or a result that nobody has read yet.
///
/// ```
/// use remuda_client::Json;
///
/// let body = Json::new(r#"{"text": "abc"}"#)?;
/// assert_eq!(body.as_str(), r#"{"text": "abc"}"#);
/// assert_eq!(Json::of(&"abc")?.parse::<String>()?, "abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Box<str>);

impl Json {
    /// Checks that `text` is one JSON value, white space around it aside.
    ///
    /// # Errors
    ///
    /// [`BadJson`] says what is wrong and where.
    pub fn new(text: &str) -> Result<Json, BadJson> {
        Raw::new(text.as_bytes()).map(Json::from)
    }

    /// Writes a value of serde as JSON.
    ///
    /// # Errors
    ///
    /// Those of the value's `Serialize`, and a depth of more than
    /// [`DEPTH_MAX`](remuda_protocol::DEPTH_MAX).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Json, serde_json::Error> {
        let text = serde_json::to_string(value)?;
        Json::new(&text).map_err(serde::ser::Error::custom)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads it as a type of serde, which may borrow from it.
    ///
    /// # Errors
    ///
    /// Those of `serde_json`, when the value has another shape.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

impl From<Raw<'_>> for Json {
    fn from(raw: Raw<'_>) -> Json {
        Json(raw.as_str().into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
