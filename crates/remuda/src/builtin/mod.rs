//! The workers inside the binary.

mod sha256;
mod wc;

use std::io;
use std::time::Duration;

use remuda_protocol::{Raw, json_str};

use crate::cli::number;

/// What a built-in worker does: appends the result as JSON, or gives the message of its failure.
pub(crate) type Function = fn(Raw<'_>, &mut Vec<u8>) -> Result<(), String>;

/// `echo`: the body itself.
pub(crate) fn echo(body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    out.extend_from_slice(body.as_bytes());
    Ok(())
}

/// `sha256`: the line of `sha256sum` for the file that the body names.
pub(crate) fn sha256(body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    json_str(out, &sha256::sha256(&text(body)?)?);
    Ok(())
}

/// `wc`: the line of `wc` for the file that the body names.
pub(crate) fn wc(body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    json_str(out, &wc::wc(&text(body)?)?);
    Ok(())
}

/// `sleep`: waits as long as the body says (seconds, or with a unit), then gives the body.
pub(crate) fn sleep(body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let time = match text(body) {
        Ok(text) => number::duration(text.trim())?,
        Err(_) => number::duration(body.as_str())?,
    };
    std::thread::sleep(time.min(SLEEP_LIMIT));
    echo(body, out)
}

/// The longest time that `sleep` sleeps.
const SLEEP_LIMIT: Duration = Duration::from_secs(86_400);

/// A body that is a string.
fn text(body: Raw<'_>) -> Result<String, String> {
    remuda_protocol::unescape(body.as_str()).map(std::borrow::Cow::into_owned).map_err(|_| {
        let shown: String = body.as_str().chars().take(40).collect();
        format!("the job must be a string, not {shown}")
    })
}

/// What the system says of an error, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
