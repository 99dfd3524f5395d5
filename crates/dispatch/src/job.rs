//! What is asked of the pool: a job, its limits, and why it may be refused.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::deadline::{NEVER, Nanos};
use crate::slab::{NONE, Slab};
use crate::{Facts, WorkerId};

/// What the engine hands in with a job, and gets back when the job ends.
pub trait Payload {
    /// The body's size in bytes.
    fn size(&self) -> usize;

    /// A hash of the body, the same for equal bodies. Only asked for when a worker died under the
    /// job, and while the poison list isn't empty.
    fn fingerprint(&self) -> u64;

    /// Begins to have `at` fetched into the processor's cache, if the driver can: it is looked at
    /// soon. By default nothing.
    #[inline]
    fn fetch<T>(_at: &T) {}

    /// The same of what lies elsewhere and is needed to send the job. By default nothing.
    #[inline]
    fn fetch_parts(&self) {}
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
    /// It came from another pool. A pool that has attached peers and no workers of its own passes
    /// it on at once, though all of them may be at their capacity: pools that are attached in a
    /// circle would otherwise wait for each other for ever, each with its room full of the others'
    /// jobs.
    pub relayed: bool,
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

/// A job in the pool: from when it is accepted until it has ended and no worker has it. In this order
/// it lies in as few cache lines as can be, which counts where there are thousands of them: with what
/// the engine hands in, two.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Job<J> {
    pub(crate) submitted: Nanos,
    /// When its last try started.
    pub(crate) started: Nanos,
    /// When the client's budget is spent.
    pub(crate) deadline: Nanos,
    /// It came from another pool.
    pub(crate) relayed: bool,
    /// There is more to say of it: see [`Special`].
    is_special: bool,
    /// Who had it last.
    worker: WorkerId,
    pub(crate) slot: u32,
    /// The call that it is in; [`NONE`]: it is in the queue.
    pub(crate) call: u32,
    pub(crate) prev: u32,
    pub(crate) next: u32,
    pub(crate) tries: u32,
    /// `None`: it has ended, but a worker still has it.
    pub(crate) payload: Option<J>,
}

/// What there is to say of few jobs: of those with an execution limit, and of those that something
/// happened to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Special {
    /// In an overloaded pool: when it has waited for too long.
    pub(crate) wait_by: Nanos,
    /// How long it may run.
    pub(crate) exec_timeout: Nanos,
    /// When it, or the batch that it is the first of, will have run for too long.
    pub(crate) exec_by: Nanos,
    /// By when a worker that was told to cancel it should have answered.
    pub(crate) cancel_by: Nanos,
    /// A worker died while it had this job and others at once: until this time it is not run
    /// beside others, so that the next death tells.
    pub(crate) isolated_until: Nanos,
    /// For one that has ended while a worker has it: what to charge if that worker dies.
    pub(crate) fingerprint: u64,
    /// Workers that died under it.
    pub(crate) deaths: u32,
    /// Never in a batch with others.
    pub(crate) alone: bool,
    /// Its client cancelled it, and the worker was told.
    pub(crate) cancelled: bool,
    /// It ran for too long.
    pub(crate) overdue: bool,
}

impl Special {
    /// What holds for all others.
    const NOT: Self = Self {
        wait_by: NEVER,
        exec_timeout: NEVER,
        exec_by: NEVER,
        cancel_by: NEVER,
        isolated_until: 0,
        fingerprint: 0,
        deaths: 0,
        alone: false,
        cancelled: false,
        overdue: false,
    };
}

/// The jobs by place, and in memory of its own what there is to say of few.
#[derive(Debug)]
pub(crate) struct Jobs<J> {
    all: Slab<Job<J>>,
    /// As long as the last place of a special one.
    special: Vec<Special>,
}

impl<J> Jobs<J> {
    pub(crate) fn new() -> Self {
        Self { all: Slab::new(), special: Vec::new() }
    }

    pub(crate) fn special(&self, job: u32) -> &Special {
        if self[job].is_special { &self.special[job as usize] } else { &Special::NOT }
    }

    pub(crate) fn special_mut(&mut self, job: u32) -> &mut Special {
        let place = job as usize;
        if !std::mem::replace(&mut self[job].is_special, true) {
            if self.special.len() <= place {
                self.special.resize(place + 1, Special::NOT);
            }
            self.special[place] = Special::NOT;
        }
        &mut self.special[place]
    }
}

impl<J> Deref for Jobs<J> {
    type Target = Slab<Job<J>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<J> DerefMut for Jobs<J> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.all
    }
}

/// No worker has such a place.
const NO_WORKER: WorkerId = WorkerId { index: NONE, generation: 0 };

impl<J> Job<J> {
    pub(crate) fn new(payload: J, submitted: Nanos) -> Self {
        Self {
            submitted,
            started: NEVER,
            deadline: NEVER,
            worker: NO_WORKER,
            slot: NONE,
            call: NONE,
            prev: NONE,
            next: NONE,
            tries: 0,
            relayed: false,
            is_special: false,
            payload: Some(payload),
        }
    }

    /// It goes to this worker with this call.
    pub(crate) fn sent(&mut self, call: u32, worker: WorkerId, slot: u32) {
        (self.call, self.worker, self.slot) = (call, worker, slot);
    }

    /// The client's budget.
    pub(crate) fn budget(&self) -> Nanos {
        if self.deadline == NEVER { NEVER } else { self.deadline.saturating_sub(self.submitted) }
    }

    /// Where it ran, as of `now`.
    pub(crate) fn facts(&self, now: Nanos) -> Facts {
        Facts {
            worker: (self.worker != NO_WORKER).then_some(self.worker),
            slot: (self.slot != NONE).then_some(self.slot),
            tries: self.tries,
            submitted: self.submitted,
            started: self.started,
            ended: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As large as the engine's.
    type Payload = (Box<u64>, [u64; 8]);

    #[test]
    fn a_job_lies_in_two_cache_lines() {
        assert_eq!(Slab::<Job<Payload>>::ENTRY_SIZE, 128);
    }

    #[test]
    fn a_job_has_nothing_of_a_special_one_that_had_its_place() {
        let mut jobs = Jobs::new();
        let first = jobs.insert(Job::new((), 0));
        jobs.special_mut(first).deaths = 2;
        assert_eq!(jobs.special(first).deaths, 2);
        jobs.free(first);
        let second = jobs.insert(Job::new((), 0));
        assert_eq!((second, jobs.special(second).deaths), (first, 0));
        jobs.special_mut(second).alone = true;
        assert_eq!((jobs.special(second).deaths, jobs.special(second).alone), (0, true));
    }
}
