//! The pool: events in, actions out.

use std::marker::PhantomData;
use std::time::Duration;

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
    nothing: PhantomData<(J, R)>,
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
        todo!()
    }

    /// A job. The work of an accepted one ends in exactly one [`Action::Finish`].
    ///
    /// # Errors
    /// At once, with the job given back: the queue is full, the pool drains, the body is in
    /// quarantine, or its deadline is over.
    pub fn submit(
        &mut self,
        now: Duration,
        payload: J,
        options: JobOptions,
    ) -> Result<JobId, Refused<J>> {
        todo!()
    }

    /// The client no longer wants a job. In the queue, it ends at once as `cancelled`. If it runs
    /// at a worker that declared `cancel`, the worker is told, and the job ends as the worker
    /// answers, or as `cancelled` after `cancel_grace`. Otherwise it ends at once, and the worker
    /// works on. Returns whether there was such a job.
    pub fn cancel(&mut self, now: Duration, job: JobId) -> bool {
        todo!()
    }

    /// A worker that was spawned, or an attached peer whose link stands, has shaken hands.
    pub fn ready(&mut self, now: Duration, worker: WorkerId, offer: Offer) {
        todo!()
    }

    /// A worker could not be started, or ended before it was ready: it is gone.
    pub fn start_failed(&mut self, now: Duration, worker: WorkerId) {
        todo!()
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
        todo!()
    }

    /// A worker broke the protocol in a way that the engine found: what it sends can't be read, or
    /// is no answer. As if [`replied`](Self::replied) had found it.
    pub fn faulted(&mut self, now: Duration, worker: WorkerId, fault: Fault) {
        todo!()
    }

    /// A worker is gone and its socket was read to the end; or the link to an attached peer is
    /// down. Its jobs are judged.
    pub fn exited(&mut self, now: Duration, worker: WorkerId, exit: Exit) {
        todo!()
    }

    /// A sample of a worker's memory, in bytes.
    pub fn memory(&mut self, now: Duration, worker: WorkerId, bytes: u64) {
        todo!()
    }

    /// A worker that isn't spawned: one that runs already, or a pool elsewhere. It is away until
    /// [`ready`](Self::ready), and again after [`exited`](Self::exited); it is never killed or
    /// started. Its jobs are handed out by what it offers.
    pub fn attach(&mut self, now: Duration) -> WorkerId {
        todo!()
    }

    /// An attached peer is wanted no longer. Its jobs are judged as if its link was lost.
    pub fn detach(&mut self, now: Duration, worker: WorkerId) {
        todo!()
    }

    /// Replaces all workers, one after the other: the new one is ready before the old one drains.
    /// Returns the generation of the new ones, which [`Action::Spawn`] carries.
    ///
    /// If a new one doesn't become ready, the old ones stay: [`Action::ResetFailed`].
    ///
    /// # Errors
    /// A reset is going on, or the pool is draining.
    pub fn reset(&mut self, now: Duration) -> Result<u32, ResetRefused> {
        todo!()
    }

    /// Accepts no more jobs, finishes those that it has, and then stops its workers; at the end
    /// there is [`Action::Drained`]. Called again, the stricter of both holds.
    pub fn drain(&mut self, now: Duration, drain: Drain) {
        todo!()
    }

    /// Accepts no more jobs, ends those in the queue, and kills its workers; at the end there is
    /// [`Action::Drained`].
    pub fn stop_now(&mut self, now: Duration) {
        todo!()
    }

    /// Takes other options. Limits hold from the next time that they are looked at; workers that
    /// are too many drain, ones that lack are spawned.
    ///
    /// # Errors
    /// An option that can't be: nothing is changed then.
    pub fn configure(&mut self, now: Duration, config: Config) -> Result<(), ConfigError> {
        todo!()
    }

    /// Keeps so many workers from here on.
    ///
    /// # Errors
    /// Too many: nothing is changed then.
    pub fn resize(&mut self, now: Duration, num_workers: u32) -> Result<(), ConfigError> {
        todo!()
    }

    /// Time has passed: does what is due.
    pub fn tick(&mut self, now: Duration) {
        todo!()
    }

    /// When [`tick`](Self::tick) is next needed, if nothing else happens. It may turn out that
    /// nothing is due then.
    pub fn next_tick(&self) -> Option<Duration> {
        todo!()
    }

    /// What is to be done next. `None`: nothing, until the next event or tick. Jobs are handed out
    /// here, so that those which came in together can travel together: feed all the events that
    /// are there first.
    pub fn poll_action(&mut self) -> Option<Action<J, R>> {
        todo!()
    }

    /// A call's jobs, in order, each with what remains of its time (its client's budget, or its
    /// execution limit if that is less). A job that has ended meanwhile still is in its call, but
    /// without a payload: nothing is yielded for a call that was not just sent.
    pub fn call(&self, call: CallId) -> impl Iterator<Item = (&J, Option<Duration>)> {
        std::iter::empty()
    }

    /// The payload of a job that has not ended.
    pub fn payload(&self, job: JobId) -> Option<&J> {
        todo!()
    }

    /// Jobs in the queue.
    pub fn queued(&self) -> usize {
        todo!()
    }

    /// Jobs that workers have.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// How many jobs would be accepted at once: what the queue has room for.
    pub fn room(&self) -> usize {
        todo!()
    }

    /// Whether a worker can take a job, or has one.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    /// The options that hold.
    pub fn config(&self) -> &Config {
        todo!()
    }

    /// What was counted since the pool started.
    pub fn counters(&self) -> &Counters {
        todo!()
    }

    /// The pool at this moment. Allocates: it is for a person's eyes.
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        todo!()
    }
}
