//! What sleeps and tells the time, whatever the runtime.

use std::future::Future;
use std::time::{Duration, Instant};

/// A clock and its timer: what a delay needs of a runtime.
///
/// Where the future is `Send`, everything built on it is; code that is generic over it and must
/// be `Send` asks for `S: Sleep<Sleeping: Send>`. A runtime whose sleeping future has no name
/// gives a `Pin<Box<dyn Future<Output = ()>>>`, or uses [`SleepFn`].
pub trait Sleep {
    /// Ends when the time has passed.
    type Sleeping: Future<Output = ()>;

    /// The time since an origin that stays the same. It never goes back.
    fn now(&self) -> Duration;

    /// Sleeps for `duration`, counted from this call.
    fn sleep(&self, duration: Duration) -> Self::Sleeping;
}

/// A [`Sleep`] made of a function and the system's monotonic clock, its origin being the moment
/// that it was made.
///
/// ```
/// use remuda_reconnect::{Sleep, SleepFn};
///
/// let sleep = SleepFn::new(tokio::time::sleep);
/// assert!(sleep.now() <= sleep.now());
/// ```
#[derive(Clone, Debug)]
pub struct SleepFn<F> {
    sleep: F,
    origin: Instant,
}

impl<F, Fut> SleepFn<F>
where
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = ()>,
{
    /// Sleeps by `sleep`.
    pub fn new(sleep: F) -> Self {
        Self { sleep, origin: Instant::now() }
    }
}

impl<F, Fut> Sleep for SleepFn<F>
where
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = ()>,
{
    type Sleeping = Fut;

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Fut {
        (self.sleep)(duration)
    }
}

/// Sleeps on tokio, by tokio's clock, which tests can pause. The runtime must have its time
/// driver enabled.
#[cfg(feature = "tokio")]
#[derive(Clone, Debug)]
pub struct TokioSleep {
    origin: tokio::time::Instant,
}

#[cfg(feature = "tokio")]
impl TokioSleep {
    /// Counts time from here on.
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }
}

#[cfg(feature = "tokio")]
impl Default for TokioSleep {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio")]
impl Sleep for TokioSleep {
    type Sleeping = tokio::time::Sleep;

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep(&self, duration: Duration) -> tokio::time::Sleep {
        tokio::time::sleep(duration)
    }
}
