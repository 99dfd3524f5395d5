//! How long jobs waited and ran, as histograms.

use std::time::Duration;

use serde_json::{Value, json};

/// The bounds of the buckets that are shown to Prometheus, in seconds.
pub const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];

/// Each power of two is cut into half as many steps: a time is off by less than a percent.
const STEPS: usize = 128;
/// A time of this and more microseconds, a day and a half, is not told apart from longer ones.
const LONGEST_US: u64 = 1 << 37;
const PLACES: usize = place(LONGEST_US) + 1;

/// Waiting and running times of the jobs that have run.
#[derive(Debug)]
pub(crate) struct Timings {
    pub(crate) wait: Times,
    pub(crate) run: Times,
}

/// One histogram, in microseconds. It is written for each job, and read when somebody asks.
#[derive(Debug)]
pub(crate) struct Times {
    counts: Vec<u64>,
    sum_ns: u128,
    max_us: u64,
}

impl Timings {
    pub(crate) fn new() -> Self {
        Self { wait: Times::new(), run: Times::new() }
    }
}

impl Times {
    fn new() -> Self {
        Self { counts: vec![0; PLACES], sum_ns: 0, max_us: 0 }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let ns = time.as_nanos();
        self.sum_ns += ns;
        let us = (ns as u64 / 1000).clamp(1, LONGEST_US);
        self.max_us = self.max_us.max(us);
        self.counts[place(us)] += 1;
    }

    /// Median, 99th percentile and largest, in microseconds, and how many there were.
    pub(crate) fn summary(&self) -> Value {
        let up_to = |us| self.counts[..=place(us)].iter().sum();
        let buckets: Vec<u64> = BUCKETS.iter().map(|bound| up_to((bound * 1e6) as u64)).collect();
        json!({
            "count": self.counts.iter().sum::<u64>(),
            "sum_us": (self.sum_ns / 1000) as u64,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "max": self.max_us,
            "buckets": buckets,
        })
    }

    /// The time that this part of the jobs didn't exceed, in microseconds; 0 if there were none.
    fn quantile(&self, part: f64) -> u64 {
        let count: u64 = self.counts.iter().sum();
        let wanted = (count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0, |place| longest(place).min(self.max_us))
    }
}

/// Where a time is counted: the small ones each by itself, then in steps that double.
const fn place(us: u64) -> usize {
    let bits = (u64::BITS - us.leading_zeros()).saturating_sub(STEPS.ilog2());
    bits as usize * (STEPS / 2) + (us >> bits) as usize
}

/// The longest time that is counted there.
const fn longest(at: usize) -> u64 {
    if at < STEPS {
        return at as u64;
    }
    let bits = at / (STEPS / 2) - 1;
    let step = (at - bits * (STEPS / 2)) as u64;
    ((step + 1) << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_times_that_differ_by_a_percent() {
        let mut before = 0;
        for at in 1..PLACES {
            let longest = longest(at);
            assert_eq!(place(longest), at);
            assert_eq!(place(before + 1), at, "no time is between two places");
            assert!((longest - before - 1) * 64 <= longest, "{at}: {before} to {longest}");
            before = longest;
        }
        assert!(before >= LONGEST_US);
    }

    #[test]
    fn tells_what_was_recorded() {
        let mut times = Times::new();
        assert_eq!(times.summary()["p50"], 0);
        (1..=1000).for_each(|us| times.record(Duration::from_micros(us)));
        times.record(Duration::ZERO);
        let summary = times.summary();
        assert_eq!(summary["count"], 1001);
        assert_eq!(summary["sum_us"], 500_500);
        assert_eq!(summary["max"], 1000);
        let near = |name: &str, us: f64| {
            let told = summary[name].as_f64().unwrap_or_default();
            assert!((told / us - 1.0).abs() < 0.02, "{name}: {told}");
        };
        near("p50", 500.0);
        near("p99", 990.0);
        let bucket = |at: usize| summary["buckets"][at].as_f64().unwrap_or_default();
        assert!((bucket(0) / 101.0 - 1.0).abs() < 0.02, "up to 100 us");
        assert!((bucket(2) / 501.0 - 1.0).abs() < 0.02, "up to 500 us");
        assert_eq!(bucket(15), 1001.0);
    }

    #[test]
    fn the_longest_times_have_a_place() {
        let mut times = Times::new();
        times.record(Duration::MAX);
        assert_eq!(times.summary()["p99"], LONGEST_US);
    }
}
