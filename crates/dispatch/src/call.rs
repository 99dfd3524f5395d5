//! What was sent to a worker in one message, and not answered yet.

use crate::CallId;
use crate::deadline::{NEVER, Nanos};
use crate::queue::JobList;
use crate::slab::{NONE, Slab};

/// The most calls that are in flight at a time, over all workers.
pub(crate) const CALLS_MAX: usize = 1 << CallId::INDEX_BITS;

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) worker: u32,
    pub(crate) jobs: JobList,
    /// When it started, as far as can be known: [`NEVER`] for one ahead of its turn.
    pub(crate) started: Nanos,
    /// Whether the worker was told to cancel it.
    pub(crate) cancel_sent: bool,
    /// The worker's other calls, in the order in which they were sent.
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Call {
    /// A call behind `prev`.
    pub(crate) fn new(worker: u32, jobs: JobList, prev: u32) -> Self {
        Self { worker, jobs, started: NEVER, cancel_sent: false, prev, next: NONE }
    }
}

impl CallId {
    pub(crate) fn of(calls: &Slab<Call>, index: u32) -> Self {
        Self(u64::from(index) << Self::GENERATION_BITS | u64::from(calls.generation(index)))
    }

    /// The place of the call of this name, if it is in flight.
    pub(crate) fn find(self, calls: &Slab<Call>) -> Option<u32> {
        let index = u32::try_from(self.0 >> Self::GENERATION_BITS).ok()?;
        let generation = self.0 as u32;
        calls.has(index, generation).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_call_only() {
        let mut calls = Slab::new();
        let index = calls.insert(Call::new(0, JobList::new(), NONE));
        let first = CallId::of(&calls, index);
        assert_eq!(CallId::from_number(first.number()).find(&calls), Some(index));
        calls.free(index);
        assert_eq!(first.find(&calls), None);
        calls.insert(Call::new(0, JobList::new(), NONE));
        assert_eq!(first.find(&calls), None, "the place is used again, the number is not");
        assert_eq!(CallId::from_number(u64::MAX).find(&calls), None);
        assert_eq!(CallId::from_number(1 << 53).find(&calls), None);
    }
}
