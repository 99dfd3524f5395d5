//! The log of a pool that serves: to stderr, as text or JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::say;
use crate::cli::stderr::{self, Stderr};

/// The variable that says what is logged, in the words of `tracing_subscriber`.
const ENV: &str = "REMUDA_LOG";

/// Starts the log. Nothing is logged for each job above `debug`.
///
/// # Errors
/// When the variable says nothing that can be understood.
pub(crate) fn start(json: bool) -> Result<(), String> {
    let words = std::env::var(ENV).unwrap_or_default();
    let words = if words.is_empty() { "info" } else { &words };
    let filter = EnvFilter::try_new(words).map_err(|error| format!("{ENV}={words}: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr);
    // What can't be logged is lost: telling of it on the same stderr would panic.
    let log = log.with_ansi(colours()).log_internal_errors(false);
    // A log that somebody else started stays.
    let _ = if json { log.json().try_init() } else { log.try_init() };
    Ok(())
}

/// Has the log written behind the program's back: see [`stderr`].
pub(crate) fn behind() {
    stderr::write_behind(|lines| tracing::warn!(target: "remuda", "{}", say::dropped(lines)));
}

/// Whether stderr is a terminal that wants colours (<https://no-color.org>).
fn colours() -> bool {
    let value = |name| std::env::var_os(name).unwrap_or_default();
    io::stderr().is_terminal() && value("NO_COLOR").is_empty() && value("TERM") != "dumb"
}
