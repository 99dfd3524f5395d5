//! What is to be measured, and what was.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) pace: Pace,
    pub(super) end: End,
    pub(super) warmup: Duration,
    pub(super) body: Vec<u8>,
    pub(super) timeout_ms: Option<u64>,
    /// How long a pool may leave all calls unanswered, beyond the time that each of them may take;
    /// where it is measured for a time, once that is over.
    pub(super) patience: Duration,
    /// In the open loop, calls that are due beyond so many in flight are sent later.
    pub(super) in_flight_max: u32,
}

/// When calls are due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// When another has been answered.
    Closed { in_flight: u32 },
    /// So many a second.
    Open { rate: f64 },
}

/// When the measurement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Calls(u64),
    After(Duration),
}

/// What was measured.
pub(super) struct Measured {
    pub(super) plan: Plan,
    pub(super) connections: usize,
    /// What did the input and output.
    pub(super) backend: &'static str,
    /// From the end of the warm-up to the last answer.
    pub(super) elapsed: Duration,
    /// Times of the calls that had a result, in nanoseconds.
    pub(super) done: Histogram<u64>,
    /// Times of those that were answered with a failure.
    pub(super) refused: Histogram<u64>,
    /// How many calls had no result, by code.
    pub(super) failed: BTreeMap<String, u64>,
    /// The message of the first of them that was answered.
    pub(super) first_failure: Option<String>,
    /// Why not all that was planned was done.
    pub(super) cut: Option<String>,
}

impl Measured {
    /// How many calls had no result.
    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}
