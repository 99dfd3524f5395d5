//! The loop that connects, runs, and decides when to connect again.
//!
//! A [`Connector`] says how to connect, what to do with the connection, and how long to wait
//! between attempts. [`run`] does the rest: it calls `connect`, hands the connection to `run`, and
//! after a failure that can be retried asks `retry_delay` whether and when to go on. It never
//! connects by itself and knows nothing of sockets, so that the same loop serves TCP, TLS, shared
//! memory, or anything else that comes and goes.
//!
//! - [`Connector`]'s futures are `Send`: generic code can spawn the loop on a multi-threaded
//!   runtime. [`LocalConnector`] is for futures that aren't; every `Connector` is one as well, and
//!   one [`run`] serves both.
//! - [`Retry`] is the part that nearly every connector wants inside: delays by
//!   [`Backoff`], what a server said about when to come back, and a state
//!   that others can [`Watch`].
//! - [`Stopper`] ends any of it from outside.
//! - `tcpconn` (feature) has a ready TCP connector on tokio.
//!
//! This crate returns futures and never spawns them. It needs no particular runtime: what sleeps
//! is a [`Sleep`] that you give it.
//!
//! ```
//! use remuda_backoff::Backoff;
//! use remuda_reconnect::{ConnResult, Connector, GaveUp, Retry, RunResult, Sleep, run};
//! use std::io::{self, Read};
//!
//! struct Greeting<S> {
//!     retry: Retry<S>,
//!     dials: u32,
//! }
//!
//! impl<S: Sleep<Sleeping: Send> + Send> Connector for Greeting<S> {
//!     type ConnType = &'static [u8];
//!     type Error = GaveUp;
//!
//!     async fn connect(&mut self) -> ConnResult<&'static [u8], GaveUp> {
//!         self.retry.connecting();
//!         self.dials += 1;
//!         if self.dials < 3 {
//!             self.retry.failed("connection refused");
//!             return ConnResult::Reconnect;
//!         }
//!         self.retry.connected();
//!         ConnResult::Connected(b"hello")
//!     }
//!
//!     async fn run(&mut self, mut connection: &'static [u8]) -> RunResult<GaveUp> {
//!         let mut greeting = String::new();
//!         match connection.read_to_string(&mut greeting) {
//!             Ok(_) => RunResult::Exit(Ok(())),
//!             Err(error) => {
//!                 self.retry.failed(error);
//!                 RunResult::Reconnect
//!             }
//!         }
//!     }
//!
//!     async fn retry_delay(&mut self) -> RunResult<GaveUp> {
//!         self.retry.delay().await.into()
//!     }
//! }
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # let sleep = remuda_reconnect::SleepFn::new(tokio::time::sleep);
//! # runtime.block_on(async {
//! let retry = Retry::new(Backoff::new(42), sleep);
//! let watch = retry.watch();
//! run(Greeting { retry, dials: 0 }).await.expect("the third attempt connects");
//! println!("at last: {}", watch.latest());
//! # });
//! ```
//!
//! # Features
//!
//! | feature | function |
//! | --- | --- |
//! | `tokio` | `TokioSleep`: delays on a tokio runtime |
//! | `tcpconn` | a simple TCP reconnector; brings `tokio` along |
//! | `tracing` | the loop logs its steps |
//!
//! None is on by default.
#![forbid(unsafe_code)]

mod connector;
mod drive;
mod failure;
mod outcome;
mod retry;
mod seed;
mod sleep;
mod state;
mod stop;
#[cfg(feature = "tcpconn")]
pub mod tcpconn;
mod watch;

pub use connector::{Connector, LocalConnector};
pub use drive::run;
pub use failure::Failure;
pub use outcome::{ConnResult, RunResult};
/// The delays and budgets of [`remuda_backoff`], of which [`Retry`] is made.
pub use remuda_backoff::{Backoff, RetryBudget};
pub use retry::{GaveUp, Retry};
pub use seed::random_seed;
#[cfg(feature = "tokio")]
pub use sleep::TokioSleep;
pub use sleep::{Sleep, SleepFn};
pub use state::LinkState;
pub use stop::Stopper;
pub use watch::{Publisher, Watch};

/// The README's example compiles and runs.
#[cfg(all(doctest, feature = "tcpconn"))]
#[doc = include_str!("../README.md")]
struct Readme;
