//! What the pool can say of itself.

use std::time::Duration;

use crate::deadline::{NEVER, Nanos};
use crate::dispatch::Dispatch;
use crate::slab::NONE;
use crate::worker::{RestartReason, WorkerState};
use crate::{Code, Payload, WorkerId};

/// What was counted since the pool started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that were accepted.
    pub accepted: u64,
    /// Jobs that ended with a result.
    pub done: u64,
    /// Jobs that ended with a code, by [`Code`]; the ones that were refused included.
    pub failed: [u64; Code::ALL.len()],
    /// Jobs that were queued again after a failed try.
    pub retried: u64,
    /// Calls that were sent.
    pub calls: u64,
    /// Workers that were spawned.
    pub spawned: u64,
    /// Workers that were replaced or started again, by [`RestartReason`].
    pub restarts: [u64; RestartReason::ALL.len()],
}

impl Counters {
    /// How many jobs ended with this code.
    pub fn failed(&self, code: Code) -> u64 {
        self.failed[code as usize]
    }

    /// How often a worker was replaced or started again for this reason.
    pub fn restarts(&self, reason: RestartReason) -> u64 {
        self.restarts[reason as usize]
    }
}

/// Where the pool is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It accepts jobs.
    Running,
    /// It finishes what it accepted.
    Draining,
    /// It is ending at once.
    Stopping,
    /// Every job has ended, and every worker that it started is gone.
    Drained,
}

/// The pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where the pool is in its life.
    pub phase: Phase,
    /// Jobs in the queue.
    pub queued: usize,
    /// How long the job at the front of the queue has waited since it was submitted.
    pub oldest_wait: Option<Duration>,
    /// Jobs that workers have.
    pub in_flight: usize,
    /// Whether the newest jobs are served first for now: see [`Overload`](crate::Overload).
    pub overloaded: bool,
    /// The generation that workers are started with.
    pub generation: u32,
    /// Whether a reset is going on.
    pub resetting: bool,
    /// Starts that failed since the last one that succeeded.
    pub starts_failed: u32,
    /// The workers, those of slots first.
    pub workers: Vec<WorkerView>,
    /// What was counted since the pool started.
    pub counters: Counters,
}

impl Snapshot {
    /// How many workers can take a job, or have one.
    pub fn ready(&self) -> usize {
        let ready =
            |worker: &&WorkerView| matches!(worker.state, WorkerState::Idle | WorkerState::Busy);
        self.workers.iter().filter(ready).count()
    }
}

/// A worker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerId,
    /// Its slot; an attached peer has none.
    pub slot: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// The generation that it was started with.
    pub generation: u32,
    /// Jobs that it answered.
    pub jobs: u64,
    /// Jobs that it has.
    pub in_flight: u32,
    /// Since it was spawned or attached.
    pub age: Duration,
    /// How long its oldest job has been running.
    pub job_age: Option<Duration>,
    /// The mean time that a job of it takes; `None` until it has answered one.
    pub service_time: Option<Duration>,
    /// The last sample of its memory, in bytes.
    pub memory: Option<u64>,
    /// What its end would be counted as if it came now; `None` if nothing took its place.
    pub restart_reason: Option<RestartReason>,
}

impl<J: Payload, R> Dispatch<J, R> {
    pub(crate) fn look(&self, now: Nanos) -> Snapshot {
        let since = |at: Nanos| Duration::from_nanos(now.saturating_sub(at));
        let oldest = self.jobs.get(self.queue.first);
        let mut workers: Vec<WorkerView> =
            self.workers.iter().map(|(index, _)| self.look_at(index, now)).collect();
        workers.sort_by_key(|view| (view.slot.is_none(), view.slot, view.worker));
        Snapshot {
            phase: self.phase,
            queued: self.queued(),
            oldest_wait: oldest.map(|job| since(job.submitted)),
            in_flight: self.in_flight,
            overloaded: self.overload.is_on(),
            generation: self.generation,
            resetting: self.rolling.is_some(),
            starts_failed: self.starts_failed,
            workers,
            counters: self.counters,
        }
    }

    pub(crate) fn look_at(&self, index: u32, now: Nanos) -> WorkerView {
        let worker = &self.workers[index];
        let since = |at: Nanos| Duration::from_nanos(now.saturating_sub(at));
        // Calls are listed in the order in which they were sent: the first is the oldest.
        let started = self.calls.get(worker.first_call).map(|call| call.started);
        WorkerView {
            worker: self.worker_id(index),
            slot: (worker.slot != NONE).then_some(worker.slot),
            state: worker.state(),
            generation: worker.generation,
            jobs: worker.answered,
            in_flight: worker.jobs,
            age: since(worker.spawned),
            job_age: started.filter(|&at| at != NEVER).map(since),
            service_time: worker.service.mean().map(Duration::from_nanos),
            memory: worker.memory,
            restart_reason: self.restart_reason(worker),
        }
    }
}
