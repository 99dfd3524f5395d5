//! A thread-per-core runtime on io_uring, or on mio where that is denied.
#![allow(unsafe_code)]

mod blocking;
mod cancel;
mod combine;
mod config;
mod error;
pub mod mpsc;
mod notify;
pub mod oneshot;
mod stub;

pub use blocking::{BlockingExecutor, BlockingHandle, BlockingJob, SmallPool};
pub use cancel::CancellationToken;
pub use combine::{Either, Either3, join, join3, select, select3, yield_now};
pub use config::{BACKEND_ENV, Backend, Config};
pub use error::{Elapsed, NetError, Result};
pub use notify::Notifier;
pub use stub::*;
