//! What travels between the manager and its workers.

use std::fmt;

/// Names a worker of one pool: counted from 0 in the order of their start, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub(crate) usize);

impl WorkerId {
    /// The worker that was started as the `index`-th, the first being 0.
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    /// The number behind it.
    pub fn index(self) -> usize {
        self.0
    }
}

impl From<usize> for WorkerId {
    fn from(index: usize) -> Self {
        Self(index)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

/// A message from a worker to the manager, with its sender.
///
/// It carries no timestamp: a burst is bounded by positions in the queues. The sender is known
/// from the queue, so it costs nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpMsg<Up> {
    /// Who sent it.
    pub worker: WorkerId,
    /// What it sent.
    pub body: Up,
}

/// A message from the manager to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownMsg<Down> {
    /// End soon: from here on, block on nothing but [`WorkerSender::send`](crate::WorkerSender).
    ///
    /// It's the last message that a worker gets.
    Stop,
    /// Do nothing until [`Continue`](Self::Continue) or [`Stop`](Self::Stop).
    Pause,
    /// Go on after a [`Pause`](Self::Pause).
    Continue,
    /// Anything else, as the program needs it.
    Other(Down),
}
