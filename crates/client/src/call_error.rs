//! Why a call has no result.

use std::sync::Arc;

use remuda_protocol::{BadJson, Code};

use crate::{ConnectError, JobError};

/// Why a call of a [`Client`](crate::Client) has no result.
///
/// [`may_have_run`](CallError::may_have_run) says whether making the call again could run the job
/// twice.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer answered that there is no result, and why.
    #[error(transparent)]
    Job(JobError),
    /// The call's deadline passed.
    #[error("no answer within {limit_ms} ms{}", if *.sent { "" } else { ", and nothing was sent" })]
    Timeout {
        /// What the caller allowed.
        limit_ms: u64,
        /// Whether the job had been sent, so that it may have run.
        sent: bool,
        /// Why there was no link, where that is the reason.
        because: Option<Arc<str>>,
    },
    /// The link broke while the job was under way: it may have run, and was not sent again.
    #[error(
        "the link to {address} broke while the job was under way: {because}; it may have run, so \
         call again only if it may run twice"
    )]
    LinkLost {
        /// What the link led to.
        address: Arc<str>,
        /// How it broke.
        because: Arc<str>,
    },
    /// There is no link, and there won't be one: no further attempt is made.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// The body can't be written as JSON.
    #[error("the body can't be written as JSON: {0}")]
    Encode(Arc<serde_json::Error>),
    /// The body is not one valid JSON value.
    #[error("the body is {0}")]
    BadBody(BadJson),
    /// The body is larger than what the client may send.
    #[error(
        "the body has {bytes} bytes, and at most {max} may be sent: raise max_body_bytes here and in the pool"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The job ran, and its result has another shape than the caller asked for.
    #[error("the result has another shape than expected: {0}")]
    Decode(Arc<serde_json::Error>),
    /// The peer answered with another kind of answer than the request has.
    #[error("the peer answered with {kind:?}, which is no answer to this request")]
    WrongKind {
        /// The kind of its answer.
        kind: String,
    },
    /// The client has several addresses, and the request must go to one.
    #[error("this client has {links} addresses: make a client with the one that is meant")]
    SeveralPeers {
        /// How many.
        links: usize,
    },
}

impl CallError {
    /// Whether the job may have run, wholly or in part. If not, it can be called again without the
    /// risk of running it twice.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            CallError::Job(error) => error.may_have_run(),
            CallError::Timeout { sent, .. } => *sent,
            CallError::LinkLost { .. } | CallError::Decode(_) | CallError::WrongKind { .. } => true,
            CallError::Unreachable(_)
            | CallError::Encode(_)
            | CallError::BadBody(_)
            | CallError::TooLarge { .. }
            | CallError::SeveralPeers { .. } => false,
        }
    }

    /// The protocol's code: that of the peer's answer, and `timeout` where the client itself saw
    /// that the time was up.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            CallError::Job(error) => error.code,
            CallError::Timeout { .. } => Some(Code::Timeout),
            _ => None,
        }
    }
}
