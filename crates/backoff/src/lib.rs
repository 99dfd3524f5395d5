//! Delays, retry budgets and restart intensity: pure functions of their arguments.
//!
//! Nothing in this crate reads a clock or asks the system for chance. Time is a [`Duration`] since
//! an origin that the caller chooses (the start of the process, say), and chance is a seed. The
//! same calls with the same arguments give the same answers, so a failure found in a simulation
//! is a seed number.
//!
//! - [`Backoff`]: how long to wait before the next attempt, with full jitter.
//! - [`RetryBudget`]: whether a retry is affordable, given how much succeeds.
//! - [`RestartIntensity`]: whether something that keeps dying may be started again.
//! - [`Rng`]: the seeded generator behind the jitter, for simulations too.
//!
//! ```
//! use remuda_backoff::Backoff;
//! use std::time::Duration;
//!
//! let at = Duration::from_secs;
//! let mut backoff = Backoff::new(42).base(Duration::from_millis(100)).cap(at(10)).max_attempts(3);
//!
//! // The first attempt needs nobody's leave. It failed:
//! backoff.failed(at(1));
//! let first = backoff.next_delay(at(1)).expect("one of three attempts is used up");
//! assert!(first <= Duration::from_millis(100));
//!
//! // The second attempt failed as well:
//! backoff.failed(at(2));
//! let second = backoff.next_delay(at(2)).expect("two of three attempts are used up");
//! assert!(second <= Duration::from_millis(200));
//!
//! // The third brought a link that lived for a minute: the count starts over.
//! backoff.succeeded(at(3));
//! backoff.failed(at(63));
//! assert_eq!(backoff.failures(), 0);
//! assert!(backoff.next_delay(at(63)).is_some());
//! ```
//!
//! [`Duration`]: std::time::Duration
#![forbid(unsafe_code)]

mod budget;
mod intensity;
mod rng;
mod schedule;

pub use budget::RetryBudget;
pub use intensity::{RestartIntensity, Verdict};
pub use rng::Rng;
pub use schedule::Backoff;

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
