//! Connections that this side makes, and sockets that are connected already.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustls::ClientConfig;

use crate::conn::{Conn, Kind, Phase};
use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::handshake::{client_session, client_session_with, poll_handshake};
use crate::sleeper::Sleeper;
use crate::slots::Key;
use crate::time::{Sleep, sleep};
use crate::tls::Tls;
use crate::{io as conn_io, peer, runtime};

/// How long a connect to a Unix socket whose queue is full waits before it tries again: the
/// kernel tells nobody when there is room.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug, Clone)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Tcp(addr) => addr.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }
}

/// Resolves to the connection, or to why there is none. Dropping it abandons the attempt.
#[must_use = "the attempt is abandoned if this is dropped"]
pub struct ConnectFuture {
    target: Target,
    step: Step,
    deadline: Option<Sleep>,
    /// The connection with which it was begun, whose `cancel` ends it: its name, and how often
    /// it had been cancelled.
    parent: Option<(Key, u32)>,
    /// The session to be put on it once it is connected, and how long its handshake may take.
    session: Option<(Box<Tls>, Duration)>,
    local: PhantomData<Rc<()>>,
}

enum Step {
    Waiting(Key),
    Handshake(Key, Sleep),
    /// The Unix listener's queue was full.
    Again(Sleep),
    Done,
}

impl ConnectFuture {
    fn start(target: Target, timeout: Option<Duration>) -> Result<Self> {
        let step = begin(&target)?;
        let deadline = timeout.map(sleep);
        Ok(Self { target, step, deadline, parent: None, session: None, local: PhantomData })
    }

    fn fail(&mut self, source: io::Error) -> NetError {
        self.abandon();
        NetError::Connect { to: self.target.name(), source }
    }

    fn abandon(&mut self) {
        if let Step::Waiting(key) | Step::Handshake(key, _) =
            std::mem::replace(&mut self.step, Step::Done)
        {
            runtime::with_io(|state, driver| conn_io::close(state, driver, key, true));
        }
    }

    fn is_cancelled(&self, cx: &mut Context<'_>) -> bool {
        let Some((key, cancels)) = self.parent else { return false };
        let cancelled = runtime::with_io(|state, _| {
            let Some(conn) = state.live(key) else { return true };
            if conn.cancels != cancels {
                return true;
            }
            conn.note_event_waiter(cx.waker());
            false
        });
        cancelled.unwrap_or(true)
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<ConnCtx>> {
        loop {
            match &mut self.step {
                Step::Waiting(key) => {
                    let key = *key;
                    match poll_connected(key, cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => {
                            let Some((tls, limit)) = self.session.take() else {
                                self.step = Step::Done;
                                return Poll::Ready(Ok(ConnCtx::new(key)));
                            };
                            runtime::with_io(|state, _| state.start_tls(key, tls));
                            self.step = Step::Handshake(key, sleep(limit));
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(self.fail(error))),
                    }
                }
                Step::Handshake(key, limit) => {
                    let key = *key;
                    let shaken = match poll_handshake(key, cx) {
                        Poll::Ready(shaken) => shaken,
                        Poll::Pending if Pin::new(limit).poll(cx).is_pending() => {
                            return Poll::Pending;
                        }
                        Poll::Pending => Err(NetError::ConnectTimedOut { to: self.target.name() }),
                    };
                    if shaken.is_ok() {
                        self.step = Step::Done;
                    } else {
                        // Not abandoned: the alert that says why still goes out.
                        ConnCtx::new(key).close();
                    }
                    return Poll::Ready(shaken.map(|()| ConnCtx::new(key)));
                }
                Step::Again(pause) => {
                    if Pin::new(pause).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    match begin(&self.target) {
                        Ok(step) => self.step = step,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                Step::Done => return Poll::Ready(Err(NetError::Closed)),
            }
        }
    }
}

impl Future for ConnectFuture {
    type Output = Result<ConnCtx>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(outcome) = this.poll_step(cx) {
            return Poll::Ready(outcome);
        }
        if this.is_cancelled(cx) {
            this.abandon();
            return Poll::Ready(Err(NetError::Cancelled));
        }
        if let Some(deadline) = &mut this.deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            this.abandon();
            return Poll::Ready(Err(NetError::ConnectTimedOut { to: this.target.name() }));
        }
        Poll::Pending
    }
}

impl Drop for ConnectFuture {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn poll_connected(key: Key, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let polled = runtime::with_io(|state, _| {
        let Some(conn) = state.live(key) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let rare = conn.rare();
        if let Some(result) = rare.connect_result.take() {
            return Poll::Ready(result);
        }
        rare.connect_waker = Some(Sleeper::of(cx.waker()));
        Poll::Pending
    });
    polled.unwrap_or(Poll::Ready(Err(io::ErrorKind::NotConnected.into())))
}

/// Makes a socket and begins to connect it. A refusal is noted in the connection, so that
/// the future gives it.
fn begin(target: &Target) -> Result<Step> {
    let (kind, family) = match target {
        Target::Tcp(SocketAddr::V4(_)) => (Kind::Tcp, AddressFamily::INET),
        Target::Tcp(SocketAddr::V6(_)) => (Kind::Tcp, AddressFamily::INET6),
        Target::Unix(_) => (Kind::Unix, AddressFamily::UNIX),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::STREAM, flags, None)
        .map_err(NetError::sys("making a socket"))?;
    if kind == Kind::Tcp {
        peer::set_tcp_options(&fd);
    }
    let outcome = match target {
        Target::Tcp(addr) => rustix::net::connect(&fd, addr),
        Target::Unix(path) => {
            let name = SocketAddrUnix::new(path.as_path())
                .map_err(NetError::sys("naming a Unix socket: its path is too long"))?;
            rustix::net::connect(&fd, &name)
        }
    };
    let result = match outcome {
        Ok(()) => Some(Ok(())),
        Err(Errno::INPROGRESS | Errno::INTR) => None,
        Err(Errno::AGAIN) if kind == Kind::Unix => return Ok(Step::Again(sleep(QUEUE_FULL_PAUSE))),
        Err(errno) => Some(Err(errno.into())),
    };
    let phase = if matches!(result, Some(Ok(()))) { Phase::Open } else { Phase::Connecting };
    let refused = matches!(result, Some(Err(_)));
    let mut conn = Conn::new(fd, kind, true, phase);
    conn.driver.nonblocking = true;
    conn.rare().connect_result = result;
    admit(conn, !refused).map(Step::Waiting)
}

fn admit(conn: Conn, register: bool) -> Result<Key> {
    let admitted = runtime::with_io(|state, driver| {
        let limit = state.limits.connections;
        let key = state.admit(conn).ok_or(NetError::TooManyConnections { limit })?;
        if register && let Err(error) = driver.open(state, key) {
            state.forget(key);
            return Err(error);
        }
        Ok(key)
    });
    admitted.unwrap_or(Err(NetError::NoRuntime))
}

/// Begins a TCP connection. It lives until it is closed.
///
/// # Errors
/// If no socket can be made, `max_connections` is reached, or no runtime runs on this thread.
/// A refusal is the future's error.
pub fn connect(addr: SocketAddr) -> Result<ConnectFuture> {
    ConnectFuture::start(Target::Tcp(addr), None)
}

/// As [`connect`], and gives up after a time.
///
/// # Errors
/// As `connect`; [`NetError::ConnectTimedOut`] is the future's error.
pub fn connect_with_timeout(addr: SocketAddr, timeout: Duration) -> Result<ConnectFuture> {
    ConnectFuture::start(Target::Tcp(addr), Some(timeout))
}

/// Begins a connection to a Unix socket. It lives until it is closed. While the listener's
/// queue is full it tries again each millisecond.
///
/// # Errors
/// As [`connect`]; also if the path is longer than a socket's name may be (107 bytes).
pub fn connect_unix(path: impl AsRef<Path>) -> Result<ConnectFuture> {
    ConnectFuture::start(Target::Unix(path.as_ref().to_path_buf()), None)
}

/// Begins a TLS connection, as [`ConnCtx::connect_tls`]. `timeout` is for connecting and
/// handshake together.
///
/// # Errors
/// As `ConnCtx::connect_tls`.
pub fn connect_tls(
    addr: SocketAddr,
    server_name: &str,
    timeout: Option<Duration>,
) -> Result<ConnectFuture> {
    let session = client_session(server_name)?;
    let mut future = ConnectFuture::start(Target::Tcp(addr), timeout)?;
    future.session = Some(session);
    Ok(future)
}

/// As [`connect_tls`], with a configuration of its own instead of the runtime's.
///
/// # Errors
/// As `connect_tls`.
pub fn connect_tls_with(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
    server_name: &str,
    timeout: Option<Duration>,
) -> Result<ConnectFuture> {
    let session = client_session_with(config, server_name)?;
    let mut future = ConnectFuture::start(Target::Tcp(addr), timeout)?;
    future.session = Some(session);
    Ok(future)
}

fn adopt(fd: OwnedFd, kind: Kind) -> Result<ConnCtx> {
    let mut conn = Conn::new(fd, kind, false, Phase::Open);
    conn.driver.nonblocking = true;
    admit(conn, true).map(ConnCtx::new)
}

/// Makes a connected Unix stream a connection. It lives until it is closed.
///
/// # Errors
/// If it can't be registered, or as [`connect`].
pub fn adopt_unix(stream: UnixStream) -> Result<ConnCtx> {
    stream.set_nonblocking(true).map_err(NetError::io("setting a socket non-blocking"))?;
    adopt(stream.into(), Kind::Unix)
}

/// Makes a connected TCP stream a connection. It lives until it is closed.
///
/// # Errors
/// As [`adopt_unix`].
pub fn adopt_tcp(stream: TcpStream) -> Result<ConnCtx> {
    stream.set_nonblocking(true).map_err(NetError::io("setting a socket non-blocking"))?;
    peer::set_tcp_options(&stream);
    adopt(stream.into(), Kind::Tcp)
}

impl ConnCtx {
    fn begin(&self, target: Target, timeout: Option<Duration>) -> Result<ConnectFuture> {
        let cancels = self.conn(|conn| conn.cancels).ok_or(NetError::Closed)?;
        let mut future = ConnectFuture::start(target, timeout)?;
        future.parent = Some((self.key, cancels));
        Ok(future)
    }

    /// Begins a TCP connection; this one's [`cancel`](Self::cancel) or close ends the attempt.
    ///
    /// # Errors
    /// As the free function [`connect`]; [`NetError::Closed`] if this connection is closed.
    pub fn connect(&self, addr: SocketAddr) -> Result<ConnectFuture> {
        self.begin(Target::Tcp(addr), None)
    }

    /// As [`connect`](Self::connect), and gives up after so many milliseconds.
    ///
    /// # Errors
    /// As `connect`.
    pub fn connect_with_timeout(&self, addr: SocketAddr, timeout_ms: u64) -> Result<ConnectFuture> {
        self.begin(Target::Tcp(addr), Some(Duration::from_millis(timeout_ms)))
    }

    pub(crate) fn begin_tls(
        &self,
        addr: SocketAddr,
        server_name: &str,
        timeout: Option<Duration>,
    ) -> Result<ConnectFuture> {
        let session = client_session(server_name)?;
        let mut future = self.begin(Target::Tcp(addr), timeout)?;
        future.session = Some(session);
        Ok(future)
    }

    /// Begins a connection to a Unix socket, as [`connect`](Self::connect).
    ///
    /// # Errors
    /// As `connect`.
    pub fn connect_unix(&self, path: impl AsRef<Path>) -> Result<ConnectFuture> {
        self.begin(Target::Unix(path.as_ref().to_path_buf()), None)
    }
}
