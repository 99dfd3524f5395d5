//! What can go wrong with the keeper, and with the start of a worker.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The keeper could not be started, or is out of reach.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The keeper's program could not be started.
    #[error(
        "could not start the keeper process `{}`: {source}{}",
        program.display(),
        advice(program, source)
    )]
    Start {
        /// The program that was to be the keeper.
        program: PathBuf,
        /// Why the system refused.
        source: io::Error,
    },
    /// The process started, but never said that it is a keeper.
    #[error(
        "`{}` did not answer as a keeper: the binary must call `keeper::main` first thing when \
         its first argument is `__keeper`", program.display()
    )]
    NoAnswer {
        /// The program that was to be the keeper.
        program: PathBuf,
    },
    /// This process was itself started as a keeper, and starts a pool instead of being one. Were it
    /// let, the program would start itself without end.
    #[error(
        "this process was started as the keeper of a pool, and starts a pool of its own: the \
         binary must call `keeper::main` first thing when its first argument is `__keeper`"
    )]
    InKeeper,
    /// The keeper started and found that it can't do its work here.
    #[error("the keeper can't work here: {reason}")]
    Refused {
        /// What is missing, and what to do.
        reason: String,
    },
    /// The keeper has ended, or does not read any more. The pool should end, too.
    #[error("the keeper process is gone or hangs: {source}")]
    Unreachable {
        /// What the socket said.
        source: io::Error,
    },
    /// A request is larger than a frame may be.
    #[error(
        "the worker's command and environment take {size} bytes, more than the {limit} that a \
         start may take: pass large values by a file"
    )]
    TooLarge {
        /// Bytes that the request takes.
        size: usize,
        /// The limit: 8 MiB, more than Linux lets a program be started with.
        limit: usize,
    },
    /// The keeper sent what no keeper sends.
    #[error("the keeper process sent garbage ({what}): is another version running as keeper?")]
    Garbage {
        /// What was wrong with it.
        what: &'static str,
    },
    /// Not all descendants were gone within the patience of a stop.
    #[error("some worker processes did not end within {seconds} s after SIGKILL")]
    Remains {
        /// The time that was waited.
        seconds: u64,
    },
}

/// Why a worker's program could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.explain())]
pub struct StartError {
    /// The program's name, as the pool gave it.
    pub program: OsString,
    /// What kind of failure it was.
    pub kind: StartFailure,
    /// The system's error number; 0 where the failure isn't the system's.
    pub errno: i32,
}

/// The kinds of failure that a start has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartFailure {
    /// No such file, or none of that name in `PATH`.
    NotFound,
    /// The file exists and may not be executed.
    NotExecutable,
    /// The path is a directory's.
    IsDirectory,
    /// The file names an interpreter, after `#!` or as an ELF loader, that can't be used.
    BadInterpreter(OsString),
    /// The working directory can't be entered.
    BadDirectory(PathBuf),
    /// Arguments and environment are larger than the system allows.
    TooLarge,
    /// A program, argument or variable with a NUL byte in it, or an id that is in use.
    BadRequest(String),
    /// The keeper has no descriptors, processes or memory left.
    NoResources,
    /// Any other error; its number says which.
    Other,
}

impl StartError {
    fn explain(&self) -> String {
        let program = self.program.display();
        let system = io::Error::from_raw_os_error(self.errno);
        match &self.kind {
            StartFailure::NotFound => {
                format!("worker command `{program}` not found: install it or give its path")
            }
            StartFailure::NotExecutable => format!(
                "worker command `{program}` may not be executed ({system}): make it executable \
                 (`chmod +x`), or put its interpreter in front of it"
            ),
            StartFailure::IsDirectory => {
                format!("worker command `{program}` is a directory: give the program inside it")
            }
            StartFailure::BadInterpreter(interpreter) => format!(
                "worker command `{program}` needs the interpreter `{}`, which can't be run: \
                 install that, or change the script's first line",
                interpreter.display()
            ),
            StartFailure::BadDirectory(directory) => format!(
                "worker command `{program}`: can't enter the working directory `{}`: {system}",
                directory.display()
            ),
            StartFailure::TooLarge => format!(
                "worker command `{program}`: arguments and environment are larger than the \
                 system allows ({system}): pass large values by a file"
            ),
            StartFailure::BadRequest(what) => {
                format!("worker command `{program}` can't be started: {what}")
            }
            StartFailure::NoResources => format!(
                "worker command `{program}` can't be started for now ({system}): raise the \
                 limits (`ulimit -u`, `ulimit -n`) or start fewer workers"
            ),
            StartFailure::Other => {
                format!("worker command `{program}` can't be started: {system}")
            }
        }
    }
}

/// What to do about it, where that is known.
fn advice(program: &Path, source: &io::Error) -> &'static str {
    match Errno::from_io_error(source) {
        Some(Errno::MFILE) => ": raise the limit of open files (`ulimit -n`)",
        Some(Errno::NOENT) if program.starts_with("/proc") => ": is /proc mounted?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_cannot_be_started_is_told_of_with_what_to_do() {
        let told = |program: &str, errno: Errno| {
            KeeperError::Start { program: program.into(), source: errno.into() }.to_string()
        };
        assert_eq!(
            told("/proc/self/exe", Errno::NOENT),
            "could not start the keeper process `/proc/self/exe`: No such file or directory (os \
             error 2): is /proc mounted?"
        );
        assert!(
            told("/proc/self/exe", Errno::MFILE)
                .ends_with("raise the limit of open files (`ulimit -n`)")
        );
        assert!(told("/opt/keeper", Errno::NOENT).ends_with("(os error 2)"));
    }
}
