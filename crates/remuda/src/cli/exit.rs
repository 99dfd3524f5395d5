//! The exit statuses of every command.

use std::panic::UnwindSafe;
use std::process::ExitCode;

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

/// Runs a command. A panic is a bug, and has the status of any other error: that of a panic alone
/// would say that more than 100 jobs failed.
pub(crate) fn guarded(command: impl FnOnce() -> ExitCode + UnwindSafe) -> ExitCode {
    std::panic::catch_unwind(command).unwrap_or_else(|_| ERROR.into())
}

/// Prints why the command failed, and gives the status for it.
pub(crate) fn error(message: impl std::fmt::Display) -> ExitCode {
    super::say::line(format_args!("remuda: {message}"));
    ERROR.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_not_taken_for_many_failed_jobs() {
        let status = |command: fn() -> ExitCode| format!("{:?}", guarded(command));
        assert_eq!(status(|| panic!("a bug")), format!("{:?}", ExitCode::from(ERROR)));
        assert_eq!(status(|| MANY_FAILED.into()), format!("{:?}", ExitCode::from(MANY_FAILED)));
    }
}
