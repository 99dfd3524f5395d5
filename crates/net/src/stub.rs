//! Signatures whose bodies are on their way.
#![allow(
    missing_docs,
    unused_variables,
    clippy::unimplemented,
    unreachable_pub,
    clippy::missing_safety_doc
)]
use crate::*;
use bytes::Bytes;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnToken {
    index: u32,
    generation: u32,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnCtx {
    token: ConnToken,
    local: PhantomData<Rc<()>>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseResult {
    Consumed(usize),
    NeedMore,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    Eof,
    Reset(io::ErrorKind),
    Local,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddr {
    Tcp(SocketAddr),
    Unix(Option<PathBuf>),
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
}

macro_rules! fut { ($name:ident $(<$p:ident>)?, $out:ty) => {
    pub struct $name $(<$p>)? { $( _p: PhantomData<$p>, )? _l: PhantomData<Rc<()>> }
    impl $(<$p>)? Future for $name $(<$p>)? { type Output = $out;
        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> { unimplemented!() } }
} }
fut!(WithDataFuture<F>, usize);
fut!(WithBytesFuture<F>, usize);
fut!(RecvReadyFuture, ());
fut!(SendFuture, Result<usize>);
fut!(Flushed, Result<()>);
fut!(PeerGone, ());
fut!(ConnectFuture, Result<ConnCtx>);
fut!(Sleep, ());
fut!(Readiness, Result<()>);
fut!(JoinHandle<T>, Result<T, JoinError>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("the task was aborted")]
    Aborted,
    #[error("the task panicked")]
    Panicked,
}
impl<T> JoinHandle<T> {
    pub fn abort(&self) {}
    pub fn is_finished(&self) -> bool {
        false
    }
}

impl ConnCtx {
    pub fn index(&self) -> usize {
        unimplemented!()
    }
    pub fn token(&self) -> ConnToken {
        self.token
    }
    /// At end of stream with nothing (more) to parse it resolves to 0.
    pub fn with_data<F: FnMut(&[u8]) -> ParseResult>(&self, f: F) -> WithDataFuture<F> {
        unimplemented!()
    }
    pub fn with_bytes<F: FnMut(Bytes) -> ParseResult>(&self, f: F) -> WithBytesFuture<F> {
        unimplemented!()
    }
    pub unsafe fn set_recv_sink(&self, target: *mut u8, len: usize) {}
    pub fn take_recv_sink(&self) -> usize {
        0
    }
    pub fn recv_ready(&self) -> RecvReadyFuture {
        unimplemented!()
    }
    pub fn try_with_data<F: FnOnce(&[u8]) -> ParseResult>(&self, f: F) -> Option<ParseResult> {
        unimplemented!()
    }
    pub fn send_nowait(&self, data: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn send_bytes(&self, data: Bytes) -> Result<()> {
        unimplemented!()
    }
    pub fn forward_recv_buf(&self, data: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub fn send(&self, data: &[u8]) -> Result<SendFuture> {
        unimplemented!()
    }
    /// Bytes accepted and not yet given to the kernel.
    pub fn unsent(&self) -> usize {
        0
    }
    /// Resolves when `unsent()` is at most `mark`.
    pub fn flushed(&self, mark: usize) -> Flushed {
        unimplemented!()
    }
    pub fn pause_recv(&self) {}
    pub fn resume_recv(&self) {}
    pub fn connect(&self, addr: SocketAddr) -> Result<ConnectFuture> {
        unimplemented!()
    }
    pub fn connect_with_timeout(&self, addr: SocketAddr, timeout_ms: u64) -> Result<ConnectFuture> {
        unimplemented!()
    }
    pub fn connect_unix(&self, path: impl AsRef<Path>) -> Result<ConnectFuture> {
        unimplemented!()
    }
    pub fn connect_tls(&self, addr: SocketAddr, server_name: &str) -> Result<ConnectFuture> {
        unimplemented!()
    }
    pub fn connect_tls_with_timeout(
        &self,
        addr: SocketAddr,
        server_name: &str,
        timeout_ms: u64,
    ) -> Result<ConnectFuture> {
        unimplemented!()
    }
    pub fn shutdown_write(&self) {}
    pub fn cancel(&self) -> Result<()> {
        unimplemented!()
    }
    pub fn request_shutdown(&self) {}
    pub fn close(&self) {}
    pub fn peer_addr(&self) -> Option<PeerAddr> {
        None
    }
    pub fn peer_cred(&self) -> Option<PeerCred> {
        None
    }
    pub fn is_outbound(&self) -> bool {
        false
    }
    /// Why nothing more will be received; `Local` also for a connection closed here (a stale ctx).
    pub fn closed_by(&self) -> Option<CloseReason> {
        None
    }
    /// Resolves when a Unix peer closed wholly (EPOLLHUP), or when the connection broke or was closed.
    pub fn peer_gone(&self) -> PeerGone {
        unimplemented!()
    }
}

pub struct ListenerHandle {
    _l: PhantomData<Rc<()>>,
}
impl ListenerHandle {
    /// Stops listening (the fd is closed). Dropping the handle does NOT stop it.
    pub fn close(&self) {}
}

pub fn run_local<T>(config: Config, main: impl Future<Output = T>) -> Result<T> {
    unimplemented!()
}
pub fn spawn(future: impl Future<Output = ()> + 'static) {}
pub fn spawn_with_handle<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    unimplemented!()
}
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> BlockingHandle<T> {
    unimplemented!()
}
pub fn now() -> Instant {
    unimplemented!()
}
pub fn sleep(duration: Duration) -> Sleep {
    unimplemented!()
}
pub fn sleep_until(deadline: Instant) -> Sleep {
    unimplemented!()
}
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    unimplemented!()
}
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    unimplemented!()
}
pub fn backend() -> Backend {
    unimplemented!()
}
/// Why that driver was chosen, for a status page.
pub fn backend_reason() -> String {
    unimplemented!()
}
/// When the future that `f` gives ends, the connection is closed (after what it sent went out).
pub fn listen_unix<F, Fut>(listener: UnixListener, f: F) -> Result<ListenerHandle>
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    unimplemented!()
}
pub fn listen_tcp<F, Fut>(listener: TcpListener, f: F) -> Result<ListenerHandle>
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    unimplemented!()
}
/// An adopted or connected connection lives until `close()` (no task owns it).
pub fn adopt_unix(stream: UnixStream) -> Result<ConnCtx> {
    unimplemented!()
}
pub fn adopt_tcp(stream: TcpStream) -> Result<ConnCtx> {
    unimplemented!()
}
pub fn connect(addr: SocketAddr) -> Result<ConnectFuture> {
    unimplemented!()
}
pub fn connect_with_timeout(addr: SocketAddr, timeout: Duration) -> Result<ConnectFuture> {
    unimplemented!()
}
pub fn connect_unix(path: impl AsRef<Path>) -> Result<ConnectFuture> {
    unimplemented!()
}
pub fn readable(fd: &impl AsFd) -> Readiness {
    unimplemented!()
}
pub fn writable(fd: &impl AsFd) -> Readiness {
    unimplemented!()
}
/// Resolves when the process behind the pidfd has ended (it isn't reaped here).
pub fn child_exited(pidfd: &impl AsFd) -> Readiness {
    unimplemented!()
}
pub struct Signals {
    _l: PhantomData<Rc<()>>,
}
pub fn signals(signals: &[i32]) -> Result<Signals> {
    unimplemented!()
}
impl Signals {
    pub async fn recv(&mut self) -> i32 {
        unimplemented!()
    }
}
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    unimplemented!()
}

pub trait AsyncEventHandler: 'static {
    fn create_for_worker(worker: usize) -> Self
    where
        Self: Sized;
    fn on_accept(&self, conn: ConnCtx) -> impl Future<Output = ()> + 'static;
    fn on_start(&self) -> impl Future<Output = ()> + 'static {
        async {}
    }
    fn on_tick(&self) {}
    fn on_notify(&self) {}
}
pub struct Builder(());
#[derive(Clone)]
pub struct ShutdownHandle(());
impl ShutdownHandle {
    pub fn shutdown(&self) {}
    pub fn notify(&self, worker: usize) {}
}
impl Builder {
    pub fn new(config: Config) -> Self {
        unimplemented!()
    }
    pub fn bind_tcp(self, addr: SocketAddr) -> Self {
        self
    }
    pub fn bind_unix(self, path: impl AsRef<Path>) -> Self {
        self
    }
    pub fn tcp_listener(self, listener: TcpListener) -> Self {
        self
    }
    pub fn unix_listener(self, listener: UnixListener) -> Self {
        self
    }
    pub fn launch<H: AsyncEventHandler>(
        self,
    ) -> Result<(ShutdownHandle, Vec<std::thread::JoinHandle<Result<()>>>)> {
        unimplemented!()
    }
}
