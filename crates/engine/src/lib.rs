//! Drives the dispatch of jobs on the runtime: listeners, links, keeper, supervision.
//!
//! [`Pool`] is a pool of warm workers on a thread of the runtime, `remuda-net`. A program that has
//! no use for that runtime takes `remuda::Pool`, which runs one on a thread of its own.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use remuda_engine::{End, Finished, NewJob, Pool, PoolConfig, WorkerKind, keeper, net_config};
//!
//! fn main() -> ExitCode {
//!     // A pool of processes starts its own binary once more, as their keeper.
//!     if std::env::args_os().nth(1).is_some_and(|word| word == keeper::ARGUMENT) {
//!         return keeper::main();
//!     }
//!     match remuda_net::run_local(net_config(), shout()) {
//!         Ok(Ok(())) => ExitCode::SUCCESS,
//!         Ok(Err(error)) => panic!("{error}"),
//!         Err(error) => panic!("{error}"),
//!     }
//! }
//!
//! async fn shout() -> Result<(), Box<dyn std::error::Error>> {
//!     let kind = WorkerKind::Process { program: "./upper".into(), args: vec![], env: vec![] };
//!     let pool = Pool::start(PoolConfig::new(kind))?;
//!     pool.submit(NewJob { number: 1, body: "abc".into(), text: true })?;
//!     pool.flush();
//!     let mut finished = Finished::default();
//!     pool.finished(&mut finished).await?;
//!     for job in &finished.jobs {
//!         match &job.end {
//!             End::Done { at, .. } => {
//!                 println!("{}", String::from_utf8_lossy(&finished.bytes[at.clone()]));
//!             }
//!             End::Failed(failed) => println!("{}: {}", failed.code.as_str(), failed.message),
//!         }
//!     }
//!     pool.shut_down();
//!     pool.drained().await?;
//!     Ok(())
//! }
//! ```
//!
//! Workers are processes ([`WorkerKind::Process`], [`WorkerKind::Filter`]), threads
//! ([`WorkerKind::Threads`], which need no keeper), or run already
//! ([`PoolConfig::attach`](PoolConfig)). [`Pool::listen`] lets other programs call.
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
mod long_line;
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
pub use front::limits::{descriptor_limit, raise_descriptor_limit};
pub use front::listener::Listen;
pub use history::{INCIDENTS_LIMIT, Incident, LostJob};
pub use job::Form;
pub use link::thread::thread_slot;
pub use link::tls::{client_config as tls_client_config, server_name as tls_server_name};
pub use local::{End, Failed, Finished, FinishedJob};
pub use pool::{NewJob, Pool};
pub use remote::{Health, REMOTE_REQUESTS_LIMIT, Remote, RemoteError, RemoteReply};
pub use remuda_dispatch::{
    Code, Config as DispatchConfig, ConfigError, Counters, Drain, Exit, Facts, Fault, KillReason,
    Phase, RefusedReason, ResetRefused, Restart, RestartReason, Snapshot, WorkerId, WorkerState,
    WorkerView,
};
/// The runtime that a pool runs on.
pub use remuda_net as net;
pub use remuda_protocol::{
    Access, Address, AddressError, BadJson, BadJsonKind, Raw, Role, TlsFiles,
};
pub use timings::BUCKETS;
