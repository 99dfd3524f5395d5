//! What ends a run before its time.

use std::io;
use std::path::PathBuf;

use remuda_engine::PoolError;

/// Why a run ended with 255.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error("cannot read the jobs from {}: {source}", name.display())]
    Input { name: PathBuf, source: io::Error },
    #[error("cannot write to {}: {source}", name.display())]
    Create { name: PathBuf, source: io::Error },
    #[error("{} is {} and {} at once: name another file", name.display(), roles.0, roles.1)]
    Clash { name: PathBuf, roles: (&'static str, &'static str) },
    #[error("cannot write {name}: {source}")]
    Write { name: String, source: io::Error },
    #[error("cannot resume from {}: {source}", name.display())]
    JobLog { name: PathBuf, source: io::Error },
    #[error(
        "the input is not the one that the job log was written for: line {line} has changed. \
         Resume with the old input, or start anew with another job log"
    )]
    InputChanged { line: u64 },
    #[error(
        "the input is not the one that the job log was written for: it ends after line {lines}, \
         and the log tells of line {logged}. Resume with the old input, or start anew with another \
         job log"
    )]
    InputShorter { lines: u64, logged: u64 },
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Net(#[from] remuda_net::NetError),
    #[error(
        "cannot start a thread: {0}. If too many run already, raise the limit of processes and \
         threads (`ulimit -u`, or pids.max of the container)"
    )]
    Thread(io::Error),
}
