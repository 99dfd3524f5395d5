//! What can go wrong, each with what to do about it.

use std::io;

/// The result of an operation of this crate.
pub type Result<T, E = NetError> = std::result::Result<T, E>;

/// Why an operation of the runtime failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// A field of [`Config`](crate::Config) is outside its range.
    #[error("the runtime's configuration: {field} is {value}, and must be {range}")]
    Config {
        /// The field's name.
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        range: String,
    },
    /// A driver was asked for by name and cannot run here.
    #[error(
        "the {backend} driver cannot run here: {reason}; use the automatic choice or the other"
    )]
    Backend {
        /// The driver's name, or what the environment variable held.
        backend: String,
        /// What the kernel said.
        reason: String,
    },
    /// The worker's pool of memory for copied sends is in use up to its limit.
    #[error(
        "the pool for copied sends is exhausted ({limit} bytes); wait with flushed() or raise send_pool_bytes"
    )]
    SendPoolExhausted {
        /// `Config::send_pool_bytes`.
        limit: usize,
    },
    /// The connection holds as many unsent bytes as one connection may.
    #[error(
        "the connection has {unsent} unsent bytes and may have {limit}; wait with flushed() or raise send_limit"
    )]
    SendLimit {
        /// Bytes accepted and not yet given to the kernel.
        unsent: usize,
        /// `Config::send_limit`.
        limit: usize,
    },
    /// The connection was closed, or its slot belongs to another connection by now.
    #[error("the connection is closed")]
    Closed,
    /// The operation was cancelled by [`ConnCtx::cancel`](crate::ConnCtx::cancel), or the runtime ended.
    #[error("the operation was cancelled")]
    Cancelled,
    /// The peer reset the connection, or went away.
    #[error("the peer is gone ({0})")]
    PeerGone(io::ErrorKind),
    /// [`forward_both`](crate::forward_both) has the connection, and sends on it what comes.
    #[error("the connection is being forwarded to; send on it before or after")]
    Forwarding,
    /// Connecting did not finish in the time given to it.
    #[error("connecting to {to} did not finish in time")]
    ConnectTimedOut {
        /// The address or path.
        to: String,
    },
    /// Connecting failed.
    #[error("could not connect to {to}: {source}")]
    Connect {
        /// The address or path.
        to: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The worker holds `max_connections` already.
    #[error(
        "the runtime holds {limit} connections, which is max_connections; close some or raise it"
    )]
    TooManyConnections {
        /// `Config::max_connections`.
        limit: usize,
    },
    /// TLS was asked for and cannot be done.
    #[error("TLS: {0}")]
    Tls(String),
    /// A function of the runtime was called on a thread that runs none.
    #[error(
        "no runtime runs on this thread; call this within run_local or a worker of Builder::launch"
    )]
    NoRuntime,
    /// A name could not be resolved.
    #[error("could not resolve {name}: {source}")]
    Resolve {
        /// The name that was asked for.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The executor for blocking work refused the job or lost it.
    #[error(
        "the executor for blocking work did not run the job: it is full, stopped, or the job panicked"
    )]
    Blocking,
    /// A call to the kernel failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NetError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(crate) fn sys(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { what, source: errno.into() }
    }

    /// The nearest kind of `std::io`'s.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Config { .. } => io::ErrorKind::InvalidInput,
            Self::Backend { .. } => io::ErrorKind::Unsupported,
            Self::SendPoolExhausted { .. } | Self::TooManyConnections { .. } => {
                io::ErrorKind::OutOfMemory
            }
            Self::SendLimit { .. } => io::ErrorKind::WouldBlock,
            Self::Forwarding => io::ErrorKind::ResourceBusy,
            Self::Closed => io::ErrorKind::NotConnected,
            Self::Cancelled => io::ErrorKind::Interrupted,
            Self::PeerGone(kind) => *kind,
            Self::ConnectTimedOut { .. } => io::ErrorKind::TimedOut,
            Self::Connect { source, .. }
            | Self::Io { source, .. }
            | Self::Resolve { source, .. } => source.kind(),
            Self::Tls(_) => io::ErrorKind::InvalidData,
            Self::NoRuntime | Self::Blocking => io::ErrorKind::Other,
        }
    }
}

impl From<NetError> for io::Error {
    fn from(error: NetError) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// The time given to [`timeout`](crate::timeout) is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;
