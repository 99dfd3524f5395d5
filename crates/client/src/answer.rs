//! What came back for one request.

use remuda_protocol::{Answer, Offer};

use crate::{CallError, JobError, Json};

/// A reply, taken out of its line.
#[derive(Debug)]
pub(crate) enum Answered {
    Result(Json),
    Data { kind: String, data: Json },
    Failed(Box<JobError>),
    Greeting,
}

impl From<Answer<'_>> for Answered {
    fn from(answer: Answer<'_>) -> Answered {
        match answer {
            Answer::Result(body) => Answered::Result(body.into()),
            Answer::Error(failure) => Answered::Failed(Box::new(failure.into())),
            Answer::Status(data) => Answered::Data { kind: "status".to_owned(), data: data.into() },
            Answer::Other { kind, data } => {
                Answered::Data { kind: kind.into_owned(), data: data.into() }
            }
            Answer::Results(results) => Answered::Data {
                kind: "results".to_owned(),
                data: results.bodies.as_array().into(),
            },
            Answer::Handshake(Offer { .. }) => Answered::Greeting,
        }
    }
}

impl Answered {
    /// A job's result.
    pub(crate) fn result(self) -> Result<Json, CallError> {
        match self {
            Answered::Result(json) => Ok(json),
            other => Err(other.unexpected()),
        }
    }

    /// The `data` of an answer of this kind.
    pub(crate) fn data(self, wanted: &str) -> Result<Json, CallError> {
        match self {
            Answered::Data { kind, data } if kind == wanted => Ok(data),
            other => Err(other.unexpected()),
        }
    }

    fn unexpected(self) -> CallError {
        let kind = match self {
            Answered::Failed(error) => return CallError::Job(*error),
            Answered::Result(_) => "result".to_owned(),
            Answered::Data { kind, .. } => kind,
            Answered::Greeting => "handshake".to_owned(),
        };
        CallError::WrongKind { kind }
    }
}
