//! A pool of workers as a deterministic state machine: events in, actions out.
//!
//! The crate knows nothing of sockets, processes or clocks. An engine tells it what happened
//! ([`submit`](Dispatch::submit), [`ready`](Dispatch::ready), [`replied`](Dispatch::replied),
//! [`exited`](Dispatch::exited), [`cancel`](Dispatch::cancel), [`tick`](Dispatch::tick)), each with
//! the time at which it did, and asks what is to be done: [`poll_action`](Dispatch::poll_action).
//! The shape is quinn-proto's. The same events, times and seed give the same actions, so that a
//! simulation plays thousands of histories in a second, and one that fails is a seed number.
//!
//! ```
//! use std::time::Duration;
//! use remuda_dispatch::{Action, Config, Dispatch, JobOptions, Offer, Payload, Reply};
//!
//! struct Job(u32);
//!
//! impl Payload for Job {
//!     fn size(&self) -> usize {
//!         4
//!     }
//!     fn fingerprint(&self) -> u64 {
//!         self.0.into()
//!     }
//! }
//!
//! let mut pool: Dispatch<Job, u32> = Dispatch::new(Config::default(), 42)?;
//! let at = Duration::from_millis;
//!
//! // The pool wants a worker, and gets one after 30 ms.
//! let Some(Action::Spawn { worker, .. }) = pool.poll_action() else { panic!() };
//! pool.ready(at(30), worker, Offer::default());
//!
//! // A job comes in, and is to be sent to it.
//! let job = pool.submit(at(50), Job(7), JobOptions::default()).map_err(|refused| refused.reason)?;
//! let Some(Action::Send { worker, call }) = pool.poll_action() else { panic!() };
//! assert_eq!(pool.call(call).map(|(job, _)| job.0).collect::<Vec<_>>(), [7]);
//!
//! // The answer ends it.
//! pool.replied(at(52), worker, call, [Reply::Done(49)])?;
//! let Some(Action::Finish { job: ended, facts, .. }) = pool.poll_action() else { panic!() };
//! assert_eq!(ended, job);
//! assert_eq!(facts.ran(), at(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What always holds
//!
//! - Every job that was accepted ends in exactly one [`Action::Finish`].
//! - No job is with two workers at a time, and none runs again that [`Delivery`] forbids.
//! - The queue is bounded, and full is an answer, at once.
//! - No ready worker is idle while a job waits, once there is nothing left to poll.
//! - A job whose time is over is never sent.
//! - An attached peer is never killed, and a worker is told to cancel only if it declared that it
//!   can.
//! - A job's way allocates nothing once the pool is warm, and costs a few comparisons: events cost
//!   O(1), or O(log n) of the limits that are set.
//!
//! # Where things are
//!
//! `assign` hands out jobs, by what `service` knows of each worker; `answer` and `end` say what
//! becomes of them; `expire` watches their limits. `supervise` has workers from spawn to end,
//! `replace` exchanges them without a gap, `drain` ends the pool.
#![forbid(unsafe_code)]

mod action;
mod ahead;
mod answer;
mod assign;
mod call;
mod config;
mod deadline;
mod dispatch;
mod drain;
mod end;
mod expire;
mod id;
mod job;
mod overload;
mod poison;
mod queue;
mod replace;
mod service;
mod slab;
mod status;
mod submit;
mod supervise;
mod worker;

pub use action::{Action, Cause, Code, Facts, Fault, KillReason, Outcome, Reason, Reply};
pub use config::{
    BATCH_BODY_BYTES, BATCH_WORK, Config, ConfigError, Delivery, GIVE_UP_STARTS, HAND_AHEAD_JOBS,
    HAND_AHEAD_WORK, MEMORY_HEADROOM_PERCENT, MEMORY_SAMPLES, NUM_WORKERS_MAX, Overload,
    POISON_LIST_SIZE, QUEUE_SIZE_MAX, Restart, RetryOn, Supervisor,
};
pub use dispatch::{Dispatch, Drain, ResetRefused};
pub use id::{CallId, JobId, WorkerId};
pub use job::{JobOptions, Payload, Refused, RefusedReason};
pub use status::{Counters, Phase, Snapshot, WorkerView};
pub use worker::{Exit, Offer, RestartReason, WorkerState};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
