//! The keeper: a small process that starts, signals and reaps the workers, and outlives the pool
//! just long enough to kill all that descends from it.
//!
//! The pool's side is [`Keeper`]; the program's own binary is the other side, by calling [`main`]
//! first thing when its first argument is [`ARGUMENT`].
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use remuda_engine::keeper::{self, Keeper, KeeperCommand, KeeperError, KeeperOptions, Spawn};
//!
//! fn main() -> ExitCode {
//!     if std::env::args_os().nth(1).is_some_and(|word| word == keeper::ARGUMENT) {
//!         return keeper::main();
//!     }
//!     run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
//! }
//!
//! fn run() -> Result<(), KeeperError> {
//!     // Before any thread is started:
//!     let mut keeper = Keeper::start(KeeperCommand::default(), KeeperOptions::default())?;
//!     keeper.spawn(1, Spawn::new("true"))?;
//!     // Whenever the keeper's descriptor is readable:
//!     for event in keeper.events()? {
//!         println!("{event:?}");
//!     }
//!     keeper.stop()
//! }
//! ```
//!
//! # Who is who
//!
//! ```text
//! pool ── guardian ── keeper ─┬─ worker 1 ── what it started
//!    └─── socket ───────┘     └─ worker 2
//! ```
//!
//! The *guardian* is what the pool starts. It leaves the terminal's foreground group, makes the
//! PID namespace where that is permitted, starts the keeper in it, and waits: after
//! `unshare(CLONE_NEWPID)` a process can't start threads, and the init of a namespace must be
//! its first child. The *keeper* serves the pool. Both are subreapers.
//!
//! # Who dies with whom
//!
//! - The pool ends, however: its end of the socket closes, the keeper kills all its descendants
//!   with SIGKILL until none is left, and ends.
//! - The keeper is killed: in a PID namespace the kernel kills all that lived in it. Elsewhere the
//!   orphans go to the guardian, which kills them. The pool gets [`Event::Lost`] either way.
//! - The guardian is killed: the keeper goes on, and does its part when the pool ends.
//! - Keeper and guardian are both killed at the same moment, without a namespace: the pool gets
//!   [`Event::Lost`], and can kill its workers by their pidfds. What those started stays.
//!
//! # What belongs to a worker
//!
//! Its descendants by the chain of parents; what is in its process group; and every process whose
//! environment still carries the mark that the worker was started with. The last finds
//! grandchildren that forked twice and called `setsid`. A process that did all of that and also
//! replaced or overwrote its environment can't be told from other workers' leavings: it
//! dies with the keeper. Processes that the keeper may not signal (setuid programs, when the pool
//! isn't root) are left alone.

mod descent;
mod error;
mod frame;
mod guardian;
mod message;
mod pool;
mod serve;
mod signals;
mod start;
mod sweep;
mod wire;

pub use error::{KeeperError, StartError, StartFailure};
pub use guardian::main;
pub use message::{Event, Scope, Signal, Spawn, Status};
pub use pool::{Keeper, KeeperCommand, KeeperOptions, PidNamespace};

/// The first argument by which a binary knows that it was started as a keeper.
pub const ARGUMENT: &str = "__keeper";

/// The descriptor that a worker finds its socket at, also told as `REMUDA_FD`.
pub const WORKER_FD: i32 = 3;
