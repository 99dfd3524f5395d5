//! A simple TCP reconnector on tokio.

use crate::{ConnResult, Connector, Failure, GaveUp, LinkState, Retry, RunResult, Stopper};
use crate::{TokioSleep, Watch, random_seed};
use remuda_backoff::Backoff;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
type Resolve = Box<dyn FnMut(String) -> Resolving + Send>;

/// What a [`TcpConnector`] ends with when it doesn't end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpError {
    /// A failure that won't pass: see [`Failure::Fatal`].
    #[error("connecting to {address} failed for good: {source}; correct the address or the cause")]
    Fatal {
        /// What it connected to.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The attempts or the time that the [`Backoff`] allows are used up.
    #[error("connecting to {address}: {source}")]
    GaveUp {
        /// What it connected to.
        address: String,
        /// After how many attempts, and why the last one failed.
        source: GaveUp,
    },
    /// What the handler ended the loop with.
    #[error(transparent)]
    Handler(Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps a TCP connection to one address, and hands each to a handler.
///
/// - The address is `host:port`. Its name is looked up again in each attempt, and its addresses
///   are tried in turn, each for at most [`connect_timeout`](Self::connect_timeout).
/// - A connection that is refused, aborted or timed out, a peer that is unreachable, and a name
///   that doesn't resolve are tried again, as the [`Backoff`] says; an address without a port, a
///   lack of permission, and what is not known to pass end the loop with [`TcpError::Fatal`].
/// - What the handler returns decides what follows: `Ok` is taken as it is, and an error of its
///   connection is judged like one of connecting.
/// - A [`Stopper`] ends the loop with `Ok(())` at once, wherever it is. A handler that runs is
///   dropped at its next `await`, and its connection is closed.
///
/// ```no_run
/// use remuda_reconnect::{RunResult, run, tcpconn::TcpConnector};
/// use tokio::io::{AsyncBufReadExt, BufReader};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = TcpConnector::new("feed.example.org:7000", async |stream| {
///     let mut lines = BufReader::new(stream).lines();
///     while let Some(line) = lines.next_line().await? {
///         println!("{line}");
///     }
///     Ok(RunResult::Reconnect)
/// });
/// let watch = connector.watch();
/// let stopper = connector.stopper();
/// tokio::spawn(async move {
///     tokio::signal::ctrl_c().await.ok();
///     eprintln!("stopping, {}", watch.latest());
///     stopper.stop();
/// });
/// run(connector).await?;
/// # Ok(()) }
/// ```
#[must_use = "`run` drives it"]
pub struct TcpConnector<F> {
    address: String,
    handler: F,
    retry: Retry<TokioSleep>,
    stopper: Stopper,
    resolve: Resolve,
    connect_timeout: Duration,
    nodelay: bool,
}

impl<F, Fut> TcpConnector<F>
where
    F: FnMut(TcpStream) -> Fut + Send,
    Fut: Future<Output = io::Result<RunResult<TcpError>>> + Send,
{
    /// How long to try one address for, unless [`connect_timeout`](Self::connect_timeout) says
    /// otherwise.
    pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

    /// Connects to `address`, a `host:port`, when it is [`run`](crate::run), and hands each
    /// connection to `handler`. The delays are those of a [`Backoff`] with a random seed.
    pub fn new(address: impl Into<String>, handler: F) -> Self {
        Self {
            address: address.into(),
            handler,
            retry: Retry::new(Backoff::new(random_seed()), TokioSleep::new()),
            stopper: Stopper::new(),
            resolve: Box::new(|address| Box::pin(by_system(address))),
            connect_timeout: Self::CONNECT_TIMEOUT_DEFAULT,
            nodelay: true,
        }
    }

    /// The delays, and after how many attempts or how much time to give up. Default:
    /// [`Backoff::new`] with a random seed, which never gives up.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.retry = self.retry.with_backoff(backoff);
        self
    }

    /// How long to try one address for, and how long a look-up may take. Default: 10 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`). Default: true.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// What looks the address up, at each attempt. Default: the system's resolver. An error of
    /// kind `InvalidInput` is fatal, any other may pass.
    pub fn resolve_with<R, Res>(mut self, mut resolve: R) -> Self
    where
        R: FnMut(String) -> Res + Send + 'static,
        Res: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        self.resolve = Box::new(move |address| Box::pin(resolve(address)));
        self
    }

    /// Stops this connector.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Shows what the link does.
    pub fn watch(&self) -> Watch<LinkState> {
        self.retry.watch()
    }

    async fn attempt(&mut self) -> Result<TcpStream, Unconnected> {
        let looking_up = timeout(self.connect_timeout, (self.resolve)(self.address.clone()));
        let addresses = looking_up
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
            .map_err(Unconnected::unresolved)?;
        let mut unconnected = Unconnected::unresolved(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no addresses",
        ));
        for address in addresses {
            match connect_to(address, self.connect_timeout).await {
                Ok(stream) => {
                    stream.set_nodelay(self.nodelay).map_err(Unconnected::at)?;
                    return Ok(stream);
                }
                Err(error) => unconnected = Unconnected::at(error),
            }
        }
        Err(unconnected)
    }

    fn fatal(&self, source: io::Error) -> TcpError {
        TcpError::Fatal { address: self.address.clone(), source }
    }
}

impl<F, Fut> Connector for TcpConnector<F>
where
    F: FnMut(TcpStream) -> Fut + Send,
    Fut: Future<Output = io::Result<RunResult<TcpError>>> + Send,
{
    type ConnType = TcpStream;
    type Error = TcpError;

    async fn connect(&mut self) -> ConnResult<TcpStream, TcpError> {
        self.retry.connecting();
        match self.stopper.clone().race(self.attempt()).await {
            None => ConnResult::Exit(Ok(())),
            Some(Ok(stream)) => {
                self.retry.connected();
                ConnResult::Connected(stream)
            }
            Some(Err(Unconnected { what, error, may_pass })) => {
                self.retry.failed(format_args!("{what}: {error}"));
                if may_pass {
                    ConnResult::Reconnect
                } else {
                    ConnResult::Exit(Err(self.fatal(error)))
                }
            }
        }
    }

    async fn run(&mut self, connection: TcpStream) -> RunResult<TcpError> {
        match self.stopper.race((self.handler)(connection)).await {
            None => RunResult::Exit(Ok(())),
            Some(Ok(RunResult::Reconnect)) => {
                self.retry.failed("the connection ended");
                RunResult::Reconnect
            }
            Some(Ok(RunResult::Exit(result))) => RunResult::Exit(result),
            Some(Err(error)) => {
                self.retry.failed(format_args!("the connection ended: {error}"));
                if Failure::of(&error).may_pass() {
                    RunResult::Reconnect
                } else {
                    RunResult::Exit(Err(self.fatal(error)))
                }
            }
        }
    }

    async fn retry_delay(&mut self) -> RunResult<TcpError> {
        match self.stopper.race(self.retry.delay()).await {
            None => RunResult::Exit(Ok(())),
            Some(Ok(())) => RunResult::Reconnect,
            Some(Err(source)) => {
                RunResult::Exit(Err(TcpError::GaveUp { address: self.address.clone(), source }))
            }
        }
    }

    fn name(&self) -> Option<&str> {
        Some(&self.address)
    }
}

impl<F> fmt::Debug for TcpConnector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnector")
            .field("address", &self.address)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Why an attempt brought no connection.
struct Unconnected {
    what: &'static str,
    error: io::Error,
    may_pass: bool,
}

impl Unconnected {
    /// The name may come back, and elsewhere; a malformed address stays malformed.
    fn unresolved(error: io::Error) -> Self {
        let may_pass = error.kind() != io::ErrorKind::InvalidInput;
        Self { what: "can't look it up", error, may_pass }
    }

    fn at(error: io::Error) -> Self {
        let may_pass = Failure::of(&error).may_pass();
        Self { what: "can't connect", error, may_pass }
    }
}

async fn by_system(address: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(address).await?.collect())
}

async fn connect_to(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, format!("{address}: no answer"));
    let stream = timeout(limit, TcpStream::connect(address)).await.map_err(|_| timed_out())??;
    not_itself(stream)
}

/// On the same host, a socket can get the port it dials as its own and connect to itself. That
/// would look like a server, and keep the real one from binding its port.
fn not_itself(stream: TcpStream) -> io::Result<TcpStream> {
    let address = stream.peer_addr()?;
    if stream.local_addr()? == address {
        let itself = format!("{address}: nothing listens, and the socket reached itself");
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, itself));
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_that_reached_itself_counts_as_refused() -> io::Result<()> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        let error = not_itself(socket.connect(address).await?).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Refused);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        not_itself(TcpStream::connect(listener.local_addr()?).await?)?;
        Ok(())
    }
}
