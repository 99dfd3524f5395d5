//! The loop itself.

use crate::{ConnResult, LocalConnector, RunResult};

/// Drives `connector` until it says that it is over, and returns what it ended with.
///
/// ```text
///           +--------------------------------------------+
///           v                                            | Reconnect
///       connect ---- Reconnect ----------------------> retry_delay
///        |    |                                          ^     |
///        |    +-- Connected --> run ---- Reconnect ------+     |
///        | Exit                  | Exit                        | Exit
///        v                       v                             v
///     the loop ends with the result that came with Exit
/// ```
///
/// It makes no connection by itself, starts no task, reads no clock, and does not wait: all of
/// that is the connector's. Where the connector is a [`Connector`](crate::Connector), this future
/// is `Send`, in generic code too.
///
/// # Cancel safety
///
/// Dropping the future drops whatever it was waiting for, and the connection and the connector
/// with it. Nothing goes on behind it. [`Stopper::race`](crate::Stopper::race) does so on demand.
pub async fn run<C: LocalConnector>(mut connector: C) -> Result<(), C::Error> {
    loop {
        match connector.connect().await {
            ConnResult::Connected(connection) => {
                log(&connector, "connected");
                match connector.run(connection).await {
                    RunResult::Reconnect => log(&connector, "connection ended"),
                    RunResult::Exit(result) => return ended(&connector, result),
                }
            }
            ConnResult::Reconnect => log(&connector, "attempt failed"),
            ConnResult::Exit(result) => return ended(&connector, result),
        }
        match connector.retry_delay().await {
            RunResult::Reconnect => log(&connector, "connecting again"),
            RunResult::Exit(result) => return ended(&connector, result),
        }
    }
}

fn ended<C: LocalConnector>(connector: &C, result: Result<(), C::Error>) -> Result<(), C::Error> {
    log(connector, if result.is_ok() { "ended" } else { "ended with an error" });
    result
}

#[cfg(feature = "tracing")]
fn log<C: LocalConnector>(connector: &C, step: &'static str) {
    tracing::debug!(target: "remuda_reconnect", name = connector.name(), "{step}");
}

#[cfg(not(feature = "tracing"))]
fn log<C: LocalConnector>(_: &C, _: &'static str) {}
