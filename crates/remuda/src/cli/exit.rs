//! The exit statuses of every command.

/// Any error that is not a failed job: a wrong option, a missing file, a bug.
pub(crate) const ERROR: u8 = 255;
/// The user interrupted the run.
pub(crate) const INTERRUPTED: u8 = 130;
/// More jobs failed than a status can count.
pub(crate) const MANY_FAILED: u8 = 101;

/// The status of a run in which so many jobs failed.
pub(crate) fn of_failures(failed: u64) -> u8 {
    if failed > 100 { MANY_FAILED } else { failed as u8 }
}

/// Prints why the command failed, and gives the status for it.
pub(crate) fn error(message: impl std::fmt::Display) -> std::process::ExitCode {
    eprintln!("remuda: {message}");
    ERROR.into()
}
