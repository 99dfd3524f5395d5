//! Ending a wait, an attempt or a whole loop from outside.

use crate::Publisher;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// Stops what races it. Clones stop the same things; once stopped, it stays so.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let stopper = remuda_reconnect::Stopper::new();
/// assert_eq!(stopper.race(async { 7 }).await, Some(7));
///
/// stopper.stop();
/// assert_eq!(stopper.race(std::future::pending::<u32>()).await, None);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Stopper {
    stopped: Arc<Publisher<bool>>,
}

impl Stopper {
    /// One that is not stopped yet.
    pub fn new() -> Self {
        Self { stopped: Arc::new(Publisher::new(false)) }
    }

    /// Stops, at once and for good.
    pub fn stop(&self) {
        self.stopped.publish(true);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.latest()
    }

    /// Ends when it is stopped. Cancel-safe.
    pub async fn stopped(&self) {
        self.stopped.watch().until(|stopped| *stopped).await;
    }

    /// What `future` returns, or `None` if it is stopped before: `future` is then dropped. When
    /// both are so at once, the stop wins. With [`run`](crate::run) as the future, the whole loop
    /// ends, wherever it is.
    pub async fn race<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut stopped = pin!(self.stopped());
        let mut future = pin!(future);
        poll_fn(|context| {
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }
}

impl Default for Stopper {
    fn default() -> Self {
        Self::new()
    }
}
