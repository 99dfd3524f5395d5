//! A manager thread and its workers, with a stop that cannot deadlock.
//!
//! A [`WorkerPool`] holds threads that talk to the thread that started them. That one, the owner
//! of the pool, is the *manager*; the others are the *workers*. Messages of the manager go *down*,
//! those of the workers go *up*.
//!
//! ```
//! use remuda_threads::{DownMsg, WorkerPool, recv_break};
//!
//! let mut pool: WorkerPool<String, &str> = WorkerPool::new(100);
//! pool.execute_many(2, |tx, rx| {
//!     loop {
//!         let word = recv_break!(rx);
//!         if tx.send(word.to_uppercase()).is_err() {
//!             break;
//!         }
//!     }
//! })?;
//! for word in ["fresh", "horses"] {
//!     pool.broadcast_one(DownMsg::Other(word))?;
//! }
//! let mut words = pool.stop_and_join();
//! words.sort();
//! assert_eq!(words, ["FRESH", "HORSES"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can block, and why a stop can't
//!
//! The upward queues are bounded, so that workers can't fill the memory: each worker may have
//! [`buffer_length`](WorkerPool::buffer_length) unread messages, and its
//! [`send`](WorkerSender::send) waits when it has. The downward queues have no bound, so the
//! manager never waits when it sends, and can always send a [`DownMsg::Stop`].
//!
//! [`stop`](WorkerPool::stop), [`stop_and_join`](WorkerPool::stop_and_join) and the drop of a pool
//! read the upward queues until every worker has ended, and join the threads after that. So they
//! come to an end, whether workers wait on a full queue, are paused, have dropped an end of their
//! queues or have panicked, if each worker keeps to two rules:
//!
//! - a worker that waits or loops looks for a message now and then ([`recv_break!`] and
//!   [`try_recv_break!`] do it in one word)
//! - after it got a [`DownMsg::Stop`] it returns soon, and waits for nothing but room in its
//!   [`WorkerSender`]
//!
//! A worker that breaks them can be left behind by [`detach`](WorkerPool::detach).
//!
//! # Bursts
//!
//! A manager that answers each message with more work could read for ever.
//! [`recv_burst`](WorkerPool::recv_burst) gives the messages that were sent before it was called,
//! and no other; where it ends is a position in each queue.
//!
//! # Panics
//!
//! A worker's panic ends that worker alone. The manager finds it, with its payload, in
//! [`take_panic`](WorkerPool::take_panic), or panics with it at the end of a stop, after every
//! thread was joined. [`execute_restarting`](WorkerPool::execute_restarting) runs the job again
//! instead, up to a limit.
//!
//! # Waiting
//!
//! Who waits looks for at most 20 microseconds, soon offering its core to other threads between
//! two looks, and is then parked; less long where that was in vain lately. Where all threads of the
//! pool may run on one core only, it offers the core to the others and is parked. An event loop
//! that can't wait in [`recv`](WorkerPool::recv) sets a [wake hook](WorkerPool::set_wake_hook).

#[allow(unsafe_code, reason = "a queue hands its slots from one thread to the other")]
mod chain;
mod cores;
mod failure;
mod hub;
pub mod iterator;
mod macros;
mod message;
mod options;
mod pace;
mod pool;
mod receiver;
mod recv;
#[allow(unsafe_code, reason = "a queue hands its slots from one thread to the other")]
mod ring;
mod sender;
mod sleeper;
mod spawn;
#[cfg(not(loom))]
mod spin;
mod sync;
mod worker;

pub use failure::{SpawnError, WorkerPanic};
pub use hub::RESTART_REPORTS_MAX;
pub use iterator::{RecvAllIterator, RecvBurstIterator};
pub use message::{DownMsg, UpMsg, WorkerId};
pub use options::WorkerOptions;
pub use pool::{BUFFER_LENGTH_MAX, WorkerPool};
pub use receiver::{Receiver, Stopped};
pub use remuda_backoff::{RestartIntensity, Verdict};
pub use sender::{Sender, SyncSender, WorkerSender};
/// The errors are std's own, for programs that match on them.
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
pub use worker::Worker;

/// A worker's end of its downward queue.
pub type WorkerReceiver<Down> = Receiver<DownMsg<Down>>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
