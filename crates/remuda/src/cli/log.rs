//! The log of a pool that serves: to stderr, as text or JSON.

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, in the words of `tracing_subscriber`.
const ENV: &str = "REMUDA_LOG";

/// Starts the log. Nothing is logged for each job above `debug`.
pub(crate) fn start(json: bool) {
    let filter = EnvFilter::try_from_env(ENV).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A log that somebody else started stays.
    let _ = if json { log.json().try_init() } else { log.try_init() };
}
