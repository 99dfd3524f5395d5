//! What a history is about: decided by its seed before it begins.

use std::time::Duration;

use remuda_backoff::Rng;
use remuda_dispatch::*;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const S: u64 = 1_000_000_000;

/// What a job does to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Work,
    Fail,
    Kill,
    Hang,
}

/// A job: the engine's part of it.
#[derive(Clone, Debug)]
pub struct Job {
    pub number: usize,
    pub deed: Deed,
    pub takes: u64,
}

impl Payload for Job {
    fn size(&self) -> usize {
        100
    }

    fn fingerprint(&self) -> u64 {
        match self.deed {
            Deed::Kill => self.takes,
            _ => 1 << 32 | self.number as u64,
        }
    }
}

/// Chances are in parts of 1,000.
#[derive(Debug)]
pub struct Plan {
    pub config: Config,
    pub offers: Vec<Offer>,
    pub attached: Vec<Offer>,
    pub jobs: usize,
    /// The mean time between two submissions.
    pub pace: u64,
    pub takes_max: u64,
    pub fails: u64,
    pub kills: u64,
    pub hangs: u64,
    pub cancels: u64,
    pub deadlines: u64,
    pub exec_timeouts: u64,
    /// Of a worker: that it dies at a random time.
    pub crashes: u64,
    pub start_fails: u64,
    pub start_takes: u64,
    /// Of an answer: that it breaks the protocol.
    pub faults: u64,
    pub deaf_to_cancel: u64,
    pub deaf_to_stop: u64,
    pub resets: u64,
    pub resizes: u64,
    pub link_losses: u64,
    /// Of an attached peer, when a call arrives: that it is shutting down.
    pub peer_drains: u64,
    pub stop_now: bool,
}

pub fn chance(rng: &mut Rng, of_thousand: u64) -> bool {
    rng.below(1000) < of_thousand
}

/// Log-uniform: each order of magnitude is as likely as any other.
pub fn spread(rng: &mut Rng, min: u64, max: u64) -> u64 {
    let (low, high) = (min.ilog2(), max.max(min).ilog2());
    let bits = rng.between(u64::from(low), u64::from(high)) as u32;
    ((1 << bits) + rng.below(1 << bits)).clamp(min, max)
}

fn some<T>(rng: &mut Rng, of_thousand: u64, value: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    chance(rng, of_thousand).then(|| value(rng))
}

fn rate(rng: &mut Rng, most: u64) -> u64 {
    if chance(rng, 500) { 0 } else { rng.between(1, most) }
}

fn offer(rng: &mut Rng) -> Offer {
    let ordered = chance(rng, 600);
    Offer {
        ordered,
        capacity: if ordered { 1 } else { rng.between(1, 6) as u32 },
        batch: if chance(rng, 500) { spread(rng, 2, 512) as u32 } else { 0 },
        cancel: chance(rng, 400),
    }
}

fn delivery(rng: &mut Rng) -> Delivery {
    match rng.below(3) {
        0 => Delivery::AtMostOnce,
        1 => Delivery::AT_LEAST_ONCE,
        _ => Delivery::AtLeastOnce {
            tries: rng.between(1, 5) as u32,
            retry_on: RetryOn {
                lost: chance(rng, 700),
                timeout: chance(rng, 500),
                error: chance(rng, 300),
            },
        },
    }
}

fn config(rng: &mut Rng) -> Config {
    let time = |rng: &mut Rng, min: u64, max: u64| Duration::from_nanos(spread(rng, min, max));
    Config {
        num_workers: rng.between(1, 5) as u32,
        max_queue_size: spread(rng, 1, 300) as usize,
        delivery: delivery(rng),
        poison_after: rng.between(1, 4) as u32,
        quarantine: some(rng, 400, |rng| time(rng, 10 * MS, 10 * S)),
        max_jobs: some(rng, 300, |rng| spread(rng, 1, 100)),
        max_jobs_jitter: rng.below(101) as u32,
        allocate_timeout: time(rng, 50 * MS, S),
        destroy_timeout: time(rng, 10 * MS, S),
        reset_timeout: time(rng, 50 * MS, S),
        cancel_grace: time(rng, MS, 100 * MS),
        supervisor: Supervisor {
            ttl: some(rng, 200, |rng| time(rng, 20 * MS, S)),
            idle_ttl: some(rng, 200, |rng| time(rng, 10 * MS, S)),
            exec_ttl: some(rng, 400, |rng| time(rng, 10 * MS, S)),
            max_worker_memory: some(rng, 300, |_| 1000),
        },
        restart: Restart {
            base: time(rng, MS, 20 * MS),
            cap: time(rng, 20 * MS, 200 * MS),
            busy_cap: time(rng, MS, 100 * MS),
        },
        give_up: chance(rng, 200),
        overload: some(rng, 500, |_| Overload::default()),
    }
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Self {
        let config = config(rng);
        let alike = chance(rng, 700).then(|| offer(rng));
        let offers = (0..8).map(|_| alike.unwrap_or_else(|| offer(rng))).collect();
        let attached = if chance(rng, 250) { rng.between(1, 2) } else { 0 };
        Plan {
            config,
            offers,
            attached: (0..attached).map(|_| offer(rng)).collect(),
            jobs: spread(rng, 10, 400) as usize,
            pace: if chance(rng, 300) { 1 } else { spread(rng, US, 5 * MS) },
            takes_max: spread(rng, US, 50 * MS),
            fails: rate(rng, 300),
            kills: rate(rng, 100),
            hangs: rate(rng, 30),
            cancels: rate(rng, 200),
            deadlines: rate(rng, 1000),
            exec_timeouts: rate(rng, 1000),
            crashes: rate(rng, 500),
            start_fails: if chance(rng, 30) { 1000 } else { rate(rng, 400) },
            start_takes: spread(rng, 10 * US, 40 * MS),
            faults: rate(rng, 20),
            deaf_to_cancel: rate(rng, 1000),
            deaf_to_stop: rate(rng, 300),
            resets: rate(rng, 20),
            resizes: rate(rng, 10),
            link_losses: rate(rng, 1000),
            peer_drains: rate(rng, 100),
            stop_now: chance(rng, 100),
        }
    }

    pub fn job(&self, rng: &mut Rng, number: usize) -> (Job, JobOptions, u64) {
        let takes = spread(rng, US.min(self.takes_max), self.takes_max);
        let deed = match rng.below(1000) {
            at if at < self.kills => Deed::Kill,
            at if at < self.kills + self.hangs => Deed::Hang,
            at if at < self.kills + self.hangs + self.fails => Deed::Fail,
            _ => Deed::Work,
        };
        // Few killers, each often: so that the poison list has something to recognize.
        let takes = if deed == Deed::Kill { 1 + rng.below(4) } else { takes };
        let budget = some(rng, self.deadlines, |rng| spread(rng, 10 * US, 500 * MS));
        let exec = some(rng, self.exec_timeouts, |rng| spread(rng, 100 * US, 300 * MS));
        let options = JobOptions {
            deadline: None,
            exec_timeout: exec.map(Duration::from_nanos),
            alone: chance(rng, 50),
            // It makes no difference to a pool that has workers.
            relayed: false,
        };
        (Job { number, deed, takes }, options, budget.unwrap_or(0))
    }
}
