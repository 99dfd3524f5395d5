//! What a link is doing, for those who watch it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a link is doing. Times are those of the [`Sleep`](crate::Sleep) that the link's
/// [`Retry`](crate::Retry) was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// An attempt is under way.
    Connecting,
    /// The link is up.
    Connected {
        /// Since when.
        since: Duration,
    },
    /// The last attempt failed, or the link ended; another attempt follows.
    Waiting {
        /// When it follows.
        until: Duration,
        /// Why the last attempt failed, or the link ended.
        because: Arc<str>,
    },
    /// An attempt failed, or the link ended, and no other attempt is planned yet; the last state
    /// where none ever will be.
    Failed {
        /// Why.
        because: Arc<str>,
    },
}

impl LinkState {
    /// Whether the link is up.
    pub fn is_connected(&self) -> bool {
        matches!(self, LinkState::Connected { .. })
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkState::Connecting => f.write_str("connecting"),
            LinkState::Connected { since } => write!(f, "connected since {since:.3?}"),
            LinkState::Waiting { until, because } => {
                write!(f, "waiting until {until:.3?}, because: {because}")
            }
            LinkState::Failed { because } => write!(f, "failed: {because}"),
        }
    }
}
