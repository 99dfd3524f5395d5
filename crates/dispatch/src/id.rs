//! Names for jobs, workers and calls that can't be mistaken once they are stale.

use std::fmt;

/// A job that was accepted. Equal to no other job's of this pool's life but by four billion
/// re-uses of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A worker, from when it is spawned until it is gone; or an attached peer, from
/// [`attach`](crate::Dispatch::attach) to [`detach`](crate::Dispatch::detach).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl JobId {
    /// The job's place: small, dense, and used again once the job has ended.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl WorkerId {
    /// The worker's place: small, dense, and used again once the worker is gone. An engine may
    /// keep its links in a table by it.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// What is sent to a worker in one message: one job, or a batch of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub(crate) u64);

impl CallId {
    /// The bits of the number that tell the call's place. They are the high ones: mostly the first
    /// places are used, so that the numbers are short, and each digit is written and read twice.
    pub(crate) const INDEX_BITS: u32 = 20;
    /// The bits below, which tell it from the calls that had this place before. Together they are
    /// less than 2^53: every JSON implementation reads such integers as they are.
    pub(crate) const GENERATION_BITS: u32 = u32::BITS;

    /// The number to send as the protocol's `id`: below 2^53, so that no JSON implementation
    /// rounds it.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The call of a number that a worker sent back. Whether there is such a call, and whether it
    /// is that worker's, [`replied`](crate::Dispatch::replied) finds out.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}.{}", self.index, self.generation)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}.{}", self.index, self.generation)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}", self.0)
    }
}
