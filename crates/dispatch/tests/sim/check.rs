//! What always holds, seen from outside.

use std::collections::{BTreeMap, BTreeSet};

use remuda_dispatch::*;

use crate::plan::Job;

/// What is known of a job from outside.
#[derive(Debug)]
pub struct Record {
    pub id: JobId,
    pub deadline: u64,
    /// Who has it, from when it is sent until that worker answered or is gone.
    pub held_by: Option<WorkerId>,
    /// On which workers it is running.
    pub running_on: Vec<WorkerId>,
    pub sent: u32,
    /// How often it was started.
    pub runs: u32,
    /// How many workers died by themselves while they had it.
    pub deaths: u32,
    pub outcome: Option<Outcome<u64>>,
}

impl Record {
    pub fn new(id: JobId, deadline: u64) -> Self {
        let (held_by, outcome) = (None, None);
        Self { id, deadline, held_by, running_on: vec![], sent: 0, runs: 0, deaths: 0, outcome }
    }

    fn waits(&self) -> bool {
        self.outcome.is_none() && self.held_by.is_none()
    }

    /// Waits, and was never sent: came in by the queue's front door.
    fn is_fresh(&self) -> bool {
        self.waits() && self.sent == 0
    }
}

pub struct Checker {
    jobs: BTreeMap<usize, Record>,
    waiting: usize,
    fresh: usize,
    held: usize,
    /// Of the jobs that have not ended.
    deadlines: BTreeSet<(u64, usize)>,
    delivery: Delivery,
    poison_after: u32,
    max_queue_size: usize,
}

impl Checker {
    pub fn new(config: &Config) -> Self {
        Self {
            jobs: BTreeMap::new(),
            waiting: 0,
            fresh: 0,
            held: 0,
            deadlines: BTreeSet::new(),
            delivery: config.delivery,
            poison_after: config.poison_after,
            max_queue_size: config.max_queue_size,
        }
    }

    pub fn accepted(&mut self, number: usize, id: JobId, deadline: u64) {
        self.jobs.insert(number, Record::new(id, deadline));
        self.deadlines.insert((deadline, number));
        self.count(number, 1);
    }

    pub fn id(&self, number: usize) -> Option<JobId> {
        self.jobs.get(&number).map(|job| job.id)
    }

    pub fn held_by(&self, worker: WorkerId) -> Vec<usize> {
        let held = |(_, job): &(&usize, &Record)| job.held_by == Some(worker);
        self.jobs.iter().filter(held).map(|(number, _)| *number).collect()
    }

    fn record(&mut self, number: usize) -> &mut Record {
        self.jobs.get_mut(&number).unwrap_or_else(|| panic!("job {number} was not accepted"))
    }

    /// Counts a job in (1) or out (-1) as what it is.
    fn count(&mut self, number: usize, sign: isize) {
        let job = &self.jobs[&number];
        let (waits, fresh, held) = (job.waits(), job.is_fresh(), job.held_by.is_some());
        for (count, is) in
            [(&mut self.waiting, waits), (&mut self.fresh, fresh), (&mut self.held, held)]
        {
            *count = count.checked_add_signed(if is { sign } else { 0 }).unwrap();
        }
    }

    pub fn sent(&mut self, now: u64, number: usize, worker: WorkerId, batch: usize) {
        let delivery = self.delivery;
        self.count(number, -1);
        let job = self.record(number);
        assert_eq!(job.outcome, None, "job {number} was sent after it had ended");
        assert_eq!(job.held_by, None, "job {number} was sent to two workers");
        assert!(job.deadline > now, "job {number} was sent after its time was over");
        job.held_by = Some(worker);
        job.sent += 1;
        self.count(number, 1);
        if delivery == Delivery::AtMostOnce {
            assert_eq!(batch, 1, "a batch under at most once");
        }
    }

    pub fn started(&mut self, number: usize, worker: WorkerId) {
        let delivery = self.delivery;
        let job = self.record(number);
        assert!(job.running_on.is_empty(), "job {number} runs on two workers");
        job.running_on.push(worker);
        job.runs += 1;
        match delivery {
            Delivery::AtMostOnce => assert_eq!(job.runs, 1, "job {number} ran again"),
            Delivery::AtLeastOnce { tries: 0, .. } => {}
            Delivery::AtLeastOnce { tries, .. } => {
                assert!(job.runs <= tries, "job {number} ran {} times of {tries}", job.runs);
            }
        }
    }

    pub fn stopped_running(&mut self, number: usize) {
        self.record(number).running_on.clear();
    }

    /// The pool was told that a worker no longer has this job.
    pub fn let_go(&mut self, number: usize) {
        self.count(number, -1);
        self.record(number).held_by = None;
        self.count(number, 1);
    }

    /// A worker died by itself while it had this job.
    pub fn died_under(&mut self, number: usize) {
        self.record(number).deaths += 1;
    }

    pub fn finished(&mut self, id: JobId, payload: &Job, outcome: &Outcome<u64>, facts: &Facts) {
        let (number, poison_after) = (payload.number, self.poison_after);
        self.count(number, -1);
        let job = self.record(number);
        assert_eq!(job.id, id, "job {number} ended under another's name");
        assert!(job.outcome.is_none(), "job {number} ended twice: {:?}, {outcome:?}", job.outcome);
        match outcome {
            Outcome::Done(answer) => assert_eq!(*answer, number as u64, "another job's answer"),
            Outcome::Failed { code: Code::Poisoned, .. } => {
                assert!(job.deaths >= poison_after, "job {number} after {} deaths", job.deaths);
            }
            Outcome::Failed { .. } => {}
        }
        assert!(facts.tries <= job.sent, "job {number} was tried more often than sent");
        job.outcome = Some(outcome.clone());
        let deadline = job.deadline;
        self.deadlines.remove(&(deadline, number));
        self.count(number, 1);
    }

    /// After each step, once the pool has nothing more to do. `capacities` are those of workers
    /// that aren't ordered.
    pub fn settled(
        &self,
        now: u64,
        pool: &Dispatch<Job, u64>,
        workers: usize,
        capacities: &BTreeMap<WorkerId, u32>,
    ) {
        let waiting = self.waiting;
        assert_eq!(pool.queued(), waiting, "the queue is not what waits");
        let fresh = self.fresh;
        assert!(fresh <= self.max_queue_size + workers, "{fresh} jobs in the queue");
        assert_eq!(pool.in_flight(), self.held, "what workers have is not what they were sent");
        if let Some((deadline, number)) = self.deadlines.first() {
            assert!(*deadline > now, "job {number} still lives at {now}, after {deadline}");
        }
        let snapshot = pool.snapshot(std::time::Duration::from_nanos(now));
        let mut serving = 0;
        for view in &snapshot.workers {
            let idle = view.state == WorkerState::Idle && waiting > 0;
            assert!(!idle, "{view:?} is idle, and {waiting} jobs wait");
            // At least once, a job that may have killed its worker keeps others away for a while.
            let capacity = capacities.get(&view.worker).copied().unwrap_or(0);
            let room = view.state == WorkerState::Busy && view.in_flight < capacity;
            let isolates = self.delivery != Delivery::AtMostOnce;
            assert!(!room || waiting == 0 || isolates, "{view:?} has room, and {waiting} wait");
            let serves =
                matches!(view.state, WorkerState::Starting | WorkerState::Idle | WorkerState::Busy);
            serving += usize::from(serves && view.slot.is_some());
        }
        let most = pool.config().num_workers as usize + 1;
        // While it drains, a pool of another size stays as it is.
        let fits = serving <= most || snapshot.phase != Phase::Running;
        assert!(fits, "{serving} workers: more than one is being replaced");
    }

    /// At the end of the history.
    pub fn all_ended(&self) {
        for (number, job) in &self.jobs {
            let outcome = job.outcome.as_ref();
            let outcome = outcome.unwrap_or_else(|| panic!("job {number} never ended: {job:?}"));
            if let Outcome::Failed { may_have_run: false, .. } = outcome {
                assert_eq!(job.runs, 0, "job {number} ran, against its word: {outcome:?}");
            }
            if let Outcome::Failed { may_have_run: true, cause: Cause::Pool(_), code } = outcome {
                assert!(code.may_have_run(), "who called job {number} is told by the code alone");
            }
            if let Outcome::Done(_) = outcome {
                assert!(job.runs > 0, "job {number} has a result and never ran");
            }
        }
    }
}
