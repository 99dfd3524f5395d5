//! A pool on a table: the test plays the engine, and time.
// Not every test file uses all of it, and its modules are private anyway.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use remuda_dispatch::*;

/// A job is a number; its body too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job(pub u64);

impl Payload for Job {
    fn size(&self) -> usize {
        if self.0 >= 1_000_000 { 100_000 } else { 60 }
    }

    fn fingerprint(&self) -> u64 {
        self.0
    }
}

/// An action, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Spawn(WorkerId, u32, u32),
    Send(WorkerId, CallId, Vec<u64>),
    Cancel(WorkerId, CallId),
    Stop(WorkerId),
    Kill(WorkerId, KillReason),
    Done(u64),
    Failed(u64, Code, bool),
    GiveUp(u32),
    ResetDone(u32),
    ResetFailed(u32, Option<WorkerId>, u32),
    Drained,
}

pub const US: Duration = Duration::from_micros(1);
pub const MS: Duration = Duration::from_millis(1);
pub const S: Duration = Duration::from_secs(1);

pub const SINGLE: Offer = Offer { capacity: 1, ordered: true, batch: 0, cancel: false };
pub const CANCELLING: Offer = Offer { cancel: true, ..SINGLE };
pub const BATCHING: Offer = Offer { batch: 1000, ..SINGLE };
pub const WIDE: Offer = Offer { capacity: 4, ordered: false, ..SINGLE };

pub struct Rig {
    pub pool: Dispatch<Job, u64>,
    pub now: Duration,
    /// The facts of the jobs that ended.
    pub facts: Vec<(u64, Facts)>,
}

pub fn config(num_workers: u32, delivery: Delivery) -> Config {
    Config { num_workers, delivery, max_jobs_jitter: 0, ..Config::default() }
}

pub fn retries(tries: u32) -> Delivery {
    Delivery::AtLeastOnce { tries, retry_on: RetryOn { lost: true, timeout: true, error: true } }
}

impl Rig {
    pub fn new(config: Config) -> Self {
        let pool = Dispatch::new(config, 7).unwrap();
        Self { pool, now: Duration::ZERO, facts: Vec::new() }
    }

    /// A pool whose workers are all ready.
    pub fn ready(config: Config, offer: Offer) -> (Self, Vec<WorkerId>) {
        let mut rig = Self::new(config);
        let workers = rig.start(offer);
        (rig, workers)
    }

    /// Makes the workers ready that are to be spawned.
    pub fn start(&mut self, offer: Offer) -> Vec<WorkerId> {
        let spawned = self.spawned();
        for &worker in &spawned {
            self.pool.ready(self.now, worker, offer);
        }
        spawned
    }

    /// The workers that are to be spawned; nothing else is to be done.
    pub fn spawned(&mut self) -> Vec<WorkerId> {
        let spawned = |act| match act {
            Act::Spawn(worker, ..) => worker,
            other => panic!("{other:?}"),
        };
        self.poll().into_iter().map(spawned).collect()
    }

    pub fn submit(&mut self, job: u64) -> JobId {
        self.submit_with(job, JobOptions::default()).expect("accepted")
    }

    pub fn submit_all(&mut self, jobs: impl IntoIterator<Item = u64>) {
        for job in jobs {
            self.submit(job);
        }
    }

    pub fn submit_with(&mut self, job: u64, options: JobOptions) -> Result<JobId, RefusedReason> {
        self.pool.submit(self.now, Job(job), options).map_err(|refused| refused.reason)
    }

    pub fn poll(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        while let Some(action) = self.pool.poll_action() {
            let act = self.short(action);
            acts.push(act);
        }
        acts
    }

    fn short(&mut self, action: Action<Job, u64>) -> Act {
        match action {
            Action::Spawn { worker, slot, generation } => Act::Spawn(worker, slot, generation),
            Action::Send { worker, call } => {
                let jobs = self.pool.call(call).map(|(job, _)| job.0).collect();
                Act::Send(worker, call, jobs)
            }
            Action::Cancel { worker, call } => Act::Cancel(worker, call),
            Action::Stop { worker } => Act::Stop(worker),
            Action::Kill { worker, reason } => Act::Kill(worker, reason),
            Action::Finish { payload, outcome, facts, .. } => {
                self.facts.push((payload.0, facts));
                match outcome {
                    Outcome::Done(_) => Act::Done(payload.0),
                    Outcome::Failed { code, may_have_run, .. } => {
                        Act::Failed(payload.0, code, may_have_run)
                    }
                }
            }
            Action::GiveUp { starts } => Act::GiveUp(starts),
            Action::ResetDone { generation } => Act::ResetDone(generation),
            Action::ResetFailed { generation, worker, replaced } => {
                Act::ResetFailed(generation, worker, replaced)
            }
            Action::Drained => Act::Drained,
        }
    }

    /// What is sent next, if nothing else is to be done: to whom, which call, which jobs.
    pub fn sent(&mut self) -> Vec<(WorkerId, CallId, Vec<u64>)> {
        let sent = |act| match act {
            Act::Send(worker, call, jobs) => (worker, call, jobs),
            other => panic!("{other:?}"),
        };
        self.poll().into_iter().map(sent).collect()
    }

    /// A single call that is to be sent.
    pub fn sent_one(&mut self) -> (WorkerId, CallId) {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        (sent[0].0, sent[0].1)
    }

    pub fn reply(&mut self, worker: WorkerId, call: CallId, jobs: usize) {
        let answers = std::iter::repeat_n(Reply::Done(0), jobs);
        self.pool.replied(self.now, worker, call, answers).unwrap();
    }

    pub fn fail(&mut self, worker: WorkerId, call: CallId, code: Code) {
        self.pool.replied(self.now, worker, call, [Reply::Failed { code, error: 0 }]).unwrap();
    }

    pub fn dies(&mut self, worker: WorkerId) {
        self.pool.exited(self.now, worker, Exit::Signal(9));
    }

    /// Time passes, tick by tick.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.pool.next_tick().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.pool.tick(self.now);
        }
        self.now = until;
        self.pool.tick(self.now);
    }

    /// Runs one job through, which takes `time`: then the worker's service time is known.
    pub fn warm_up(&mut self, time: Duration) {
        self.submit(999);
        let (worker, call) = self.sent_one();
        self.pass(time);
        self.reply(worker, call, 1);
        assert_eq!(self.poll(), [Act::Done(999)]);
    }

    pub fn state(&self, worker: WorkerId) -> Option<WorkerState> {
        let snapshot = self.pool.snapshot(self.now);
        snapshot.workers.iter().find(|view| view.worker == worker).map(|view| view.state)
    }

    pub fn restarts(&self, reason: RestartReason) -> u64 {
        self.pool.counters().restarts(reason)
    }
}
