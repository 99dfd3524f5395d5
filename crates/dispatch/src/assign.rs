//! Which job goes to which worker, and when.

use crate::call::{CALLS_MAX, Call};
use crate::config::{BATCH_BODY_BYTES, Delivery};
use crate::deadline::{NEVER, Nanos};
use crate::dispatch::Dispatch;
use crate::queue::JobList;
use crate::slab::NONE;
use crate::worker::{Stage, Worker};
use crate::{Action, CallId, Payload, Phase, Reason};

/// A job with a shorter execution limit than this is not put into a batch: the limit could not be
/// told from the batch's own time.
const BATCH_EXEC_FLOOR: Nanos = 20_000_000;

impl<J: Payload, R> Dispatch<J, R> {
    /// Hands out one call, if a job waits and a worker has room.
    pub(crate) fn assign(&mut self) -> Option<Action<J, R>> {
        if self.queue.is_empty() && !self.overload.is_on() || self.calls.len() >= CALLS_MAX {
            return None;
        }
        let job = self.next_queued()?;
        match self.worker_for(job) {
            Some(worker) => Some(match self.batch_limit(worker) {
                0 | 1 => self.send_one(worker, job),
                most => self.send_batch(worker, most),
            }),
            None => self.pass_on(),
        }
    }

    /// Passes a job on that came from another pool, if this one has nothing but peers: to the one
    /// that has most room for its size, or else the least beyond it.
    fn pass_on(&mut self) -> Option<Action<J, R>> {
        if self.relayed == 0 || !self.slots.is_empty() {
            return None;
        }
        // It came last, or nearly so: those before it were passed on.
        let mut job = self.queue.last;
        while job != NONE && !self.jobs[job].relayed {
            job = self.jobs[job].prev;
        }
        let takes = |w: &Worker| w.is_ready() && !w.offer.ordered;
        let load = |w: &Worker| u64::from(w.calls) * 1000 / u64::from(w.offer.capacity.max(1));
        let peers = self.workers.iter().filter(|(_, w)| takes(w));
        let (peer, _) = peers.min_by_key(|(_, w)| load(w)).filter(|_| job != NONE)?;
        Some(self.send_one(peer, job))
    }

    /// The job whose turn it is. One whose time is over ends here, if no tick came before.
    fn next_queued(&mut self) -> Option<u32> {
        if self.phase == Phase::Stopping {
            return None;
        }
        self.watch_overload();
        loop {
            let job = if self.overload.is_on() { self.queue.last } else { self.queue.first };
            if job == NONE {
                return None;
            }
            if self.jobs[job].deadline > self.now {
                return Some(job);
            }
            self.end_queued(job, Reason::QueueTimeout);
        }
    }

    /// A worker that may have this job: an idle one, or else the next in turn that has room.
    fn worker_for(&mut self, job: u32) -> Option<u32> {
        while let Some(&worker) = self.idle.last() {
            let w = &self.workers[worker];
            if w.is_ready() && w.calls == 0 {
                return Some(worker);
            }
            self.workers[worker].in_idle = false;
            self.idle.pop();
        }
        let isolated = self.jobs.special(job).isolated_until > self.now;
        for _ in 0..self.room.len() {
            let &worker = self.room.front()?;
            if !self.has_room(worker) {
                self.room.pop_front();
                self.workers[worker].in_room = false;
            } else {
                if self.room.len() > 1 {
                    self.room.rotate_left(1);
                }
                if !isolated {
                    return Some(worker);
                }
            }
        }
        None
    }

    /// Whether a worker that has jobs may get one more.
    fn has_room(&self, worker: u32) -> bool {
        let w = &self.workers[worker];
        if w.stage != Stage::Ready {
            return false;
        }
        if w.calls == 0 {
            return true;
        }
        let first = &self.calls[w.first_call];
        let head = first.jobs.first;
        if head != NONE && self.jobs.special(head).isolated_until > self.now {
            return false;
        }
        if !w.offer.ordered {
            return w.calls < w.offer.capacity;
        }
        if w.is_attached() && self.config.delivery == Delivery::AtMostOnce {
            // The link's loss would cost what was handed ahead, too.
            return false;
        }
        let age = self.now.saturating_sub(first.started);
        if w.service.is_long(age, first.jobs.len) {
            return false;
        }
        if self.batch_limit(worker) >= 2 {
            w.calls < 2
        } else {
            let ahead = w.jobs - first.jobs.len;
            if w.is_attached() {
                w.service.takes_ahead(ahead)
            } else {
                self.service.takes_ahead(self.ready_count, w.service, ahead)
            }
        }
    }

    /// How many jobs a call to this worker may carry by what it declared, what delivery allows,
    /// and how long its jobs take.
    fn batch_limit(&self, worker: u32) -> u32 {
        let w = &self.workers[worker];
        match self.config.delivery {
            // A batch's other jobs run again when one of them kills the worker.
            Delivery::AtLeastOnce { tries, retry_on } if tries != 1 && retry_on.lost => {
                w.service.batch(w.offer.batch)
            }
            _ => 0,
        }
    }

    /// Whether a job may travel with others.
    fn may_batch(&self, job: u32) -> bool {
        let (job, special) = (&self.jobs[job], self.jobs.special(job));
        let tries_left = match self.config.delivery {
            Delivery::AtLeastOnce { tries: 0, .. } => true,
            Delivery::AtLeastOnce { tries, .. } => job.tries + 2 <= tries,
            Delivery::AtMostOnce => false,
        };
        tries_left
            && !special.alone
            && job.deadline > self.now
            && special.exec_timeout.min(self.limits.exec_ttl) >= BATCH_EXEC_FLOOR
    }

    /// Takes a job from the queue, and sends it alone.
    fn send_one(&mut self, worker: u32, job: u32) -> Action<J, R> {
        self.take_queued(job);
        let mut jobs = JobList::new();
        jobs.push_back(&mut self.jobs, job);
        self.push_call(worker, jobs)
    }

    /// Takes a call's worth of jobs from the queue, at most so many, and sends it.
    fn send_batch(&mut self, worker: u32, most: u32) -> Action<J, R> {
        // What is there is shared with the others that could take some of it.
        let most = most.min(self.queue.len.div_ceil(self.ready_count.max(1)));
        let mut jobs = JobList::new();
        let mut bytes = 0usize;
        loop {
            let job = if self.overload.is_on() { self.queue.last } else { self.queue.first };
            if job == NONE {
                break;
            }
            // The first goes in any case, the others if all may travel together.
            if jobs.len > 0 {
                if jobs.len >= most || !self.may_batch(job) {
                    break;
                }
                bytes = bytes.saturating_add(self.body_size(job));
                if bytes > BATCH_BODY_BYTES {
                    break;
                }
            } else if most >= 2 {
                bytes = self.body_size(job);
            }
            let goes_alone = jobs.is_empty() && (most < 2 || !self.may_batch(job));
            self.take_queued(job);
            jobs.push_back(&mut self.jobs, job);
            if goes_alone {
                break;
            }
        }
        self.push_call(worker, jobs)
    }

    fn body_size(&self, job: u32) -> usize {
        self.jobs[job].payload.as_ref().map_or(0, Payload::size)
    }

    /// Takes a job out of the queue that is about to be sent.
    fn take_queued(&mut self, job: u32) {
        let (waited, budget) =
            (self.now.saturating_sub(self.jobs[job].submitted), self.jobs[job].budget());
        self.unqueue(job);
        self.overload.waited(waited, budget);
    }

    fn push_call(&mut self, worker: u32, jobs: JobList) -> Action<J, R> {
        let w = &mut self.workers[worker];
        let before = w.last_call;
        let call = self.calls.insert(Call::new(worker, jobs, before));
        w.last_call = call;
        if before == NONE {
            w.first_call = call;
            w.began_idle = true;
        } else {
            self.calls[before].next = call;
        }
        w.calls += 1;
        w.jobs += jobs.len;
        let (starts, slot) = (before == NONE || !w.offer.ordered, w.slot);
        let id = self.worker_id(worker);
        self.in_flight += jobs.len as usize;
        self.counters.calls += 1;
        let mut job = jobs.first;
        while job != NONE {
            self.jobs[job].sent(call, id, slot);
            if self.jobs.special(job).wait_by != NEVER {
                self.jobs.special_mut(job).wait_by = NEVER;
            }
            job = self.jobs[job].next;
        }
        if starts {
            self.start_call(call);
        } else {
            self.arm_jobs(jobs);
        }
        self.list(worker);
        Action::Send { worker: id, call: CallId::of(&self.calls, call) }
    }

    /// From here on a call's jobs may run.
    pub(crate) fn start_call(&mut self, call: u32) {
        let jobs = self.calls[call].jobs;
        self.calls[call].started = self.now;
        let mut exec = self.limits.exec_ttl;
        let mut job = jobs.first;
        while job != NONE {
            exec = exec.min(self.jobs.special(job).exec_timeout);
            let j = &mut self.jobs[job];
            j.tries += 1;
            j.started = self.now;
            job = j.next;
        }
        if exec != NEVER && jobs.first != NONE {
            self.jobs.special_mut(jobs.first).exec_by = self.now.saturating_add(exec);
        }
        self.arm_jobs(jobs);
    }

    /// A call's jobs have not run, against all expectation.
    pub(crate) fn unstart_call(&mut self, call: u32) {
        let c = &self.calls[call];
        if c.started == NEVER {
            return;
        }
        let mut job = c.jobs.first;
        while job != NONE {
            let j = &mut self.jobs[job];
            j.tries = j.tries.saturating_sub(1);
            job = j.next;
        }
    }

    /// Lists a worker where it is looked for when a job waits.
    pub(crate) fn list(&mut self, worker: u32) {
        let w = &mut self.workers[worker];
        if w.stage != Stage::Ready {
            return;
        }
        if w.calls == 0 {
            if !w.in_idle {
                w.in_idle = true;
                self.idle.push(worker);
            }
        } else if !w.in_room {
            w.in_room = true;
            self.room.push_back(worker);
        }
    }

    /// Takes a worker off the lists: it is no longer one to give jobs to.
    pub(crate) fn unlist(&mut self, worker: u32) {
        let w = &mut self.workers[worker];
        if std::mem::take(&mut w.in_idle) {
            self.idle.retain(|&listed| listed != worker);
        }
        if std::mem::take(&mut w.in_room) {
            self.room.retain(|&listed| listed != worker);
        }
    }
}
