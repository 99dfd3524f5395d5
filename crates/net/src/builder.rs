//! Worker threads that share listeners.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::cancel::CancellationToken;
use crate::combine::{Either, select};
use crate::config::Config;
use crate::conn::Kind;
use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::handshake::on_accept_tls;
use crate::notify::Notifier;
use crate::{listen, runtime, time};

/// What a program does with its connections. Each worker thread has one of its own.
pub trait AsyncEventHandler: Sized + 'static {
    /// Makes the handler of worker `worker` (0 to workers - 1), on that worker's thread.
    fn create_for_worker(worker: usize) -> Self;

    /// A connection was accepted; the future serves it. When the future is done the connection
    /// is closed, and when the connection is closed on this side the future is dropped.
    fn on_accept(&self, conn: ConnCtx) -> impl Future<Output = ()>;

    /// Runs once when the worker has started, before it accepts.
    fn on_start(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Called each `Config::tick`, if that is set.
    fn on_tick(&self) {}

    /// Called after [`ShutdownHandle::notify`]; once for several calls that came before.
    fn on_notify(&self) {}
}

enum Bind {
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Unix(PathBuf),
    TcpListener(TcpListener),
    UnixListener(UnixListener),
}

/// Builds a set of worker threads.
///
/// ```
/// use remuda_net::{AsyncEventHandler, Builder, Config, ConnCtx, ParseResult};
///
/// struct Echo;
///
/// impl AsyncEventHandler for Echo {
///     fn create_for_worker(_worker: usize) -> Self {
///         Echo
///     }
///
///     async fn on_accept(&self, conn: ConnCtx) {
///         let echo = |data: &[u8]| {
///             let _ = conn.send_nowait(data);
///             ParseResult::Consumed(data.len())
///         };
///         while conn.with_data(echo).await > 0 {}
///     }
/// }
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let builder = Builder::new(Config { workers: 1, ..Config::default() }).tcp_listener(listener);
/// let (shutdown, threads) = builder.launch::<Echo>()?;
/// shutdown.shutdown();
/// for thread in threads {
///     thread.join().expect("no worker panics")?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder {
    config: Config,
    binds: Vec<Bind>,
}

/// A listener's descriptor as each worker gets a duplicate of it.
struct Bound {
    fd: OwnedFd,
    kind: Kind,
    tls: bool,
}

/// Reaches all workers from any thread.
#[derive(Clone)]
pub struct ShutdownHandle {
    token: CancellationToken,
    bells: Arc<Vec<Notifier>>,
    addresses: Vec<SocketAddr>,
}

impl ShutdownHandle {
    /// The TCP addresses that are listened on, in the order in which they were given: with the
    /// port that the kernel chose where port 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Asks all workers to stop. They close their connections when what those accepted for
    /// sending has gone out, or `Config::close_linger` is over.
    pub fn shutdown(&self) {
        self.token.cancel();
    }

    /// Has every worker call [`AsyncEventHandler::on_notify`].
    pub fn notify(&self) {
        self.bells.iter().for_each(Notifier::notify);
    }

    /// Has one worker call it; a number that no worker has does nothing.
    pub fn notify_worker(&self, worker: usize) {
        if let Some(bell) = self.bells.get(worker) {
            bell.notify();
        }
    }
}

impl Builder {
    /// Begins with a configuration, which is checked by [`launch`](Self::launch).
    pub fn new(config: Config) -> Self {
        Self { config, binds: Vec::new() }
    }

    /// Listens on a TCP address. The workers share it by `SO_REUSEPORT`, if there are several.
    pub fn bind_tcp(mut self, addr: SocketAddr) -> Self {
        self.binds.push(Bind::Tcp(addr));
        self
    }

    /// As [`bind_tcp`](Self::bind_tcp), with TLS by `Config::tls_server`.
    pub fn bind_tls(mut self, addr: SocketAddr) -> Self {
        self.binds.push(Bind::Tls(addr));
        self
    }

    /// Listens on a Unix socket. The path must be free; the file is not removed at the end.
    pub fn bind_unix(mut self, path: impl AsRef<Path>) -> Self {
        self.binds.push(Bind::Unix(path.as_ref().to_path_buf()));
        self
    }

    /// Listens on a socket that is bound already. All workers accept from it.
    pub fn tcp_listener(mut self, listener: TcpListener) -> Self {
        self.binds.push(Bind::TcpListener(listener));
        self
    }

    /// As [`tcp_listener`](Self::tcp_listener), for a Unix socket.
    pub fn unix_listener(mut self, listener: UnixListener) -> Self {
        self.binds.push(Bind::UnixListener(listener));
        self
    }

    /// Binds, and starts the worker threads. Each ends with an error if its runtime can't be set
    /// up, and all others are stopped then.
    ///
    /// # Errors
    /// If the configuration is out of range, an address can't be bound, or a thread not started.
    pub fn launch<H: AsyncEventHandler>(
        self,
    ) -> Result<(ShutdownHandle, Vec<JoinHandle<Result<()>>>)> {
        self.config.validate()?;
        let workers = self.config.workers;
        let bells = (0..workers).map(|_| Notifier::new()).collect();
        let mut handle = ShutdownHandle {
            token: CancellationToken::new(),
            bells: Arc::new(bells),
            addresses: Vec::new(),
        };
        let mut bound: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
        for bind in &self.binds {
            self.bind_for_all(bind, &mut bound, &mut handle.addresses)?;
        }
        let mut threads = Vec::with_capacity(workers);
        for (worker, listeners) in bound.into_iter().enumerate() {
            let (config, handle_of_worker) = (self.config.clone(), handle.clone());
            let thread = std::thread::Builder::new().name(format!("remuda-net-{worker}"));
            let run = move || run_worker::<H>(worker, config, listeners, &handle_of_worker);
            match thread.spawn(run) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    handle.shutdown();
                    return Err(NetError::Io { what: "starting a worker thread", source });
                }
            }
        }
        Ok((handle, threads))
    }

    /// Gives each worker its descriptor for one address: a socket of its own for TCP, so that
    /// the kernel spreads connections; duplicates of one for the rest.
    fn bind_for_all(
        &self,
        bind: &Bind,
        bound: &mut [Vec<Bound>],
        addresses: &mut Vec<SocketAddr>,
    ) -> Result<()> {
        match bind {
            Bind::Tls(_) if self.config.tls_server.is_none() => Err(NetError::Tls(
                "no server configuration: set Config::tls_server, or use bind_tcp".into(),
            )),
            Bind::Tcp(addr) | Bind::Tls(addr) => {
                let tls = matches!(bind, Bind::Tls(_));
                let mut addr = *addr;
                for (index, worker) in bound.iter_mut().enumerate() {
                    let listener = self.bind_tcp_socket(addr)?;
                    addr = listener.local_addr().map_err(NetError::io("asking for a port"))?;
                    if index == 0 {
                        addresses.push(addr);
                    }
                    worker.push(Bound { fd: listen::tcp_fd(listener)?, kind: Kind::Tcp, tls });
                }
                Ok(())
            }
            Bind::Unix(path) => share(bound, Kind::Unix, &self.bind_unix_socket(path)?),
            Bind::TcpListener(listener) => {
                addresses.extend(listener.local_addr());
                share(bound, Kind::Tcp, &listen::tcp_fd(clone(listener.try_clone())?)?)
            }
            Bind::UnixListener(listener) => {
                share(bound, Kind::Unix, &listen::unix_fd(clone(listener.try_clone())?)?)
            }
        }
    }

    fn bind_tcp_socket(&self, addr: SocketAddr) -> Result<TcpListener> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if self.config.workers > 1 {
                socket.set_reuse_port(true)?;
            }
            socket.bind(&SockAddr::from(addr))?;
            socket.listen(self.config.backlog as i32)?;
            Ok(socket.into())
        };
        bind().map_err(NetError::io("binding a TCP address"))
    }

    fn bind_unix_socket(&self, path: &Path) -> Result<OwnedFd> {
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(path)?)?;
            socket.listen(self.config.backlog as i32)?;
            Ok(socket.into())
        };
        bind().map_err(NetError::io("binding a Unix socket's path"))
    }
}

fn clone<T>(cloned: std::io::Result<T>) -> Result<T> {
    cloned.map_err(NetError::io("duplicating a listener"))
}

fn share(bound: &mut [Vec<Bound>], kind: Kind, fd: &OwnedFd) -> Result<()> {
    for worker in bound {
        worker.push(Bound { fd: clone(fd.try_clone())?, kind, tls: false });
    }
    Ok(())
}

fn run_worker<H: AsyncEventHandler>(
    worker: usize,
    config: Config,
    listeners: Vec<Bound>,
    handle: &ShutdownHandle,
) -> Result<()> {
    if config.pin {
        pin_to_core(worker);
    }
    let serving = serve::<H>(worker, listeners, handle, config.clone());
    let outcome = runtime::run_local(config, serving);
    // Whatever ended this worker ends the others: a part of a server is none.
    handle.shutdown();
    outcome.and_then(|served| served)
}

async fn serve<H: AsyncEventHandler>(
    worker: usize,
    listeners: Vec<Bound>,
    handle: &ShutdownHandle,
    config: Config,
) -> Result<()> {
    let handler = Rc::new(H::create_for_worker(worker));
    let shutdown = runtime::must(|core| core.shutdown().clone());
    let stop = async {
        select(handle.token.cancelled(), shutdown.cancelled()).await;
    };
    if let Either::Second(()) = select(handler.on_start(), stop).await {
        return Ok(());
    }
    for Bound { fd, kind, tls } in listeners {
        let of_conn = Rc::clone(&handler);
        let serve = move |conn| {
            let handler = Rc::clone(&of_conn);
            async move { handler.on_accept(conn).await }
        };
        let on_accept = match config.tls_server.clone().filter(|_| tls) {
            Some(server) => on_accept_tls(server, config.tls_handshake_timeout, serve),
            None => listen::on_accept(serve),
        };
        listen::listen(fd, kind, on_accept, true)?;
    }
    if let Some(period) = config.tick {
        runtime::spawn(tick_for_ever(Rc::clone(&handler), period));
    }
    if let Some(bell) = handle.bells.get(worker).cloned() {
        let handler = Rc::clone(&handler);
        runtime::spawn(async move {
            loop {
                bell.notified().await;
                handler.on_notify();
            }
        });
    }
    select(handle.token.cancelled(), shutdown.cancelled()).await;
    Ok(())
}

async fn tick_for_ever<H: AsyncEventHandler>(handler: Rc<H>, period: Duration) {
    let mut next = runtime::now() + period;
    loop {
        time::sleep_until(next).await;
        handler.on_tick();
        // Ticks that were missed are not made up for.
        next = (next + period).max(runtime::now());
    }
}

/// Pins the calling thread to the `worker`th of the cores that it may use.
fn pin_to_core(worker: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let Some(core) = worker.checked_rem(cores.len()).and_then(|nth| cores.get(nth)) else { return };
    let mut only = CpuSet::new();
    only.set(*core);
    if sched_setaffinity(None, &only).is_err() {
        tracing::debug!(worker, core, "could not pin the worker; it runs anywhere");
    }
}
