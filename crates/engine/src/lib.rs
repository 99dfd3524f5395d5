//! Drives the dispatch of jobs on the runtime: listeners, links, keeper, supervision.
#![forbid(unsafe_code)]
// They panic where stdout or stderr can't be written, and a pool outlives its log.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod blocking;
mod config;
mod core;
mod error;
mod front;
mod history;
mod job;
pub mod keeper;
mod link;
mod local;
mod logs;
mod pool;
mod remote;
mod rings;
mod start;
mod timings;
mod usage;
mod wire;

pub use blocking::{BLOCKING_IDLE, BLOCKING_QUEUE, BLOCKING_THREADS, net_config};
pub use config::{
    Delivery, KILL_GRACE, LogSink, Overload, PoolConfig, RetryOn, Supervisor, ThreadHandler,
    WorkerKind,
};
pub use error::PoolError;
pub use front::bind::{runtime_directory, runtime_directory_path};
pub use front::listener::Listen;
pub use history::{INCIDENTS_LIMIT, Incident, LostJob};
pub use job::Form;
pub use link::thread::thread_slot;
pub use link::tls::{client_config as tls_client_config, server_name as tls_server_name};
pub use local::{End, Failed, Finished, FinishedJob};
pub use pool::{NewJob, Pool};
pub use remote::{Health, REMOTE_REQUESTS_LIMIT, Remote, RemoteError, RemoteReply};
pub use remuda_dispatch::{
    Code, Drain, Exit, Facts, RefusedReason, ResetRefused, RestartReason, Snapshot, WorkerState,
};
pub use timings::BUCKETS;
