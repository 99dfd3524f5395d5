//! The call that a thread is running, and whether somebody still wants its result.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The call that is being run: ask it now and then whether to go on.
///
/// ```
/// use remuda_worker::Job;
///
/// fn search(text: String) -> Result<usize, &'static str> {
///     let job = Job::current();
///     for (at, line) in text.lines().enumerate() {
///         if job.is_cancelled() {
///             return Err("cancelled");
///         }
///         if line.contains("needle") {
///             return Ok(at);
///         }
///     }
///     Err("no needle")
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Job {
    cancelled: Arc<AtomicBool>,
}

thread_local! {
    static CURRENT: RefCell<Option<Job>> = const { RefCell::new(None) };
}

impl Job {
    /// The call that this thread is running. It may be kept, and asked from other threads.
    ///
    /// Outside of a call, and in a worker that isn't [`cancellable`](crate::Worker::cancellable),
    /// it is one that is never cancelled.
    #[must_use]
    pub fn current() -> Job {
        CURRENT.with_borrow(|current| current.clone().unwrap_or_default())
    }

    /// Whether the client asked for the call to stop, or is gone. The result is then of no use: an
    /// error is answered as `cancelled`, a result as a result.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Runs `body` with this as the current call.
    pub(crate) fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        CURRENT.set(Some(self.clone()));
        let value = body();
        CURRENT.set(None);
        value
    }
}
