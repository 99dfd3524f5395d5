//! Ten times more comes in than the workers can do: what is served is served in time, what is not
//! is told so early, and afterwards all is as before.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use remuda_backoff::Rng;
use remuda_dispatch::*;

const MS: u64 = 1_000_000;
const SERVICE: u64 = 5 * MS;
const BUDGET: u64 = 50 * MS;
const WORKERS: u32 = 2;

#[derive(Debug)]
struct Job;

impl Payload for Job {
    fn size(&self) -> usize {
        60
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}

#[derive(Debug, Default)]
struct Tally {
    served: u64,
    late: u64,
    full: u64,
    /// How long the refused ones waited for it, in nanoseconds.
    refusals: Vec<u64>,
    /// How long the served ones took.
    latencies: Vec<u64>,
    queue_max: usize,
}

impl Tally {
    fn p99(samples: &mut [u64]) -> u64 {
        samples.sort_unstable();
        samples[samples.len() * 99 / 100]
    }
}

struct Station {
    pool: Dispatch<Job, ()>,
    now: u64,
    ends: BinaryHeap<Reverse<(u64, WorkerId, CallId)>>,
    rng: Rng,
}

impl Station {
    fn new(overload: Option<Overload>, seed: u64) -> Self {
        let config =
            Config { num_workers: WORKERS, max_queue_size: 1000, overload, ..Config::default() };
        let mut pool = Dispatch::new(config, seed).unwrap();
        while let Some(action) = pool.poll_action() {
            if let Action::Spawn { worker, .. } = action {
                pool.ready(Duration::ZERO, worker, Offer::default());
            }
        }
        Self { pool, now: 0, ends: BinaryHeap::new(), rng: Rng::new(seed) }
    }

    /// For `length`, jobs come in at `rate` a second, independent of each other.
    fn run(&mut self, length: u64, rate: u64, budget: Option<u64>) -> Tally {
        let mut tally = Tally::default();
        let until = self.now + length;
        let mut next = self.now;
        while self.now < until {
            let tick = self.pool.next_tick().map_or(u64::MAX, |at| at.as_nanos() as u64);
            let end = self.ends.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            self.now = self.now.max(next.min(tick).min(end));
            let now = Duration::from_nanos(self.now);
            while let Some(&Reverse((at, worker, call))) = self.ends.peek() {
                if at > self.now {
                    break;
                }
                self.ends.pop();
                self.pool.replied(now, worker, call, [Reply::Done(())]).unwrap();
            }
            if next <= self.now {
                let deadline = budget.map(|budget| Duration::from_nanos(self.now + budget));
                let options = JobOptions { deadline, ..JobOptions::default() };
                tally.full += u64::from(self.pool.submit(now, Job, options).is_err());
                next += self.rng.between(0, 2 * 1_000_000_000 / rate);
            }
            self.pool.tick(now);
            self.actions(&mut tally);
            tally.queue_max = tally.queue_max.max(self.pool.queued());
        }
        tally
    }

    fn actions(&mut self, tally: &mut Tally) {
        while let Some(action) = self.pool.poll_action() {
            match action {
                Action::Send { worker, call } => {
                    self.ends.push(Reverse((self.now + SERVICE, worker, call)));
                }
                Action::Finish { outcome, facts, .. } => {
                    let took = (facts.waited() + facts.ran()).as_nanos() as u64;
                    match outcome {
                        Outcome::Done(()) => {
                            tally.served += 1;
                            tally.latencies.push(took);
                        }
                        Outcome::Failed { code: Code::QueueTimeout, .. } => {
                            tally.refusals.push(took);
                        }
                        Outcome::Failed { code: Code::Timeout, .. } => tally.late += 1,
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

const CAPACITY: u64 = WORKERS as u64 * 1_000_000_000 / SERVICE;

#[test]
fn ten_times_too_much_is_served_as_far_as_it_goes() {
    for seed in 0..5 {
        let mut station = Station::new(Some(Overload::default()), seed);
        let mut tally = station.run(30_000 * MS, 10 * CAPACITY, Some(BUDGET));
        let servable = CAPACITY * 30;
        assert!(tally.served * 100 >= servable * 90, "{} of {servable} in time", tally.served);
        assert!(tally.late * 100 <= servable, "{} began and were not done in time", tally.late);
        assert_eq!(tally.full, 0, "the queue was full though its wait is limited");
        assert!(tally.queue_max < 300, "{} jobs in the queue", tally.queue_max);
        let refused = Tally::p99(&mut tally.refusals);
        assert!(refused <= 10 * MS, "refused after {} us", refused / 1000);

        // Then half of what it can do: within a second, all is served at once.
        station.run(1000 * MS, CAPACITY / 2, Some(BUDGET));
        let mut after = station.run(5000 * MS, CAPACITY / 2, Some(BUDGET));
        assert_eq!(after.refusals.len(), 0);
        assert_eq!(after.late, 0);
        let p99 = Tally::p99(&mut after.latencies);
        assert!(p99 < 4 * SERVICE, "p99 is {} us", p99 / 1000);
    }
}

/// What the option is for: without it most of the work is wasted on jobs that are too old.
#[test]
fn without_the_option_the_oldest_are_served_too_late() {
    let mut station = Station::new(None, 1);
    let tally = station.run(10_000 * MS, 10 * CAPACITY, Some(BUDGET));
    assert!(tally.late > tally.served, "{} late, {} served", tally.late, tally.served);
}

/// A queue that is never empty is no overload while everybody is served in time.
#[test]
fn callers_with_patience_are_never_refused() {
    for budget in [None, Some(10_000 * MS)] {
        let mut station = Station::new(Some(Overload::default()), 3);
        let mut tally = station.run(5000 * MS, CAPACITY * 98 / 100, budget);
        // 64 callers at once, again and again: each wave waits for up to 160 ms.
        for _ in 0..20 {
            let now = Duration::from_nanos(station.now);
            for _ in 0..64 {
                let deadline = budget.map(|budget| Duration::from_nanos(station.now + budget));
                let options = JobOptions { deadline, ..JobOptions::default() };
                assert!(station.pool.submit(now, Job, options).is_ok());
            }
            let wave = station.run(155 * MS, 10, budget);
            tally.refusals.extend(wave.refusals);
            tally.late += wave.late;
        }
        assert_eq!(tally.refusals.len() as u64 + tally.late + tally.full, 0);
    }
}
