//! What a worker process in Rust needs, and no more.
//!
//! A worker is a function from a JSON value to a result, in a process that a Remuda pool starts,
//! keeps warm, and replaces when it dies. [`serve`] finds the socket that the pool left at the
//! descriptor `REMUDA_FD`, shakes hands, and runs the function for each call until the socket ends.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     remuda_worker::serve(|text: String| Ok::<_, std::convert::Infallible>(text.to_uppercase()))
//! }
//! ```
//!
//! Started by hand with `--listen PATH`, the same program waits on a Unix socket of its own.
//!
//! [`Worker`] has more: bodies that are not parsed ([`Worker::raw`]), a function that takes a list
//! at once ([`Worker::list`]), several threads ([`Worker::capacity`]), and calls that can be
//! stopped ([`Worker::cancellable`], [`Job`]).
//!
//! # What always holds
//!
//! - A panic or an error of the function is the answer `handler_error` to that one call, and the
//!   worker goes on.
//! - Unless [`Worker::coalesce`] is chosen, each answer is sent before the next call starts, so
//!   that a pool knows exactly which call a dead worker was at.
//! - What the function prints goes to the pool's log and can't break the protocol.
// They panic where stderr can't be written, and a worker outlives its log.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![deny(unsafe_code)] // One allowance, in `inherited`: for the descriptor that the pool passes on.

mod connection;
mod environment;
mod handler;
mod inherited;
mod job;
mod listen;
mod permits;
mod results;
#[cfg(target_os = "linux")]
mod rings;
mod threaded;
mod watch;
mod worker;

use std::fmt::Display;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use environment::{worker_id, worker_slot};
pub use job::Job;
pub use remuda_protocol::{BadJson, BadJsonKind, Bodies, BodiesIter, Raw};
pub use worker::{BATCH_DEFAULT, SPIN_DEFAULT, Worker};

/// Runs `handler` for each call, until the pool closes the socket.
///
/// The same as [`Worker::new`] and [`Worker::run`].
pub fn serve<T, R, E>(handler: impl Fn(T) -> Result<R, E> + Send + Sync + 'static) -> ExitCode
where
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
    E: Display + 'static,
{
    Worker::new(handler).run()
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
