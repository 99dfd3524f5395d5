//! What ends a pool before its time.

use crate::keeper::KeeperError;

/// The pool can't start, or can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Its options don't fit together.
    #[error(transparent)]
    Config(#[from] remuda_dispatch::ConfigError),
    /// The keeper could not be started, or is gone.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The keeper was killed.
    #[error("the keeper process was killed from outside: the workers were ended with it")]
    KeeperLost,
    /// The runtime refused something.
    #[error(transparent)]
    Net(#[from] remuda_net::NetError),
    /// No worker ever became ready.
    #[error("no worker could be started in {starts} tries: {why}")]
    NoWorker {
        /// How many starts failed.
        starts: u32,
        /// What the last of them said.
        why: String,
    },
    /// No worker ever became ready, and another start would fail as this one did.
    #[error("no worker can be started: {why}")]
    Hopeless {
        /// What is known of the start that failed.
        why: String,
    },
    /// A filter's answers can't be told apart, or it ends by itself.
    #[error("{0}")]
    Filter(String),
}
