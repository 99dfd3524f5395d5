//! The pool: events in, actions out.

use std::collections::VecDeque;
use std::time::Duration;

use remuda_backoff::Rng;

use crate::call::Call;
use crate::deadline::{Deadlines, NEVER, Nanos, nanos};
use crate::job::Jobs;
use crate::overload::OverloadWatch;
use crate::poison::PoisonList;
use crate::queue::JobList;
use crate::replace::{Replacing, Rolling};
use crate::service::PoolServiceTime;
use crate::slab::{NONE, Slab};
use crate::supervise::{Limits, Slot};
use crate::worker::Worker;
use crate::*;

/// The pool. `J` is a job as the engine sees it (its body, and who asked); `R` is an answer.
///
/// Every event carries `now`, the time since the pool's start; it never goes back (an earlier one
/// is read as the latest). After one or more events, poll [`poll_action`](Self::poll_action) until
/// there is none, then wait until [`next_tick`](Self::next_tick) at the latest, and call
/// [`tick`](Self::tick).
///
/// An event about a worker that is gone, or a job that has ended, is ignored: it was on its way
/// when that happened.
#[derive(Debug)]
pub struct Dispatch<J, R> {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) now: Nanos,
    pub(crate) phase: Phase,
    pub(crate) rng: Rng,

    pub(crate) jobs: Jobs<J>,
    /// Jobs that have not ended.
    pub(crate) live: usize,
    /// Jobs that workers have.
    pub(crate) in_flight: usize,
    pub(crate) queue: JobList,
    /// How many of them came from another pool.
    pub(crate) relayed: usize,
    pub(crate) calls: Slab<Call>,
    pub(crate) job_due: Deadlines,
    pub(crate) poison: PoisonList,
    pub(crate) overload: OverloadWatch,

    pub(crate) workers: Slab<Worker>,
    pub(crate) worker_due: Deadlines,
    /// Workers without a job, the one that had one last at the end: it is the warmest.
    pub(crate) idle: Vec<u32>,
    /// Workers that have jobs and may have room for more, the next in turn first.
    pub(crate) room: VecDeque<u32>,
    pub(crate) ready_count: u32,
    /// How long a job takes on any of the pool's own workers.
    pub(crate) service: PoolServiceTime,

    pub(crate) slots: Vec<Slot>,
    pub(crate) slot_due: Deadlines,
    pub(crate) generation: u32,
    pub(crate) last_generation: u32,
    pub(crate) starts_failed: u32,
    pub(crate) ever_ready: bool,
    pub(crate) replacing: Option<Replacing>,
    pub(crate) rolling: Option<Rolling>,

    pub(crate) drain_by: Nanos,
    /// Whether jobs that are queued, or come back to the queue, end instead.
    pub(crate) drop_queued: bool,
    pub(crate) actions: VecDeque<Action<J, R>>,
    pub(crate) counters: Counters,
}

/// How to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Whether the jobs in the queue are run (`serve`) or end as `draining` (`map`, at Ctrl-C).
    pub queued: bool,
    /// After this time what still runs is stopped, as by [`Dispatch::stop_now`]. `None`: never.
    pub within: Option<Duration>,
}

/// Why a reset was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetRefused {
    /// One is going on.
    #[error("a reset is going on: wait until it is done")]
    Resetting,
    /// The pool is draining.
    #[error("the pool is draining: start it anew instead")]
    Draining,
}

impl<J: Payload, R> Dispatch<J, R> {
    /// A pool with these options. `seed` decides all that is left to chance.
    ///
    /// # Errors
    /// An option that can't be: see [`Config::check`].
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut pool = Self {
            limits: Limits::of(&config),
            now: 0,
            phase: Phase::Running,
            rng: Rng::new(seed),
            jobs: Jobs::new(),
            live: 0,
            in_flight: 0,
            queue: JobList::new(),
            relayed: 0,
            calls: Slab::new(),
            job_due: Deadlines::default(),
            poison: PoisonList::default(),
            overload: OverloadWatch::new(),
            workers: Slab::new(),
            worker_due: Deadlines::default(),
            idle: Vec::new(),
            room: VecDeque::new(),
            ready_count: 0,
            service: PoolServiceTime::unknown(),
            slots: Vec::new(),
            slot_due: Deadlines::default(),
            generation: 0,
            last_generation: 0,
            starts_failed: 0,
            ever_ready: false,
            replacing: None,
            rolling: None,
            drain_by: NEVER,
            drop_queued: false,
            actions: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        pool.set_slots(pool.config.num_workers);
        Ok(pool)
    }

    /// A job. The work of an accepted one ends in exactly one [`Action::Finish`].
    ///
    /// # Errors
    /// At once, with the job given back: the queue is full, the pool drains, the body is in
    /// quarantine, or its deadline is over.
    #[inline]
    pub fn submit(
        &mut self,
        now: Duration,
        payload: J,
        options: JobOptions,
    ) -> Result<JobId, Refused<J>> {
        self.advance(now);
        if let Some(reason) = self.refusal(&payload, options) {
            self.counters.failed[reason.code() as usize] += 1;
            return Err(Refused { payload, reason });
        }
        Ok(self.accept(payload, options))
    }

    /// The client no longer wants a job. In the queue, it ends at once as `cancelled`. If it runs
    /// at a worker that declared `cancel`, the worker is told, and the job ends as the worker
    /// answers, or as `cancelled` after `cancel_grace`. Otherwise it ends at once, and the worker
    /// works on. Returns whether there was such a job.
    pub fn cancel(&mut self, now: Duration, job: JobId) -> bool {
        self.advance(now);
        let found = self.jobs.find(job.index, job.generation);
        let live = found.is_some_and(|found| found.payload.is_some());
        if live {
            self.cancel_job(job.index);
        }
        live
    }

    /// A worker that was spawned, or an attached peer whose link stands, has shaken hands.
    pub fn ready(&mut self, now: Duration, worker: WorkerId, offer: Offer) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker) {
            self.worker_ready(worker, offer);
        }
    }

    /// A worker could not be started, or ended before it was ready: it is gone.
    pub fn start_failed(&mut self, now: Duration, worker: WorkerId) {
        self.exited(now, worker, Exit::Unknown);
    }

    /// A worker answered a call: one outcome for each of its jobs, in their order.
    ///
    /// # Errors
    /// The worker broke the protocol. None of the outcomes is taken; the pool wants it killed
    /// ([`Action::Kill`]), and judges its jobs when it is gone. An attached peer is not killed:
    /// the engine is to close its link, and to report [`exited`](Self::exited).
    pub fn replied<O>(
        &mut self,
        now: Duration,
        worker: WorkerId,
        call: CallId,
        outcomes: O,
    ) -> Result<(), Fault>
    where
        O: IntoIterator<Item = Reply<R>>,
        O::IntoIter: ExactSizeIterator,
    {
        self.advance(now);
        let Some(worker) = self.find_worker(worker) else { return Ok(()) };
        self.take_answers(worker, call, outcomes.into_iter())
    }

    /// A worker broke the protocol in a way that the engine found: what it sends can't be read, or
    /// is no answer. As if [`replied`](Self::replied) had found it.
    pub fn faulted(&mut self, now: Duration, worker: WorkerId, fault: Fault) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker) {
            self.fault(worker, fault);
        }
    }

    /// A worker is gone and its socket was read to the end; or the link to an attached peer is
    /// down. Its jobs are judged.
    pub fn exited(&mut self, now: Duration, worker: WorkerId, exit: Exit) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker) {
            self.worker_gone(worker, exit);
        }
    }

    /// A sample of a worker's memory, in bytes.
    pub fn memory(&mut self, now: Duration, worker: WorkerId, bytes: u64) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker).filter(|&w| self.workers[w].is_ready()) {
            self.memory_sample(worker, bytes);
        }
    }

    /// A worker that isn't spawned: one that runs already, or a pool elsewhere. It is away until
    /// [`ready`](Self::ready), and again after [`exited`](Self::exited); it is never killed or
    /// started. Its jobs are handed out by what it offers.
    pub fn attach(&mut self, now: Duration) -> WorkerId {
        self.advance(now);
        let worker = self.workers.insert(Worker::new(NONE, 0, self.now));
        self.worker_id(worker)
    }

    /// An attached peer says how many jobs it runs at once by now. What it has above that it keeps.
    pub fn capacity_changed(&mut self, now: Duration, worker: WorkerId, capacity: u32) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker).filter(|&w| self.workers[w].is_attached()) {
            self.set_capacity(worker, capacity);
        }
    }

    /// An attached peer has ended in order, and said so: what it has not answered it has not begun.
    /// Its jobs go elsewhere as if they had not been sent, and it gets no more;
    /// [`exited`](Self::exited) is to follow.
    pub fn gave_back(&mut self, now: Duration, worker: WorkerId) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker).filter(|&w| self.workers[w].is_attached()) {
            self.peer_gave_back(worker);
        }
    }

    /// An attached peer is wanted no longer. Its jobs are judged as if its link was lost.
    pub fn detach(&mut self, now: Duration, worker: WorkerId) {
        self.advance(now);
        if let Some(worker) = self.find_worker(worker).filter(|&w| self.workers[w].is_attached()) {
            self.worker_gone(worker, Exit::Unknown);
            self.workers.free(worker);
        }
    }

    /// Replaces all workers, one after the other: the new one is ready before the old one drains.
    /// Returns the generation of the new ones, which [`Action::Spawn`] carries.
    ///
    /// If a new one doesn't become ready, the old ones stay: [`Action::ResetFailed`].
    ///
    /// # Errors
    /// A reset is going on, or the pool is draining.
    pub fn reset(&mut self, now: Duration) -> Result<u32, ResetRefused> {
        self.advance(now);
        if self.phase != Phase::Running {
            return Err(ResetRefused::Draining);
        }
        if self.rolling.is_some() {
            return Err(ResetRefused::Resetting);
        }
        self.last_generation += 1;
        self.rolling = Some(Rolling::new(self.last_generation));
        self.replace_next();
        Ok(self.last_generation)
    }

    /// Accepts no more jobs, finishes those that it has, and then stops its workers; at the end
    /// there is [`Action::Drained`]. Called again, the stricter of both holds.
    pub fn drain(&mut self, now: Duration, drain: Drain) {
        self.advance(now);
        self.begin_drain(drain);
    }

    /// Accepts no more jobs, ends those in the queue, and kills its workers; at the end there is
    /// [`Action::Drained`].
    pub fn stop_now(&mut self, now: Duration) {
        self.advance(now);
        self.stop_all(Reason::Draining);
    }

    /// Takes other options. Limits hold from the next time that they are looked at; workers that
    /// are too many drain, ones that lack are spawned.
    ///
    /// # Errors
    /// An option that can't be: nothing is changed then.
    pub fn configure(&mut self, now: Duration, config: Config) -> Result<(), ConfigError> {
        self.advance(now);
        config.check()?;
        self.limits = Limits::of(&config);
        let old = std::mem::replace(&mut self.config, config);
        let redraw = (old.max_jobs, old.max_jobs_jitter)
            != (self.config.max_jobs, self.config.max_jobs_jitter);
        if self.config.quarantine.is_none() {
            self.poison.clear();
        }
        for worker in 0..self.workers.end() {
            if self.workers.get(worker).is_none() {
                continue;
            }
            if redraw {
                self.workers[worker].max_jobs = self.draw_max_jobs();
            }
            self.arm_worker(worker);
        }
        if self.phase == Phase::Running {
            self.set_slots(self.config.num_workers);
        }
        Ok(())
    }

    /// Keeps so many workers from here on.
    ///
    /// # Errors
    /// Too many: nothing is changed then.
    pub fn resize(&mut self, now: Duration, num_workers: u32) -> Result<(), ConfigError> {
        self.configure(now, Config { num_workers, ..self.config.clone() })
    }

    /// Time has passed: does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.advance(now);
        while let Some(job) = self.job_due.pop_due(self.now) {
            self.job_is_due(job);
        }
        while let Some(worker) = self.worker_due.pop_due(self.now) {
            self.worker_is_due(worker);
        }
        while let Some(slot) = self.slot_due.pop_due(self.now) {
            self.fill_slot(slot);
            self.replace_next();
        }
        if self.drain_by <= self.now {
            self.stop_all(Reason::Draining);
        }
    }

    /// When [`tick`](Self::tick) is next needed, if nothing else happens. It may turn out that
    /// nothing is due then.
    pub fn next_tick(&self) -> Option<Duration> {
        let due = [&self.job_due, &self.worker_due, &self.slot_due].map(Deadlines::first);
        let at = due.into_iter().fold(self.drain_by, Nanos::min);
        (at != NEVER).then(|| Duration::from_nanos(at))
    }

    /// What is to be done next. `None`: nothing, until the next event or tick. Jobs are handed out
    /// here, so that those which came in together can travel together: feed all the events that
    /// are there first.
    pub fn poll_action(&mut self) -> Option<Action<J, R>> {
        if self.actions.is_empty() {
            self.wind_down();
        }
        if self.actions.is_empty() {
            let sent = self.assign();
            if self.actions.is_empty() {
                return sent;
            }
            // Before it, jobs ended in the queue whose time was over.
            self.actions.extend(sent);
        }
        self.actions.pop_front()
    }

    /// As [`poll_action`](Self::poll_action), but only what events have led to so far: no job is
    /// handed out. For a driver that feeds more events at once, and polls all actions after them.
    pub fn poll_outcome(&mut self) -> Option<Action<J, R>> {
        self.actions.pop_front()
    }

    /// A call's jobs, in order, each with what remains of its time (its client's budget, or its
    /// execution limit if that is less). A job that has ended meanwhile still is in its call, but
    /// without a payload: nothing is yielded for a call that was not just sent.
    pub fn call(&self, call: CallId) -> impl Iterator<Item = (&J, Option<Duration>)> {
        let first = call.find(&self.calls).map_or(NONE, |call| self.calls[call].jobs.first);
        let mut next = first;
        std::iter::from_fn(move || {
            let job = self.jobs.get(next)?;
            let exec = self.jobs.special(next).exec_timeout.min(self.limits.exec_ttl);
            next = job.next;
            let left = job.deadline.saturating_sub(self.now).min(exec);
            let bounded = job.deadline.min(exec) != NEVER;
            Some((job.payload.as_ref()?, bounded.then(|| Duration::from_nanos(left))))
        })
    }

    /// The jobs that a worker has, oldest first. It walks over those of the worker alone.
    pub fn jobs_of(&self, worker: WorkerId) -> impl Iterator<Item = &J> {
        let found = self.find_worker(worker).map(|index| &self.workers[index]);
        let mut next_call = found.map_or(NONE, |worker| worker.first_call);
        let mut next_job = NONE;
        std::iter::from_fn(move || {
            loop {
                if let Some(job) = self.jobs.get(next_job) {
                    next_job = job.next;
                    // One that has ended meanwhile has no payload.
                    if job.payload.is_some() {
                        return job.payload.as_ref();
                    }
                    continue;
                }
                let call = self.calls.get(next_call)?;
                (next_job, next_call) = (call.jobs.first, call.next);
            }
        })
    }

    /// The worker that a job would go to at once if it came now; `None` if it would have to wait, or
    /// would be handed out ahead of its turn. For a driver that can do something meanwhile.
    pub fn next_idle(&self) -> Option<WorkerId> {
        if self.queue.len > 0 || self.phase != Phase::Running {
            return None;
        }
        // As `worker_for` does, which takes those off the list that are idle no longer.
        let is_idle = |worker: &u32| {
            let worker = &self.workers[*worker];
            worker.is_ready() && worker.calls == 0
        };
        self.idle.iter().rev().copied().find(is_idle).map(|worker| self.worker_id(worker))
    }

    /// A worker at this moment; `None` for one that is gone.
    pub fn view(&self, now: Duration, worker: WorkerId) -> Option<WorkerView> {
        self.find_worker(worker).map(|index| self.look_at(index, nanos(now).max(self.now)))
    }

    /// The payload of a job that has not ended.
    pub fn payload(&self, job: JobId) -> Option<&J> {
        self.jobs.find(job.index, job.generation)?.payload.as_ref()
    }

    /// Jobs in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len as usize
    }

    /// Jobs that workers have.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many jobs would be accepted at once: what the queue has room for.
    pub fn room(&self) -> usize {
        self.config.max_queue_size.saturating_sub(self.queued())
    }

    /// Whether a worker can take a job, or has one.
    pub fn is_ready(&self) -> bool {
        self.ready_count > 0
    }

    /// The options that hold.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was counted since the pool started.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The pool at this moment. Allocates: it is for a person's eyes.
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        self.look(nanos(now).max(self.now))
    }

    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(nanos(now));
    }

    pub(crate) fn worker_id(&self, index: u32) -> WorkerId {
        WorkerId { index, generation: self.workers.generation(index) }
    }

    pub(crate) fn job_id(&self, index: u32) -> JobId {
        JobId { index, generation: self.jobs.generation(index) }
    }

    fn find_worker(&self, worker: WorkerId) -> Option<u32> {
        self.workers.has(worker.index, worker.generation).then_some(worker.index)
    }
}
