//! Jobs of the program that the pool is part of: handed in and taken back on the pool's thread.

use std::ops::Range;
use std::task::{Poll, Waker};

use bytes::Bytes;
use remuda_dispatch::{Code, Facts};

use crate::job::Form;

/// Jobs that have ended, in the order in which they did, and the bytes of their results.
///
/// It is filled and emptied again and again: nothing is allocated once it has grown.
#[derive(Debug, Default)]
pub struct Finished {
    /// The jobs.
    pub jobs: Vec<FinishedJob>,
    /// What their [`End::Done`] ranges are of.
    pub bytes: Vec<u8>,
}

impl Finished {
    /// Empties it, for the next use.
    pub fn clear(&mut self) {
        self.jobs.clear();
        self.bytes.clear();
    }
}

/// A job that has ended.
#[derive(Debug)]
pub struct FinishedJob {
    /// The number that it was handed in with.
    pub number: u64,
    /// Its body, as it was handed in.
    pub body: Bytes,
    /// How it ended.
    pub end: End,
    /// Where and when it ran.
    pub facts: Facts,
}

/// How a job ended.
#[derive(Debug)]
pub enum End {
    /// With this result.
    Done {
        /// Where it stands in [`Finished::bytes`].
        at: Range<usize>,
        /// Whether it is JSON.
        form: Form,
    },
    /// With a failure.
    Failed(Box<Failed>),
}

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The protocol's code.
    pub code: Code,
    /// What its worker or the pool says.
    pub message: String,
    /// Where the handler failed, if its language says so.
    pub traceback: Option<String>,
    /// The signal that ended its worker, if one did.
    pub signal: Option<i32>,
    /// Whether the job may have run, in part or wholly.
    pub may_have_run: bool,
    /// It ended because the pool was told to end.
    pub stopped: bool,
}

/// The jobs that have ended and were not taken yet, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Local {
    finished: Finished,
    waiting: Option<Waker>,
}

impl Local {
    /// Adds a job that has ended; a result is copied from `result`.
    pub(crate) fn push(&mut self, number: u64, body: Bytes, end: Ended<'_>, facts: Facts) {
        let end = match end {
            Ended::Done(result, form) => {
                let start = self.finished.bytes.len();
                self.finished.bytes.extend_from_slice(result);
                End::Done { at: start..self.finished.bytes.len(), form }
            }
            Ended::Failed(failed) => End::Failed(failed),
        };
        self.finished.jobs.push(FinishedJob { number, body, end, facts });
    }

    /// Takes what has ended, or waits.
    pub(crate) fn poll(&mut self, waker: &Waker, into: &mut Finished) -> Poll<()> {
        if self.finished.jobs.is_empty() {
            if !self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
                self.waiting = Some(waker.clone());
            }
            return Poll::Pending;
        }
        into.clear();
        std::mem::swap(into, &mut self.finished);
        Poll::Ready(())
    }

    /// Wakes who waits, if there is something for it.
    pub(crate) fn wake_if_any(&mut self) {
        if !self.finished.jobs.is_empty() {
            self.wake();
        }
    }

    /// Wakes who waits.
    pub(crate) fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

/// How a job ended, before its result is copied.
pub(crate) enum Ended<'a> {
    /// With this result.
    Done(&'a [u8], Form),
    /// With a failure.
    Failed(Box<Failed>),
}
