//! The names of the built-in workers, and the hidden command that runs one as a process.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ValueEnum;
use remuda_engine::WorkerKind;

use crate::builtin::{self, Function};
use crate::cli::exit;
use crate::cli::pool::MAX_BODY_BYTES_LIMIT;

/// The hidden first argument by which the binary runs as a built-in worker.
pub(crate) const COMMAND: &str = "__builtin";

/// A built-in worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Builtin {
    /// Gives back the job
    Echo,
    /// The line of `sha256sum` for the file that the job names
    Sha256,
    /// The line of `wc` for the file that the job names
    Wc,
    /// Waits as long as the job says
    Sleep,
}

impl Builtin {
    /// The function that does its jobs.
    fn function(self) -> Function {
        match self {
            Self::Echo => builtin::echo,
            Self::Sha256 => builtin::sha256,
            Self::Wc => builtin::wc,
            Self::Sleep => builtin::sleep,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Sha256 => "sha256",
            Self::Wc => "wc",
            Self::Sleep => "sleep",
        }
    }

    /// What the engine starts for it.
    pub(crate) fn kind(self, threads: bool) -> WorkerKind {
        if threads {
            return WorkerKind::Threads(remuda_engine::ThreadHandler::new(self.function()));
        }
        let program = std::env::current_exe().map_or_else(|_| "remuda".into(), OsString::from);
        let args = [COMMAND, self.name()].map(OsString::from).to_vec();
        WorkerKind::Process { program, args, env: Vec::new() }
    }
}

/// Runs as the built-in worker of that name, until the pool's socket ends.
pub(crate) fn run(name: Option<OsString>) -> ExitCode {
    let name = name.unwrap_or_default();
    let Some(builtin) = name.to_str().and_then(|name| Builtin::from_str(name, false).ok()) else {
        return exit::error(format!("there is no built-in worker `{}`", name.to_string_lossy()));
    };
    // How large a body may be is for the pool to say.
    let limit = usize::try_from(MAX_BODY_BYTES_LIMIT).unwrap_or(usize::MAX);
    remuda_worker::Worker::raw(builtin.function()).max_body_bytes(limit).run()
}
