//! The workers inside the binary.

mod sha256;
mod wc;

use std::io;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::cli::number;

/// What a job of a built-in worker gives: JSON, or the message of its failure.
pub(crate) type Answer = Result<Box<RawValue>, String>;

/// `echo`: the body itself.
pub(crate) fn echo(body: &RawValue) -> Answer {
    Ok(body.to_owned())
}

/// `sha256`: the line of `sha256sum` for the file that the body names.
pub(crate) fn sha256(body: &RawValue) -> Answer {
    to_json(sha256::sha256(&text(body)?)?)
}

/// `wc`: the line of `wc` for the file that the body names.
pub(crate) fn wc(body: &RawValue) -> Answer {
    to_json(wc::wc(&text(body)?)?)
}

/// `sleep`: waits as long as the body says (seconds, or with a unit), then gives the body.
pub(crate) fn sleep(body: &RawValue) -> Answer {
    let time = match text(body) {
        Ok(text) => number::duration(text.trim())?,
        Err(_) => number::duration(body.get())?,
    };
    std::thread::sleep(time.min(SLEEP_LIMIT));
    Ok(body.to_owned())
}

/// The longest time that `sleep` sleeps.
const SLEEP_LIMIT: Duration = Duration::from_secs(86_400);

/// A body that is a string.
fn text(body: &RawValue) -> Result<String, String> {
    serde_json::from_str(body.get()).map_err(|_| {
        let shown: String = body.get().chars().take(40).collect();
        format!("the job must be a string, not {shown}")
    })
}

fn to_json(text: String) -> Answer {
    serde_json::value::to_raw_value(&text).map_err(|error| error.to_string())
}

/// What the system says of an error, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
