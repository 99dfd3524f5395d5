//! What a connector answers the loop.

/// What [`Connector::connect`](crate::Connector::connect) answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the loop acts on it"]
pub enum ConnResult<T, E> {
    /// There is a connection: the loop hands it to `run`.
    Connected(T),
    /// The attempt failed in a way that may pass: the loop asks `retry_delay`.
    Reconnect,
    /// The loop ends, with this result.
    Exit(Result<(), E>),
}

/// What [`Connector::run`](crate::Connector::run) and
/// [`Connector::retry_delay`](crate::Connector::retry_delay) answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the loop acts on it"]
pub enum RunResult<E> {
    /// Go on: from `run`, the connection is gone and the loop asks `retry_delay`; from
    /// `retry_delay`, the wait is over and the loop calls `connect`.
    Reconnect,
    /// The loop ends, with this result.
    Exit(Result<(), E>),
}

/// `Ok` goes on, an error ends the loop.
impl<E, F: Into<E>> From<Result<(), F>> for RunResult<E> {
    fn from(result: Result<(), F>) -> Self {
        match result {
            Ok(()) => RunResult::Reconnect,
            Err(error) => RunResult::Exit(Err(error.into())),
        }
    }
}
