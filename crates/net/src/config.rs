//! The runtime's options: each with its unit, its default and its checked range.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::blocking::{BlockingExecutor, SmallPool};
use crate::error::{NetError, Result};

/// The environment variable that forces a driver: `io_uring`, `mio` or `auto`.
/// It takes precedence over [`Config::backend`].
pub const BACKEND_ENV: &str = "REMUDA_NET_BACKEND";

/// Which driver does the input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// io_uring where everything it needs works, else mio. The default.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// mio (epoll on Linux).
    Mio,
}

impl Backend {
    /// The name that [`BACKEND_ENV`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Mio => "mio",
        }
    }

    /// What `REMUDA_NET_BACKEND` says, if it is set and not empty.
    ///
    /// # Errors
    /// If it holds anything else than `io_uring`, `mio` or `auto`.
    pub fn from_env() -> Result<Option<Self>> {
        let Some(value) = std::env::var_os(BACKEND_ENV).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some("io_uring") => Ok(Some(Self::IoUring)),
            Some("mio") => Ok(Some(Self::Mio)),
            Some("auto") => Ok(Some(Self::Auto)),
            _ => Err(NetError::Backend {
                backend: value.to_string_lossy().into_owned(),
                reason: format!("{BACKEND_ENV} takes io_uring, mio or auto"),
            }),
        }
    }
}

/// The runtime's options. Every limit is per worker thread.
///
/// ```
/// use remuda_net::{Backend, Config};
/// let config = Config { backend: Backend::Mio, max_connections: 100, ..Config::default() };
/// config.validate()?;
/// # Ok::<(), remuda_net::NetError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    /// Which driver. Default [`Backend::Auto`]; `REMUDA_NET_BACKEND` overrides it.
    pub backend: Backend,
    /// Worker threads that [`Builder::launch`](crate::Builder::launch) starts.
    /// Default: the number of cores. 1 to 1,024.
    pub workers: usize,
    /// Whether worker N is pinned to the Nth core that the process may use. Default true.
    pub pin: bool,
    /// Connections at a time; further ones are accepted and closed at once.
    /// Default 65,536. 1 to 1,048,576.
    pub max_connections: usize,
    /// Connections that the kernel may queue for a listener made by
    /// [`Builder`](crate::Builder). Default 1,024. 1 to 65,535.
    pub backlog: u32,
    /// Bytes that one read may bring, and the size of an idle buffer that is kept for reuse.
    /// An idle connection holds none. Default 64 KiB. 1 KiB to 16 MiB.
    pub recv_buffer_bytes: usize,
    /// Bytes received and not consumed at which a connection for which no task waits is
    /// not read any more. A task that waits for the rest of a message is given it, however
    /// long: the bound on a message's length is the parser's. Default 1 MiB. 1 KiB to 1 GiB.
    pub recv_limit: usize,
    /// Bytes that one connection may have accepted for sending and not yet given to the
    /// kernel. Default 64 MiB. 1 KiB to 4 GiB.
    pub send_limit: usize,
    /// Bytes of one piece of the pool for copied sends. Small sends of one turn are put
    /// together in one piece. Default 16 KiB. 512 to 1 MiB.
    pub send_slab_bytes: usize,
    /// Bytes of all pieces of the pool for copied sends, in use at one time.
    /// Default 1 GiB. At least `send_slab_bytes`, at most 1 TiB.
    pub send_pool_bytes: usize,
    /// How long a closed connection's unsent bytes are still tried. Default 5 s. 0 to 1 h.
    pub close_linger: Duration,
    /// How long accepting pauses when the process is out of descriptors, unless a
    /// connection is closed earlier. Default 100 ms. 1 ms to 1 min.
    pub accept_pause: Duration,
    /// Time between two calls of [`AsyncEventHandler::on_tick`](crate::AsyncEventHandler::on_tick).
    /// Default none: it is not called. 1 ms to 1 day.
    pub tick: Option<Duration>,
    /// How long a TLS handshake may take. Default 10 s. 1 ms to 1 h.
    pub tls_handshake_timeout: Duration,
    /// The server's side of TLS, for listeners bound with TLS. Default none.
    pub tls_server: Option<Arc<rustls::ServerConfig>>,
    /// The client's side of TLS, for `connect_tls`. Default none.
    pub tls_client: Option<Arc<rustls::ClientConfig>>,
    /// Entries of io_uring's submission queue. Default 256. 8 to 32,768, rounded up to a
    /// power of two.
    pub uring_entries: u32,
    /// Buffers that io_uring receives into. Default 128. 2 to 32,768, a power of two. Their
    /// memory is taken as it is first used.
    pub uring_buffers: u16,
    /// Bytes of each of them. Default 64 KiB. 1 KiB to 1 MiB.
    pub uring_buffer_bytes: u32,
    /// How long a thread that has nothing to do looks for events before it sleeps. It does so
    /// only while events mostly come within that time, where it has more than one processor,
    /// and while nobody else needs the one that it runs on. A wake-up costs several
    /// microseconds on both sides; looking costs the processor. Default 0: it sleeps at once.
    /// At most 1 s.
    pub spin: Duration,
    /// Runs what [`spawn_blocking`](crate::spawn_blocking) is given. Default: a pool of at
    /// most four threads that end when they were idle for ten seconds.
    pub blocking: Arc<dyn BlockingExecutor>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            pin: true,
            max_connections: 65_536,
            backlog: 1_024,
            recv_buffer_bytes: 64 << 10,
            recv_limit: 1 << 20,
            send_limit: 64 << 20,
            send_slab_bytes: 16 << 10,
            send_pool_bytes: 1 << 30,
            close_linger: Duration::from_secs(5),
            accept_pause: Duration::from_millis(100),
            tick: None,
            tls_handshake_timeout: Duration::from_secs(10),
            tls_server: None,
            tls_client: None,
            uring_entries: 256,
            uring_buffers: 128,
            uring_buffer_bytes: 64 << 10,
            spin: Duration::ZERO,
            blocking: Arc::new(SmallPool::default()),
        }
    }
}

impl Config {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`NetError::Config`] with the first field that is outside.
    pub fn validate(&self) -> Result<()> {
        const MS: Duration = Duration::from_millis(1);
        const HOUR: Duration = Duration::from_secs(3_600);
        within("workers", self.workers, 1, 1_024)?;
        within("max_connections", self.max_connections, 1, 1 << 20)?;
        within("backlog", self.backlog, 1, 65_535)?;
        within("recv_buffer_bytes", self.recv_buffer_bytes, 1 << 10, 16 << 20)?;
        within("recv_limit", self.recv_limit, 1 << 10, 1 << 30)?;
        within("send_limit", self.send_limit, 1 << 10, 4 << 30)?;
        within("send_slab_bytes", self.send_slab_bytes, 512, 1 << 20)?;
        within("send_pool_bytes", self.send_pool_bytes, self.send_slab_bytes, 1 << 40)?;
        within("close_linger", Span(self.close_linger), Span(Duration::ZERO), Span(HOUR))?;
        within("accept_pause", Span(self.accept_pause), Span(MS), Span(60_000 * MS))?;
        if let Some(tick) = self.tick {
            within("tick", Span(tick), Span(MS), Span(24 * HOUR))?;
        }
        let handshake = Span(self.tls_handshake_timeout);
        within("tls_handshake_timeout", handshake, Span(MS), Span(HOUR))?;
        within("spin", Span(self.spin), Span(Duration::ZERO), Span(1_000 * MS))?;
        within("uring_entries", self.uring_entries, 8, 32_768)?;
        within("uring_buffers", self.uring_buffers, 2, 32_768)?;
        if !self.uring_buffers.is_power_of_two() {
            return Err(NetError::Config {
                field: "uring_buffers",
                value: self.uring_buffers.to_string(),
                range: "a power of two".into(),
            });
        }
        within("uring_buffer_bytes", self.uring_buffer_bytes, 1 << 10, 1 << 20)
    }
}

/// A duration that compares and prints as one.
#[derive(PartialEq, PartialOrd, Clone, Copy)]
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn within<T: PartialOrd + fmt::Display + Copy>(
    field: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<()> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(NetError::Config {
        field,
        value: value.to_string(),
        range: format!("at least {least} and at most {most}"),
    })
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("backend", &self.backend)
            .field("workers", &self.workers)
            .field("max_connections", &self.max_connections)
            .field("recv_limit", &self.recv_limit)
            .field("send_limit", &self.send_limit)
            .field("send_pool_bytes", &self.send_pool_bytes)
            .field("tls_server", &self.tls_server.is_some())
            .field("tls_client", &self.tls_client.is_some())
            .finish_non_exhaustive()
    }
}
