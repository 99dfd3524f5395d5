//! The two traits that the loop drives: one whose futures are `Send`, and one for all others.

use crate::{ConnResult, RunResult};
use std::future::Future;

/// An operation that is retried for as long as it makes sense: connect, use the connection, wait,
/// connect again.
///
/// [`run`](crate::run) calls one method at a time, in the order that its page tells. Implement
/// them as plain `async fn`. Their futures are `Send`, so that code which is generic over the
/// connector can spawn the loop:
///
/// ```
/// use remuda_reconnect::{Connector, run};
///
/// fn keep<C: Connector + 'static>(connector: C) -> tokio::task::JoinHandle<Result<(), C::Error>> {
///     tokio::spawn(run(connector))
/// }
/// ```
///
/// A future that holds an `Rc`, or anything else that must stay on its thread, needs
/// [`LocalConnector`]. Every `Connector` is a `LocalConnector` too: import the one that you use.
pub trait Connector: Send {
    /// A connection, as `connect` hands it over to `run`.
    type ConnType: Send;
    /// What the loop can end with.
    type Error: Send;

    /// Makes one attempt. It must end: bound it in time, handshake included, or a peer that never
    /// answers holds the loop. Look the peer's name up in each attempt, since it may have moved.
    ///
    /// Of a failure, only the implementation knows whether it may pass
    /// ([`ConnResult::Reconnect`]) or never will ([`ConnResult::Exit`]): see
    /// [`Failure`](crate::Failure).
    fn connect(&mut self) -> impl Future<Output = ConnResult<Self::ConnType, Self::Error>> + Send;

    /// Uses the connection until it is of no more use, and says whether to make another.
    fn run(
        &mut self,
        connection: Self::ConnType,
    ) -> impl Future<Output = RunResult<Self::Error>> + Send;

    /// Waits before the next attempt, or ends the loop. Called after each attempt that failed and
    /// after each connection that ended with [`RunResult::Reconnect`]: a peer that accepts and
    /// closes at once must be waited for as well. [`Retry::delay`](crate::Retry::delay) is the
    /// usual body.
    ///
    /// An implementation that returns without ever having waited makes the loop spin.
    fn retry_delay(&mut self) -> impl Future<Output = RunResult<Self::Error>> + Send;

    /// What this connects to, for logs. Default: nothing.
    fn name(&self) -> Option<&str> {
        None
    }
}

/// [`Connector`] for futures that aren't `Send`: for runtimes with a thread per core, and for
/// connections that must stay on their thread.
///
/// The methods mean what they mean there.
///
/// ```
/// use remuda_reconnect::{ConnResult, LocalConnector, RunResult, run};
/// use std::{cell::RefCell, rc::Rc};
///
/// struct Feed {
///     prices: Rc<RefCell<Vec<u32>>>,
/// }
///
/// impl LocalConnector for Feed {
///     type ConnType = Rc<str>;
///     type Error = std::num::ParseIntError;
///
///     async fn connect(&mut self) -> ConnResult<Rc<str>, Self::Error> {
///         ConnResult::Connected(Rc::from("7 8 9"))
///     }
///
///     async fn run(&mut self, connection: Rc<str>) -> RunResult<Self::Error> {
///         for price in connection.split(' ') {
///             match price.parse() {
///                 Ok(price) => self.prices.borrow_mut().push(price),
///                 Err(error) => return RunResult::Exit(Err(error)),
///             }
///         }
///         RunResult::Exit(Ok(()))
///     }
///
///     async fn retry_delay(&mut self) -> RunResult<Self::Error> {
///         RunResult::Exit(Ok(()))
///     }
/// }
///
/// let prices = Rc::default();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// run(Feed { prices: Rc::clone(&prices) }).await?;
/// # Ok::<(), std::num::ParseIntError>(()) }).unwrap();
/// assert_eq!(*prices.borrow(), [7, 8, 9]);
/// ```
pub trait LocalConnector {
    /// A connection, as `connect` hands it over to `run`.
    type ConnType;
    /// What the loop can end with.
    type Error;

    /// Makes one attempt; see [`Connector::connect`].
    fn connect(&mut self) -> impl Future<Output = ConnResult<Self::ConnType, Self::Error>>;

    /// Uses the connection until it is of no more use; see [`Connector::run`].
    fn run(&mut self, connection: Self::ConnType) -> impl Future<Output = RunResult<Self::Error>>;

    /// Waits before the next attempt, or ends the loop; see [`Connector::retry_delay`].
    fn retry_delay(&mut self) -> impl Future<Output = RunResult<Self::Error>>;

    /// What this connects to, for logs. Default: nothing.
    fn name(&self) -> Option<&str> {
        None
    }
}

impl<C: Connector> LocalConnector for C {
    type ConnType = C::ConnType;
    type Error = C::Error;

    fn connect(&mut self) -> impl Future<Output = ConnResult<Self::ConnType, Self::Error>> {
        Connector::connect(self)
    }

    fn run(&mut self, connection: Self::ConnType) -> impl Future<Output = RunResult<Self::Error>> {
        Connector::run(self, connection)
    }

    fn retry_delay(&mut self) -> impl Future<Output = RunResult<Self::Error>> {
        Connector::retry_delay(self)
    }

    fn name(&self) -> Option<&str> {
        Connector::name(self)
    }
}
