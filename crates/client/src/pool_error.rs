//! What can go wrong with a [`PoolClient`](crate::PoolClient).

use std::io;

/// Why a [`PoolClient`](crate::PoolClient) couldn't be made, or got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The socket couldn't be connected.
    #[error("connecting to the worker failed: {0}; see that it runs and listens there")]
    Connect(#[source] io::Error),
    /// The worker didn't answer the handshake as it must, or not in time.
    #[error("the handshake with the worker failed: {0}")]
    Handshake(String),
    /// The worker speaks another version of the protocol.
    #[error(
        "the worker speaks version {theirs:?} of the protocol, this client {ours:?}: upgrade the \
         older"
    )]
    VersionMismatch {
        /// The version of this client.
        ours: &'static str,
        /// What the worker reported.
        theirs: String,
    },
    /// The request is larger than what a peer takes; nothing was sent, and the connection is as
    /// good as before.
    #[error("the request has {bytes} bytes, and at most {max} may be sent: send less")]
    TooLarge {
        /// Its length as JSON.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The connection failed while the request was sent or its answer was awaited: it may have
    /// been carried out.
    #[error("the connection to the worker failed: {0}; connect again")]
    Io(#[source] io::Error),
    /// The worker closed the connection before it answered: the request may have been carried out.
    #[error("the worker closed the connection before it answered; connect again")]
    Closed,
    /// The worker sent something that is no answer to the request.
    #[error("the worker broke the protocol: {0}; connect again, to a worker that speaks it")]
    Protocol(String),
    /// An earlier request failed or was dropped before its answer came, so that this connection
    /// can't be used any more. This request was not sent.
    #[error("this connection can't be used any more: {because}; drop it and connect again")]
    Unusable {
        /// What happened to the earlier request.
        because: String,
    },
}
