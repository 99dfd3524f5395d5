//! A pool that is warm gives jobs their way without allocating.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// The counting allocator: all it does is count and pass on to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use remuda_dispatch::*;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Debug)]
struct Job(u64);

impl Payload for Job {
    fn size(&self) -> usize {
        60
    }

    fn fingerprint(&self) -> u64 {
        self.0
    }
}

/// A pool whose workers answer each call after `service` for each of its jobs.
struct Line {
    pool: Dispatch<Job, u64>,
    now: Duration,
    service: Duration,
    flying: Vec<(WorkerId, CallId, usize)>,
    done: u64,
    options: JobOptions,
}

impl Line {
    fn new(offer: Offer, delivery: Delivery, service: Duration) -> Self {
        let config = Config { num_workers: 2, delivery, ..Config::default() };
        let mut pool = Dispatch::new(config, 1).unwrap();
        let now = Duration::ZERO;
        while let Some(action) = pool.poll_action() {
            if let Action::Spawn { worker, .. } = action {
                pool.ready(now, worker, offer);
            }
        }
        let flying = Vec::with_capacity(1024);
        Self { pool, now, service, flying, done: 0, options: JobOptions::default() }
    }

    fn run(&mut self, jobs: u64) {
        let until = self.done + jobs;
        let mut next = self.done;
        while self.done < until {
            while next < until && self.pool.room() > 0 {
                let deadline = self.options.deadline.map(|budget| self.now + budget);
                let options = JobOptions { deadline, ..self.options };
                assert!(self.pool.submit(self.now, Job(next), options).is_ok());
                next += 1;
            }
            self.actions();
            let (worker, call, jobs) = self.flying.remove(0);
            self.now += self.service * jobs as u32;
            self.pool.tick(self.now);
            let answers = std::iter::repeat_n(Reply::Done(0), jobs);
            self.pool.replied(self.now, worker, call, answers).unwrap();
            self.actions();
        }
    }

    fn actions(&mut self) {
        while let Some(action) = self.pool.poll_action() {
            match action {
                Action::Send { worker, call } => {
                    let jobs = self.pool.call(call).count();
                    self.flying.push((worker, call, jobs));
                }
                Action::Finish { outcome, .. } => {
                    assert_eq!(outcome, Outcome::Done(0));
                    self.done += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn allocations_of(&mut self, jobs: u64) -> u64 {
        self.run(20_000);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        self.run(jobs);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    }
}

/// One test, since the count is the whole process's.
#[test]
fn a_hundred_thousand_jobs_allocate_nothing() {
    let single = Offer::default();
    let batching = Offer { batch: 1024, ..single };
    let us = Duration::from_micros(1);

    let mut singles = Line::new(single, Delivery::AtMostOnce, 10 * us);
    singles.options.deadline = Some(Duration::from_secs(1));
    singles.options.exec_timeout = Some(Duration::from_secs(1));
    assert_eq!(singles.allocations_of(100_000), 0, "one by one, with limits");

    let mut batches = Line::new(batching, Delivery::AT_LEAST_ONCE, us);
    assert_eq!(batches.allocations_of(100_000), 0, "in batches");
    let calls = batches.pool.counters().calls;
    assert!(calls < 2000, "{calls} calls for 120,000 jobs of a microsecond");
}
