//! Keeps workers warm and hands each job to a free one.
//!
//! The command `remuda` is the binary of this package. The library is for Rust programs: [`Pool`]
//! keeps a pool on a thread of its own, and the crates beneath it are re-exported for those who
//! need one part.
//!
//! ```
//! use remuda::{Pool, RawValue};
//!
//! let pool = Pool::threads(2, |body: &RawValue| -> Result<String, serde_json::Error> {
//!     let text: String = serde_json::from_str(body.get())?;
//!     Ok(text.to_uppercase())
//! })?;
//! let shouted: String = pool.call("hello")?;
//! assert_eq!(shouted, "HELLO");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Its workers may be processes, too, or run already elsewhere: see [`Pool::start`].
#![forbid(unsafe_code)]

mod pool;

pub use pool::{CallError, Pool, StartError};
pub use remuda_engine::{PoolConfig, Remote, RemoteError, RemoteReply, WorkerKind, thread_slot};
/// A job's body, as a handler gets it.
pub use serde_json::value::RawValue;

pub use remuda_backoff as backoff;
pub use remuda_client as client;
pub use remuda_dispatch as dispatch;
pub use remuda_engine as engine;
pub use remuda_net as net;
pub use remuda_protocol as protocol;
pub use remuda_reconnect as reconnect;
pub use remuda_shm as shm;
pub use remuda_threads as threads;
pub use remuda_worker as worker;

#[cfg(doctest)]
#[doc = include_str!("../../engine/README.md")]
struct EngineReadmeExample;
