//! What pool and keeper tell each other, as values.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::error::StartError;

/// What a worker is started from.
///
/// The worker gets an empty signal mask, default signal dispositions, a process group of its own
/// (in a session that has no terminal), and no descriptors but 0, 1, 2 and, with a socket, 3.
/// `REMUDA_WORKER_ID` is set to the worker's id unless `env` says otherwise, `REMUDA_FD` to 3 if
/// there is a socket, and `REMUDA_KEEPER_MARK` to what the worker's offspring is known by.
#[derive(Debug, Default)]
pub struct Spawn {
    /// The program: a path, or a name to be looked up in the worker's `PATH`.
    pub program: OsString,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Changes to the environment that the keeper inherited from the pool: a value sets, `None`
    /// removes. Applied in order.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// The working directory. Default: the one that the pool was in when the keeper started.
    pub cwd: Option<PathBuf>,
    /// Becomes descriptor 3.
    pub socket: Option<OwnedFd>,
    /// Default: /dev/null.
    pub stdin: Option<OwnedFd>,
    /// Default: the pool's standard error, so that a stray print can't mix with results.
    pub stdout: Option<OwnedFd>,
    /// Default: the pool's standard error.
    pub stderr: Option<OwnedFd>,
}

impl Spawn {
    /// A start of `program` with nothing else said.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }
}

/// A signal that the pool sends to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// Whom a signal goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The worker's own process.
    Process,
    /// The worker and all that belongs to it, as far as one look over the processes finds it.
    /// With [`Signal::Kill`] the keeper looks again until nothing is left.
    Tree,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It returned this exit code, 0 to 255.
    Code(i32),
    /// This signal, by its number, ended it.
    Signal(i32),
}

/// What the keeper reports. For one id: `StartFailed` alone, or `Started`, `Exited`, `Cleared`.
#[derive(Debug)]
pub enum Event {
    /// The worker's program runs.
    Started {
        /// The id that the pool gave.
        id: u64,
        /// The process's number where the pool runs. In a PID namespace the worker itself sees
        /// another one.
        pid: u32,
        /// Readable once the worker has ended; signals sent by it can't hit another process. None if
        /// this process had no descriptor left for it.
        pidfd: Option<OwnedFd>,
    },
    /// The worker's program could not be started.
    StartFailed {
        /// The id that the pool gave, which is free again.
        id: u64,
        /// What failed, and what to do.
        error: StartError,
    },
    /// The worker's own process ended. What it left behind is being killed.
    Exited {
        /// The id that the pool gave.
        id: u64,
        /// How it ended.
        status: Status,
    },
    /// Nothing that belonged to the worker is left. The id is free again.
    Cleared {
        /// The id that the pool gave.
        id: u64,
    },
    /// The keeper itself has ended, unasked. Always the last event, sent once. Whoever still runs
    /// can be killed by the pidfds of `Started`.
    Lost,
}
