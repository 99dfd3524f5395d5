//! What can go wrong: a thread that can't be started, and a worker that panicked.

use std::any::Any;
use std::{fmt, io};

use crate::WorkerId;

/// A worker's thread could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The system has no thread to give: lower the number of workers or raise its limit.
    #[error("cannot start the thread of {worker} ({name}): {source}")]
    Thread {
        /// The worker that it was to be.
        worker: WorkerId,
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The thread can't run on the core that [`WorkerOptions::core`](crate::WorkerOptions::core)
    /// names: choose one that the process may use.
    #[error("cannot tie the thread of {worker} ({name}) to core {core}: {source}")]
    Core {
        /// The worker that it was to be.
        worker: WorkerId,
        /// Its name.
        name: String,
        /// The core that was asked for.
        core: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A thread can't have a name with a NUL byte in it: choose another.
    #[error("cannot name {worker} {name:?}: a thread's name has no NUL byte in it")]
    Name {
        /// The worker that it was to be.
        worker: WorkerId,
        /// The name that was asked for.
        name: String,
    },
}

/// A worker panicked.
pub struct WorkerPanic {
    /// Which one.
    pub worker: WorkerId,
    /// Its name.
    pub name: String,
    /// What it panicked with: most often a `&'static str` or a `String`.
    pub payload: Box<dyn Any + Send>,
    /// Whether its job was started again. If not, the worker has ended.
    pub restarted: bool,
}

impl WorkerPanic {
    /// The payload, if it's text.
    pub fn message(&self) -> Option<&str> {
        let text = self.payload.downcast_ref::<&'static str>().copied();
        text.or_else(|| self.payload.downcast_ref::<String>().map(String::as_str))
    }

    /// Goes on panicking with the same payload in this thread, without calling the panic hook.
    pub fn resume(self) -> ! {
        std::panic::resume_unwind(self.payload)
    }
}

impl fmt::Debug for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPanic")
            .field("worker", &self.worker)
            .field("name", &self.name)
            .field("message", &self.message())
            .field("restarted", &self.restarted)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message().unwrap_or("a payload that is no text");
        write!(f, "{} ({}) panicked: {message}", self.worker, self.name)
    }
}
