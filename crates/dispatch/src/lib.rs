//! A pool of workers as a deterministic state machine: no I/O, no clock.
#![forbid(unsafe_code)]

mod action;
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
