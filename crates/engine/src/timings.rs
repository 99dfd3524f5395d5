//! How long jobs waited and ran, as histograms.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest time that is told apart from longer ones, in microseconds: a day.
const HIGHEST_US: u64 = 86_400_000_000;
/// The bounds of the buckets that are shown to Prometheus, in seconds.
pub const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];

/// The times of so many jobs are put into the histograms at once: those are not in the processor's
/// caches any more when a single job has ended, and its client would wait for them.
const RECENT: usize = 16;

/// Waiting and running times of the jobs that have run.
#[derive(Debug)]
pub(crate) struct Timings {
    wait: Times,
    run: Times,
    /// Of jobs that are not in the histograms yet.
    recent: Vec<(Duration, Duration)>,
}

/// One histogram, in microseconds.
#[derive(Debug)]
struct Times {
    histogram: Option<Histogram<u64>>,
    sum: Duration,
}

impl Timings {
    pub(crate) fn new() -> Self {
        Self { wait: Times::new(), run: Times::new(), recent: Vec::with_capacity(RECENT) }
    }

    /// Takes note of a job that has ended.
    pub(crate) fn record(&mut self, waited: Duration, ran: Duration) {
        self.recent.push((waited, ran));
        if self.recent.len() >= RECENT {
            self.settle();
        }
    }

    #[cold] // Kept out of the way of each job.
    fn settle(&mut self) {
        self.wait.record(self.recent.iter().map(|(waited, _)| *waited));
        self.run.record(self.recent.iter().map(|(_, ran)| *ran));
        self.recent.clear();
    }

    /// How long jobs waited, and how long they ran.
    pub(crate) fn summaries(&mut self) -> [Value; 2] {
        self.settle();
        [self.wait.summary(), self.run.summary()]
    }
}

impl Times {
    fn new() -> Self {
        // These bounds are ones that a histogram can have.
        Self { histogram: Histogram::new_with_bounds(1, HIGHEST_US, 2).ok(), sum: Duration::ZERO }
    }

    /// Jobs that ended in one turn mostly have the same times, and are put in together.
    fn record(&mut self, times: impl Iterator<Item = Duration>) {
        let (mut same, mut count) = (Duration::ZERO, 0);
        for time in times {
            if time != same {
                self.record_same(same, count);
                (same, count) = (time, 0);
            }
            count += 1;
        }
        self.record_same(same, count);
    }

    fn record_same(&mut self, time: Duration, count: u32) {
        if count > 0
            && let Some(histogram) = &mut self.histogram
        {
            self.sum += time * count;
            histogram.saturating_record_n((time.as_micros() as u64).max(1), u64::from(count));
        }
    }

    /// Median, 99th percentile and largest, in microseconds, and how many there were.
    fn summary(&self) -> Value {
        let Some(histogram) = &self.histogram else { return Value::Null };
        let buckets: Vec<u64> =
            BUCKETS.iter().map(|bound| histogram.count_between(0, (bound * 1e6) as u64)).collect();
        json!({
            "count": histogram.len(),
            "sum_us": self.sum.as_micros() as u64,
            "p50": histogram.value_at_quantile(0.5),
            "p99": histogram.value_at_quantile(0.99),
            "max": histogram.max(),
            "buckets": buckets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_recorded() {
        let mut timings = Timings::new();
        let [wait, run] = timings.summaries();
        assert_eq!((&wait["p50"], &run["p50"]), (&json!(0), &json!(0)));
        let second = Duration::from_secs(1);
        (1..=1000).for_each(|us| timings.record(Duration::from_micros(us), second));
        timings.record(Duration::ZERO, second);
        let [summary, run] = timings.summaries();
        assert_eq!((&run["count"], &run["sum_us"]), (&json!(1001), &json!(1_001_000_000)));
        assert_eq!(summary["count"], 1001);
        assert_eq!(summary["sum_us"], 500_500);
        let near = |name: &str, us: f64| {
            let told = summary[name].as_f64().unwrap_or_default();
            assert!((told / us - 1.0).abs() < 0.02, "{name}: {told}");
        };
        near("p50", 500.0);
        near("p99", 990.0);
        near("max", 1000.0);
        let bucket = |at: usize| summary["buckets"][at].as_f64().unwrap_or_default();
        assert!((bucket(0) / 101.0 - 1.0).abs() < 0.02, "up to 100 us");
        assert!((bucket(2) / 501.0 - 1.0).abs() < 0.02, "up to 500 us");
        assert_eq!(bucket(15), 1001.0);
    }
}
