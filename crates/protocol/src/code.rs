//! The codes that say why a job has no result.

use std::fmt;

/// Why a request has no result.
///
/// Each job that was accepted ends with a result or with one of these. [`Code::may_have_run`] says
/// whether the handler may have seen the job, so whether sending it again could run it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The line is no valid request: broken JSON, a missing field, too deep. Not run.
    BadRequest,
    /// The body, or a result, is larger than `max_body_bytes`.
    ///
    /// A request refused so has not run. A result refused so has: the job ran to its end.
    BodyTooLarge,
    /// The `op` is not one of those that the peer knows. Not run.
    UnknownOp,
    /// The first line was no handshake; the connection closes. Not run.
    HandshakeRequired,
    /// The token is wrong, or the operation needs a listener with `role=admin`. Not run.
    Unauthorized,
    /// The pool's queue is full. Not run; try again later, with backoff.
    QueueFull,
    /// The job waited in the queue longer than the pool lets jobs wait. Not run.
    QueueTimeout,
    /// The job's time was up. It may have run, or still have been queued.
    Timeout,
    /// The client asked for it by `cancel`. It may have run in part.
    Cancelled,
    /// The worker ended before it answered. It may have run, wholly or in part.
    WorkerLost,
    /// Several workers died under this body; it is not tried again. It has run, in part.
    Poisoned,
    /// The handler ran and failed; `error` is its message.
    HandlerError,
    /// The pool is shutting down and takes nothing new. Not run.
    Draining,
    /// A fault of the pool itself. It may have run.
    Internal,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Code; 14] = [
        Code::BadRequest,
        Code::BodyTooLarge,
        Code::UnknownOp,
        Code::HandshakeRequired,
        Code::Unauthorized,
        Code::QueueFull,
        Code::QueueTimeout,
        Code::Timeout,
        Code::Cancelled,
        Code::WorkerLost,
        Code::Poisoned,
        Code::HandlerError,
        Code::Draining,
        Code::Internal,
    ];

    /// The code as it travels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::BodyTooLarge => "body_too_large",
            Code::UnknownOp => "unknown_op",
            Code::HandshakeRequired => "handshake_required",
            Code::Unauthorized => "unauthorized",
            Code::QueueFull => "queue_full",
            Code::QueueTimeout => "queue_timeout",
            Code::Timeout => "timeout",
            Code::Cancelled => "cancelled",
            Code::WorkerLost => "worker_lost",
            Code::Poisoned => "poisoned",
            Code::HandlerError => "handler_error",
            Code::Draining => "draining",
            Code::Internal => "internal",
        }
    }

    /// The code that is written so, or `None` for one that this version doesn't know.
    ///
    /// A peer of a later version may send others; treat them as ones under which the job may have
    /// run.
    #[must_use]
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// Whether the job's handler may have started under this code.
    ///
    /// Where this is false, the same job can be sent again without the risk of running it twice.
    /// `BodyTooLarge` answers true, since it is also the end of a job whose result was too large.
    #[must_use]
    pub const fn may_have_run(self) -> bool {
        match self {
            Code::BadRequest
            | Code::UnknownOp
            | Code::HandshakeRequired
            | Code::Unauthorized
            | Code::QueueFull
            | Code::QueueTimeout
            | Code::Draining => false,
            Code::BodyTooLarge
            | Code::Timeout
            | Code::Cancelled
            | Code::WorkerLost
            | Code::Poisoned
            | Code::HandlerError
            | Code::Internal => true,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn every_code_reads_back_as_itself() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
        assert_eq!(Code::parse("Timeout"), None);
        assert_eq!(Code::parse(""), None);
    }
}
