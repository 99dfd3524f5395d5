//! Why a link couldn't be made, or can't be kept.

use std::io;
use std::sync::Arc;

use remuda_protocol::{Code, HandshakeError};
use remuda_reconnect::{Failure, GaveUp};

/// Why a [`Client`](crate::Client) has no link to a peer.
///
/// Clones are cheap: all calls that fail for one reason share it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The connection couldn't be made, or broke before the handshake was answered.
    #[error("connecting to {address} failed: {source}; see that a pool listens there")]
    Io {
        /// What was connected to.
        address: String,
        /// What went wrong.
        source: Arc<io::Error>,
    },
    /// None of the places where a pool is looked for by default has one.
    #[error("no pool answers at {tried}; start one with `remuda serve`, or set REMUDA_ADDR")]
    NoPool {
        /// The addresses, and what went wrong at each.
        tried: String,
    },
    /// The peer didn't answer the handshake within
    /// [`HANDSHAKE_RECV_TIMEOUT`](crate::HANDSHAKE_RECV_TIMEOUT).
    #[error("{address}: handshake recv timeout (10s); see whether the pool hangs")]
    NoAnswer {
        /// What was connected to.
        address: String,
    },
    /// The peer answered, but it can't be used: it speaks another version, or refused.
    #[error("{address}: {source}")]
    Handshake {
        /// What was connected to.
        address: String,
        /// What it answered.
        source: HandshakeError,
    },
    /// The attempts or the time that the options allow are used up.
    #[error("{address}: {source}")]
    GaveUp {
        /// What was connected to.
        address: String,
        /// After how many attempts, and why the last one failed.
        source: GaveUp,
    },
    /// The address, or what it names, can't be used by this client at all.
    #[error("{address} can't be used: {reason}")]
    Unusable {
        /// The address.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The runtime on which the client was made has ended, and its links with it.
    #[error("the runtime on which this client was made has ended: make a client on this one")]
    RuntimeEnded,
}

impl ConnectError {
    pub(crate) fn io(address: &str, source: io::Error) -> ConnectError {
        ConnectError::Io { address: address.to_owned(), source: Arc::new(source) }
    }

    /// Whether another attempt makes sense. A peer of another version isn't asked again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectError::Io { source, .. } => Failure::of(source).may_pass(),
            ConnectError::NoPool { .. } | ConnectError::NoAnswer { .. } => true,
            ConnectError::Handshake { source: HandshakeError::Refused { code, .. }, .. } => {
                *code == Code::Draining.as_str() || *code == Code::QueueFull.as_str()
            }
            ConnectError::Handshake { .. }
            | ConnectError::GaveUp { .. }
            | ConnectError::Unusable { .. }
            | ConnectError::RuntimeEnded => false,
        }
    }
}
