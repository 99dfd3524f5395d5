//! What a [`PoolClient`](crate::PoolClient) sends.

use std::time::Duration;

use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Id, PROTOCOL_VERSION};

use crate::Json;
use crate::remaining::millis;

/// One request to a worker or a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolRequest {
    /// The first message. [`PoolClient::connect`](crate::PoolClient::connect) sends it by itself.
    Handshake {
        /// The version that this side speaks.
        version: String,
        /// The secret of a listener that asks for one.
        token: Option<String>,
    },
    /// Run a job.
    Call {
        /// The job.
        body: Json,
        /// How long it may take from its arrival. The peer ends it; a worker needn't.
        timeout: Option<Duration>,
    },
    /// Run several jobs in one message, which the peer must have declared by `batch` in its
    /// [`Offer`](remuda_protocol::Offer).
    Batch {
        /// The jobs, at least one.
        bodies: Vec<Json>,
        /// How long all of them may take.
        timeout: Option<Duration>,
    },
    /// Report on yourself.
    Status,
    /// Replace all workers.
    Reset,
    /// Finish what was accepted, and end.
    Shutdown,
}

impl PoolRequest {
    /// The handshake of this version, without a token.
    #[must_use]
    pub fn handshake() -> PoolRequest {
        PoolRequest::Handshake { version: PROTOCOL_VERSION.to_owned(), token: None }
    }

    /// A job without a time limit.
    #[must_use]
    pub const fn call(body: Json) -> PoolRequest {
        PoolRequest::Call { body, timeout: None }
    }

    /// Appends it as one line. A handshake has no id.
    pub(crate) fn write(&self, out: &mut Vec<u8>, id: u64) {
        let id = Some(Id::Number(id));
        match self {
            PoolRequest::Handshake { version, token } => {
                encode::handshake(out, version, token.as_deref());
            }
            PoolRequest::Call { body, timeout } => {
                encode::call(out, id, body.as_str().as_bytes(), &fields(*timeout));
            }
            PoolRequest::Batch { bodies, timeout } => {
                let bodies = bodies.iter().map(|body| body.as_str().as_bytes());
                encode::calls(out, id, bodies, &fields(*timeout));
            }
            PoolRequest::Status => encode::status(out, id),
            PoolRequest::Reset => encode::reset(out, id),
            PoolRequest::Shutdown => encode::shutdown(out, id),
        }
    }
}

fn fields(timeout: Option<Duration>) -> CallFields {
    CallFields { timeout_ms: timeout.map(millis), hops: 0 }
}
