//! `remuda map`: lines in, results out, through a pool of warm workers.

mod clash;
mod emit;
mod error;
mod failures;
mod halt;
mod input;
mod joblog;
mod lines;
mod order;
mod output;
mod progress;
mod results;
mod resume;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use remuda_engine::{PoolConfig, PoolError};

use error::MapError;
pub(crate) use halt::Halt;

use crate::cli::{exit, say};

/// What to tell whose command is no worker.
pub(crate) const NO_FILTER: &str = "a command speaks the protocol; a filter of lines needs --stdio";

/// A run, as the command line asked for it.
#[derive(Debug)]
pub(crate) struct MapConfig {
    pub(crate) pool: PoolConfig,
    /// The workers are a command that the user gave, and that is to speak the protocol.
    pub(crate) own_command: bool,
    /// The file of the jobs; stdin if none.
    pub(crate) input: Option<PathBuf>,
    pub(crate) delimiter: u8,
    /// The file of the results; stdout if none.
    pub(crate) output: Option<PathBuf>,
    pub(crate) keep_order: bool,
    pub(crate) json: bool,
    pub(crate) halt: Option<Halt>,
    pub(crate) joblog: Option<PathBuf>,
    pub(crate) resume: bool,
    pub(crate) resume_failed: bool,
    pub(crate) on_error: OnError,
    /// The file of the failed jobs.
    pub(crate) errors: Option<PathBuf>,
    pub(crate) tag: bool,
    /// Whether progress is shown; if nothing is said, on a terminal.
    pub(crate) bar: Option<bool>,
}

/// What stands in the output for a failed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    /// Nothing.
    Skip,
    /// The line `null`.
    Null,
}

/// Runs it all.
pub(crate) fn run(config: MapConfig) -> ExitCode {
    let own_command = config.own_command;
    match run::run(config) {
        Ok(status) => status.into(),
        Err(error) => {
            let status = exit::error(&error);
            if own_command && matches!(error, MapError::Pool(PoolError::NoWorker { .. })) {
                say::line(format_args!("remuda: {NO_FILTER}"));
            }
            status
        }
    }
}
