//! What a command prints. A stdout that can't be written is an error; a stderr that can't is none,
//! and nothing that is said there may end a run or a pool.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::cli::{exit, stderr};

/// Has stderr written behind the program's back: see [`stderr`].
pub(crate) fn behind() {
    stderr::write_behind(|lines| line(format_args!("remuda: {}", dropped(lines))));
}

/// What is said of lines that nobody read.
pub(crate) fn dropped(lines: u64) -> String {
    let lines = crate::cli::number::grouped(lines);
    format!("{lines} lines for stderr were dropped: its reader did not read")
}

/// Prints a line to stderr, or says nothing where nobody can be told: its reader has gone, or the
/// disk below it is full.
pub(crate) fn line(text: impl Display) {
    let mut text = text.to_string();
    if text.contains(repaints) {
        text = text.replace(repaints, "\u{fffd}");
    }
    text.push('\n');
    // In one piece: other processes write to the same stderr.
    part(text);
}

/// Whether a character could repaint the terminal of whoever reads it. What is said here may come
/// from a handler, whose words may come from a job.
fn repaints(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// The same without a line break.
pub(crate) fn part(text: impl AsRef<[u8]>) {
    stderr::write(text.as_ref());
}

/// Prints to stdout what was asked for. A reader that has gone wants no more.
///
/// # Errors
/// The status to exit with, after why was told.
pub(crate) fn out(text: impl AsRef<[u8]>) -> Result<(), ExitCode> {
    out_by(|| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_ref()).and_then(|()| stdout.flush())
    })
}

/// The same of what `write` writes there.
///
/// # Errors
/// As of [`out`].
pub(crate) fn out_by(write: impl FnOnce() -> io::Result<()>) -> Result<(), ExitCode> {
    match remuda_net::stdout_was_open().and_then(|()| write()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(exit::error(format!("cannot write stdout: {error}")))
        }
        _ => Ok(()),
    }
}
