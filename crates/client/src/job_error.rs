//! What a peer answers when there is no result.

use remuda_protocol::{Code, Failure};

/// The peer's answer to a request that has no result: a code that says why, and its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code_text}: {error}")]
#[non_exhaustive]
pub struct JobError {
    /// Why, or `None` if the peer sent a code that this version doesn't know.
    pub code: Option<Code>,
    /// The code as it was sent.
    pub code_text: String,
    /// The message, for people.
    pub error: String,
    /// Where the handler failed, if its language says so.
    pub traceback: Option<String>,
}

impl JobError {
    /// Whether sending the job again could run it twice. True for codes that are not known.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        self.code.is_none_or(Code::may_have_run)
    }
}

impl From<Failure<'_>> for JobError {
    fn from(failure: Failure<'_>) -> JobError {
        JobError {
            code: failure.code,
            code_text: failure.code_text.decode().into_owned(),
            error: failure.error.decode().into_owned(),
            traceback: failure.traceback.map(|text| text.decode().into_owned()),
        }
    }
}
