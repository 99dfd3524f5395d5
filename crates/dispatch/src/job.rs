//! What is asked of the pool: a job, its limits, and why it may be refused.

use std::time::Duration;

/// What the engine hands in with a job, and gets back when the job ends.
pub trait Payload {
    /// The body's size in bytes.
    fn size(&self) -> usize;

    /// A hash of the body, the same for equal bodies. Only asked for when a worker died under the
    /// job, and while the poison list isn't empty.
    fn fingerprint(&self) -> u64;
}

/// A job's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// When the client's budget is spent, on the pool's clock. In the queue, the job then ends as
    /// `queue_timeout`; while it runs, as `timeout`, and its worker is told to cancel it if it
    /// declared that it can, and otherwise works on. A client's budget never kills a worker.
    pub deadline: Option<Duration>,
    /// How long the job may run. Over it, the worker is told to cancel it, if it declared that it
    /// can, and is killed if that didn't help within `cancel_grace`; one that can't is killed at
    /// once. `exec_ttl` counts if it is shorter.
    pub exec_timeout: Option<Duration>,
    /// Never in a batch with others.
    pub alone: bool,
}

/// A job that was not accepted, given back.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refused<J> {
    /// What was handed in.
    pub payload: J,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a job was not accepted. It has not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RefusedReason {
    /// `queue_full`
    #[error("the queue is full: try again later, or raise max_queue_size")]
    QueueFull,
    /// `draining`
    #[error("the pool is draining: it accepts no more jobs")]
    Draining,
    /// `poisoned`
    #[error("workers died each time they had this job: it is not accepted for a while")]
    Poisoned,
    /// `queue_timeout`
    #[error("the job's time was over before it came in: allow more time")]
    Expired,
}

impl RefusedReason {
    /// The code that goes with it.
    pub fn code(self) -> crate::Code {
        match self {
            RefusedReason::QueueFull => crate::Code::QueueFull,
            RefusedReason::Draining => crate::Code::Draining,
            RefusedReason::Poisoned => crate::Code::Poisoned,
            RefusedReason::Expired => crate::Code::QueueTimeout,
        }
    }
}
