//! The delays of one link, its history, and the state that others watch.

use crate::{LinkState, Publisher, Sleep, Watch};
use remuda_backoff::Backoff;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// The reasons where a connector gave none.
const ATTEMPT_FAILED: &str = "the attempt failed";
const LINK_ENDED: &str = "the link ended";

/// No further attempt is made: those that were allowed are used up, or the time is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "gave up after {failures} failed attempts in a row (last: {because}); see that the other \
     side is up, or allow more attempts or time"
)]
pub struct GaveUp {
    /// How many attempts in a row had failed.
    pub failures: u32,
    /// Why the last one failed, or the link ended.
    pub because: Arc<str>,
}

/// What a connector keeps inside to wait between attempts as it should: a [`Backoff`], the
/// [`Sleep`] that it waits by, and a [`LinkState`] for others to watch.
///
/// In `connect`, call [`connecting`](Self::connecting) first, then [`connected`](Self::connected)
/// or [`failed`](Self::failed); in `run`, [`failed`](Self::failed) when the link ends; in
/// `retry_delay`, return [`delay`](Self::delay)`().await.into()`. The crate's front page has a
/// whole connector.
#[derive(Debug)]
pub struct Retry<S> {
    backoff: Backoff,
    sleep: S,
    state: Publisher<LinkState>,
    because: Arc<str>,
}

impl<S: Sleep> Retry<S> {
    /// Delays by `backoff`, slept by `sleep`. Give each link a seed of its own. The state is
    /// [`LinkState::Connecting`].
    pub fn new(backoff: Backoff, sleep: S) -> Self {
        let state = Publisher::new(LinkState::Connecting);
        Self { backoff, sleep, state, because: Arc::from(ATTEMPT_FAILED) }
    }

    /// The same, with other delays: its watches stay, its history starts over.
    pub fn with_backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Shows what the link does. It ends when this `Retry` is dropped.
    pub fn watch(&self) -> Watch<LinkState> {
        self.state.watch()
    }

    /// What the link does.
    pub fn state(&self) -> LinkState {
        self.state.latest()
    }

    /// An attempt begins.
    pub fn connecting(&mut self) {
        self.because = Arc::from(ATTEMPT_FAILED);
        self.state.publish(LinkState::Connecting);
    }

    /// The link is up. Call it when the peer has answered the handshake, not when it has merely
    /// accepted: a link must live for [`Backoff::reset_after`] from here on to count.
    pub fn connected(&mut self) {
        let since = self.sleep.now();
        self.backoff.succeeded(since);
        self.because = Arc::from(LINK_ENDED);
        self.state.publish(LinkState::Connected { since });
    }

    /// The attempt failed, or the link ended, and why. Where it isn't called,
    /// [`delay`](Self::delay) takes it as said, without a reason.
    pub fn failed(&mut self, because: impl Display) {
        self.backoff.failed(self.sleep.now());
        self.because = Arc::from(because.to_string());
        self.state.publish(LinkState::Failed { because: Arc::clone(&self.because) });
    }

    /// The peer said how long to stay away: the next delay is at least that. See
    /// [`Backoff::after`].
    pub fn after(&mut self, delay: Duration) {
        self.backoff.after(delay);
    }

    /// How many attempts in a row have failed.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// The clock and timer that this waits by.
    pub fn sleeper(&self) -> &S {
        &self.sleep
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    ///
    /// [`GaveUp`], at once, when no further attempt is allowed. The state is then
    /// [`LinkState::Failed`] for good.
    ///
    /// # Cancel safety
    ///
    /// A delay that was dropped is gone: the next call counts the attempt that was due as failed.
    pub async fn delay(&mut self) -> Result<(), GaveUp> {
        let now = self.sleep.now();
        let because = Arc::clone(&self.because);
        let Some(delay) = self.backoff.next_delay(now) else {
            self.state.publish(LinkState::Failed { because: Arc::clone(&because) });
            return Err(GaveUp { failures: self.backoff.failures(), because });
        };
        let until = now.saturating_add(delay);
        self.state.publish(LinkState::Waiting { until, because });
        self.sleep.sleep(delay).await;
        Ok(())
    }
}
