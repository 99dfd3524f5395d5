//! A pool of workers as a deterministic state machine: no I/O, no clock.
#![forbid(unsafe_code)]

mod action;
mod config;
mod dispatch;
mod id;
mod job;
mod status;
mod worker;

pub use action::{Action, Cause, Code, Facts, Fault, KillReason, Outcome, Reason, Reply};
pub use config::{
    BATCH_WORK, Config, ConfigError, Delivery, GIVE_UP_STARTS, HAND_AHEAD_JOBS, HAND_AHEAD_WORK,
    MEMORY_HEADROOM_PERCENT, MEMORY_SAMPLES, NUM_WORKERS_MAX, Overload, POISON_LIST_SIZE,
    QUEUE_SIZE_MAX, RetryOn, Supervisor,
};
pub use dispatch::{Dispatch, Drain, ResetRefused};
pub use id::{CallId, JobId, WorkerId};
pub use job::{JobOptions, Payload, Refused, RefusedReason};
pub use status::{Counters, Phase, Snapshot, WorkerView};
pub use worker::{Exit, Offer, RestartReason, WorkerState};
