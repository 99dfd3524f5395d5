//! What a [`PoolClient`](crate::PoolClient) gets back.

use remuda_protocol::{Answer, Offer};

use crate::{JobError, Json};

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolResponse {
    /// What the peer declares about itself.
    Handshake(Offer),
    /// A job's result.
    Result(Json),
    /// The results of a batch, one for each body, in their order.
    Results(Vec<Result<Json, JobError>>),
    /// There is no result, and why. The connection is as good as before.
    Error(JobError),
    /// The answer to [`PoolRequest::Status`](crate::PoolRequest::Status): the whole `data` object.
    Status(Json),
    /// The answer to `Reset` and `Shutdown`, and kinds of answers of a later version.
    Done {
        /// `data.kind`.
        kind: String,
        /// The whole `data` object.
        data: Json,
    },
}

impl From<Answer<'_>> for PoolResponse {
    fn from(answer: Answer<'_>) -> PoolResponse {
        match answer {
            Answer::Handshake(offer) => PoolResponse::Handshake(offer),
            Answer::Result(body) => PoolResponse::Result(body.into()),
            Answer::Results(results) => PoolResponse::Results(
                results
                    .outcomes()
                    .map(|outcome| outcome.map(Json::from).map_err(JobError::from))
                    .collect(),
            ),
            Answer::Error(failure) => PoolResponse::Error(failure.into()),
            Answer::Status(data) => PoolResponse::Status(data.into()),
            Answer::Other { kind, data } => {
                PoolResponse::Done { kind: kind.into_owned(), data: data.into() }
            }
        }
    }
}
