//! Workers from their spawn to their end.

use std::time::Duration;

use crate::config::{GIVE_UP_STARTS, MEMORY_HEADROOM_PERCENT, MEMORY_SAMPLES};
use crate::deadline::{NEVER, Nanos, limit, nanos};
use crate::dispatch::Dispatch;
use crate::end::Loss;
use crate::slab::NONE;
use crate::worker::{Stage, Worker};
use crate::{Action, Exit, Fault, KillReason, Offer, Payload, Phase, Reason, RestartReason};

/// A place for a worker: what `REMUDA_WORKER_SLOT` names.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The worker that has the place, or [`NONE`].
    pub(crate) current: u32,
    /// The one that is to follow it, not ready yet, or [`NONE`].
    pub(crate) next: u32,
    /// Which set-up a worker is started with again: the one that was last ready here.
    pub(crate) generation: u32,
    /// The largest delay after the last of the workers in a row that died here without having
    /// answered anything; zero if there was none.
    pub(crate) ceiling: Duration,
    /// Not before this time is a worker started here.
    pub(crate) start_at: Nanos,
}

impl Slot {
    pub(crate) fn new(generation: u32) -> Self {
        Self { current: NONE, next: NONE, generation, ceiling: Duration::ZERO, start_at: 0 }
    }
}

impl<J: Payload, R> Dispatch<J, R> {
    /// Spawns a worker for a slot; the caller says as what.
    pub(crate) fn spawn(&mut self, slot: u32, generation: u32, timeout: Nanos) -> u32 {
        let mut worker = Worker::new(slot, generation, self.now);
        worker.stage_by = self.now.saturating_add(timeout);
        let stage_by = worker.stage_by;
        let index = self.workers.insert(worker);
        self.worker_due.set(index, stage_by);
        self.counters.spawned += 1;
        let worker = self.worker_id(index);
        self.actions.push_back(Action::Spawn { worker, slot, generation });
        index
    }

    /// Starts a worker in each slot that lacks one, as soon as it may be.
    pub(crate) fn fill_slots(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            self.fill_slot(slot);
        }
    }

    pub(crate) fn fill_slot(&mut self, slot: u32) {
        let wanted = match self.phase {
            Phase::Running => true,
            Phase::Draining => self.live > 0,
            Phase::Stopping | Phase::Drained => false,
        };
        let Some(s) = self.slots.get(slot as usize) else { return };
        if !wanted || s.current != NONE || s.next != NONE {
            return;
        }
        if s.start_at > self.now {
            self.slot_due.set(slot, s.start_at);
            return;
        }
        let worker = self.spawn(slot, s.generation, nanos(self.config.allocate_timeout));
        self.slots[slot as usize].current = worker;
    }

    pub(crate) fn worker_ready(&mut self, worker: u32, offer: Offer) {
        let max_jobs = self.draw_max_jobs();
        let now = self.now;
        let w = &mut self.workers[worker];
        if !matches!(w.stage, Stage::Starting | Stage::Away) {
            return;
        }
        let capacity = if offer.ordered { 1 } else { offer.capacity.max(1) };
        w.offer = Offer { capacity, ..offer };
        w.stage = Stage::Ready;
        w.stage_by = NEVER;
        w.idle_since = now;
        self.ready_count += 1;
        if w.is_attached() {
            self.list(worker);
            return;
        }
        w.max_jobs = max_jobs;
        self.starts_failed = 0;
        self.ever_ready = true;
        self.arm_worker(worker);
        if self.take_place(worker) {
            self.list(worker);
        }
    }

    /// About `max_jobs`, by chance, so that workers aren't all replaced at the same time.
    pub(crate) fn draw_max_jobs(&mut self) -> u64 {
        let Some(max_jobs) = self.config.max_jobs else { return u64::MAX };
        let spread = u128::from(max_jobs) * u128::from(self.config.max_jobs_jitter) / 100;
        let spread = u64::try_from(spread).unwrap_or(0);
        (max_jobs - self.rng.between(0, spread).min(max_jobs)).max(1)
    }

    /// A worker that is ready has the slot from here on; the one before it drains.
    fn take_place(&mut self, worker: u32) -> bool {
        let (slot, generation) = (self.workers[worker].slot, self.workers[worker].generation);
        let place = self.slots.get_mut(slot as usize);
        let Some(s) = place.filter(|s| s.current == worker || s.next == worker) else {
            self.retire(worker, None);
            return false;
        };
        s.generation = generation;
        let mut old = NONE;
        if s.next == worker {
            old = std::mem::replace(&mut s.current, worker);
            s.next = NONE;
        }
        self.replacement_ready(worker, old);
        true
    }

    /// A worker gets no more jobs, and ends when it has finished those that it has.
    pub(crate) fn retire(&mut self, worker: u32, reason: Option<RestartReason>) {
        self.unlist(worker);
        let destroy_timeout = nanos(self.config.destroy_timeout);
        let w = &mut self.workers[worker];
        w.retire = reason.or(w.retire);
        match w.stage {
            Stage::Starting => self.kill(worker, KillReason::Stopped),
            Stage::Ready => {
                w.stage = Stage::Draining;
                w.stage_by = self.now.saturating_add(destroy_timeout);
                let (stage_by, done) = (w.stage_by, w.calls == 0);
                self.ready_count -= 1;
                self.worker_due.set(worker, stage_by);
                if done {
                    self.stop(worker);
                }
            }
            _ => {}
        }
    }

    /// An attached peer runs so many jobs at once by now.
    pub(crate) fn set_capacity(&mut self, worker: u32, capacity: u32) {
        let w = &mut self.workers[worker];
        if !w.offer.ordered {
            w.offer.capacity = capacity.max(1);
            self.list(worker);
        }
    }

    /// An attached peer is shutting down: it gets no more jobs, and its link is closed once those
    /// that it has are answered.
    pub(crate) fn peer_drains(&mut self, worker: u32) {
        let w = &mut self.workers[worker];
        if w.stage == Stage::Ready {
            w.stage = Stage::Draining;
            self.ready_count -= 1;
            self.unlist(worker);
        }
    }

    /// An attached peer has not begun what it has not answered.
    pub(crate) fn peer_gave_back(&mut self, worker: u32) {
        self.peer_drains(worker);
        let w = &mut self.workers[worker];
        let mut call = w.last_call;
        (w.first_call, w.last_call, w.calls, w.jobs) = (NONE, NONE, 0, 0);
        while call != NONE {
            let before = self.calls[call].prev;
            self.unstart_call(call);
            let reason = Reason::LinkLost;
            self.judge(call, Loss { reason, ran: false, charged: false, suspected: false });
            call = before;
        }
    }

    /// Asks a worker that has nothing to do any more to end; the link to an attached peer is closed.
    pub(crate) fn stop(&mut self, worker: u32) {
        let destroy_timeout = nanos(self.config.destroy_timeout);
        let w = &mut self.workers[worker];
        let stage_by = match w.is_attached() {
            true => NEVER,
            false => self.now.saturating_add(destroy_timeout),
        };
        w.stage = Stage::Stopping;
        w.stage_by = stage_by;
        self.worker_due.set(worker, stage_by);
        let worker = self.worker_id(worker);
        self.actions.push_back(Action::Stop { worker });
    }

    /// Has a worker killed. Its jobs are judged when it is gone.
    pub(crate) fn kill(&mut self, worker: u32, reason: KillReason) {
        let w = &self.workers[worker];
        if w.stage == Stage::Killed || w.is_attached() {
            return;
        }
        self.unlist(worker);
        let w = &mut self.workers[worker];
        self.ready_count -= u32::from(w.is_ready());
        w.stage = Stage::Killed;
        w.killed = Some(reason);
        self.worker_due.set(worker, NEVER);
        let worker = self.worker_id(worker);
        self.actions.push_back(Action::Kill { worker, reason });
    }

    /// A worker broke the protocol.
    pub(crate) fn fault(&mut self, worker: u32, fault: Fault) {
        self.kill(worker, KillReason::Fault(fault));
        let w = &mut self.workers[worker];
        w.faulted = true;
        if w.is_attached() && w.stage == Stage::Ready {
            // The engine closes the link; until then nothing more goes there.
            w.stage = Stage::Killed;
            self.ready_count -= 1;
            self.unlist(worker);
        }
    }

    /// Judges the jobs of a worker that is gone, and forgets it (an attached peer: until it is
    /// back).
    pub(crate) fn worker_gone(&mut self, worker: u32, exit: Exit) {
        self.unlist(worker);
        self.ready_count -= u32::from(self.workers[worker].is_ready());
        let had_jobs = self.workers[worker].jobs > 0;
        self.judge_all(worker, exit);
        self.worker_due.set(worker, NEVER);
        if self.workers[worker].is_attached() {
            let w = &mut self.workers[worker];
            w.stage = Stage::Away;
            w.service = crate::service::ServiceTime::unknown();
            w.faulted = false;
            return;
        }
        self.replacement_lost(worker);
        if let Some(gone) = self.workers.remove(worker) {
            if let Some(reason) = self.restart_reason(&gone) {
                self.counters.restarts[reason as usize] += 1;
            }
            self.slot_lost(worker, &gone, had_jobs);
        }
    }

    fn judge_all(&mut self, worker: u32, exit: Exit) {
        let w = &mut self.workers[worker];
        // Where one that broke the protocol had come to, nobody knows; nor which answers were lost
        // with a link.
        let ordered = w.offer.ordered && !w.faulted && !w.is_attached();
        let by_pool = w.was_killed_by_pool() || w.is_attached();
        let alone = w.jobs == 1;
        let reason = match w.killed {
            _ if w.is_attached() => Reason::LinkLost,
            None => Reason::WorkerLost(exit),
            Some(KillReason::Fault(fault)) => Reason::WorkerFault(fault),
            Some(_) => Reason::WorkerKilled,
        };
        let (first, mut call) = (w.first_call, w.last_call);
        (w.first_call, w.last_call, w.calls, w.jobs) = (NONE, NONE, 0, 0);
        while call != NONE {
            let before = self.calls[call].prev;
            let ran = !ordered || call == first;
            let charged = ran && !by_pool && (ordered || alone);
            let suspected = ran && !by_pool && !charged;
            self.judge(call, Loss { reason, ran, charged, suspected });
            call = before;
        }
    }

    /// What the end of a worker is counted as if it comes now; `None` if it makes no restart.
    pub(crate) fn restart_reason(&self, worker: &Worker) -> Option<RestartReason> {
        let restarts = self.phase == Phase::Running && self.slots.len() > worker.slot as usize;
        restarts.then(|| worker.restart_reason())
    }

    /// A slot's worker is gone: another is started, at once if it had answered anything.
    fn slot_lost(&mut self, worker: u32, gone: &Worker, had_jobs: bool) {
        let failed_start =
            gone.stage == Stage::Starting || gone.killed == Some(KillReason::AllocateTimeout);
        let slot = gone.slot;
        let Some(s) = self.slots.get_mut(slot as usize) else {
            self.replace_next();
            return;
        };
        if s.current == worker {
            // The one that is to follow it, if there is one, has the place already.
            s.current = std::mem::replace(&mut s.next, NONE);
        } else if s.next == worker {
            s.next = NONE;
        } else {
            self.replace_next();
            return;
        }
        if gone.answered > 0 {
            (s.ceiling, s.start_at) = (Duration::ZERO, 0);
        } else {
            s.ceiling = self.config.restart.ceiling(s.ceiling, had_jobs);
            s.start_at = self.now.saturating_add(nanos(self.rng.up_to(s.ceiling)));
        }
        if failed_start {
            self.starts_failed = self.starts_failed.saturating_add(1);
            self.give_up_if_hopeless();
        }
        self.fill_slot(slot);
        self.replace_next();
    }

    fn give_up_if_hopeless(&mut self) {
        let limit = GIVE_UP_STARTS.saturating_mul(self.slots.len() as u32);
        let attached = self.workers.iter().any(|(_, worker)| worker.is_attached());
        let running = matches!(self.phase, Phase::Running | Phase::Draining);
        if self.config.give_up
            && running
            && !self.ever_ready
            && !attached
            && self.starts_failed >= limit
        {
            self.actions.push_back(Action::GiveUp { starts: self.starts_failed });
            self.stop_all(Reason::NoWorker);
        }
    }

    /// A worker answered so many jobs.
    pub(crate) fn worker_answered(&mut self, worker: u32, jobs: u32) {
        let w = &mut self.workers[worker];
        w.answered += u64::from(jobs);
        let worn = w.answered >= w.max_jobs;
        if w.calls > 0 {
            self.list(worker);
        } else if w.stage == Stage::Draining {
            self.stop(worker);
        } else if w.stage == Stage::Ready {
            w.idle_since = self.now;
            if self.limits.idle_ttl != NEVER && !w.is_attached() {
                let at = self.now.saturating_add(self.limits.idle_ttl);
                self.worker_due.hasten(worker, at);
            }
            self.list(worker);
        }
        if worn {
            self.want_replaced(worker, RestartReason::MaxJobs);
        }
    }

    /// Sets when a worker has to be looked at.
    pub(crate) fn arm_worker(&mut self, worker: u32) {
        let w = &self.workers[worker];
        let at = match w.stage {
            Stage::Ready if !w.is_attached() && w.retire.is_none() => {
                let idle_by = match w.calls {
                    0 => w.idle_since.saturating_add(self.limits.idle_ttl),
                    _ => NEVER,
                };
                idle_by.min(w.spawned.saturating_add(self.limits.ttl))
            }
            Stage::Starting | Stage::Draining | Stage::Stopping => w.stage_by,
            _ => NEVER,
        };
        self.worker_due.set(worker, at);
    }

    /// A worker's time has come: one of them.
    pub(crate) fn worker_is_due(&mut self, worker: u32) {
        let now = self.now;
        let w = &self.workers[worker];
        match w.stage {
            Stage::Starting if w.stage_by <= now => self.kill(worker, KillReason::AllocateTimeout),
            Stage::Stopping if w.stage_by <= now => self.kill(worker, KillReason::DestroyTimeout),
            Stage::Draining if w.stage_by <= now => {
                // It may finish its job, but the others don't wait for it to be replaced.
                self.old_one_gone(worker);
                self.replace_next();
            }
            Stage::Ready => {
                let idle = w.calls == 0;
                if w.spawned.saturating_add(self.limits.ttl) <= now {
                    self.want_replaced(worker, RestartReason::Ttl);
                } else if idle && w.idle_since.saturating_add(self.limits.idle_ttl) <= now {
                    self.want_replaced(worker, RestartReason::IdleTtl);
                }
                self.arm_worker(worker);
            }
            _ => self.arm_worker(worker),
        }
    }

    pub(crate) fn memory_sample(&mut self, worker: u32, bytes: u64) {
        let max = self.config.supervisor.max_worker_memory.filter(|max| *max > 0);
        let w = &mut self.workers[worker];
        if w.memory.replace(bytes).is_none() {
            w.memory_first = bytes;
        }
        let headroom = w.memory_first / 100 * MEMORY_HEADROOM_PERCENT;
        let over = max.is_some_and(|max| bytes > max.max(w.memory_first + headroom));
        w.memory_over = if over { w.memory_over + 1 } else { 0 };
        if w.memory_over >= MEMORY_SAMPLES {
            self.want_replaced(worker, RestartReason::Memory);
        }
    }
}

/// The options that are looked at for each job, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) exec_ttl: Nanos,
    pub(crate) ttl: Nanos,
    pub(crate) idle_ttl: Nanos,
    pub(crate) cancel_grace: Nanos,
}

impl Limits {
    pub(crate) fn of(config: &crate::Config) -> Self {
        let positive = |duration: Option<Duration>| limit(duration.filter(|d| !d.is_zero()));
        Self {
            exec_ttl: positive(config.supervisor.exec_ttl),
            ttl: positive(config.supervisor.ttl),
            idle_ttl: positive(config.supervisor.idle_ttl),
            cancel_grace: nanos(config.cancel_grace),
        }
    }
}
