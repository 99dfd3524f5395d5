//! What ends a pool before its time.

use std::io::ErrorKind;

use crate::keeper::KeeperError;

/// The pool can't start, or can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Its options don't fit together.
    #[error(transparent)]
    Config(#[from] remuda_dispatch::ConfigError),
    /// The keeper could not be started, or is gone.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The keeper was killed.
    #[error("the keeper process was killed from outside: the workers were ended with it")]
    KeeperLost,
    /// The runtime refused something.
    #[error(transparent)]
    Net(#[from] remuda_net::NetError),
    /// No worker ever became ready.
    #[error("no worker could be started in {starts} tries: {why}")]
    NoWorker {
        /// How many starts failed.
        starts: u32,
        /// What the last of them said.
        why: String,
    },
    /// A listener can't be opened.
    #[error("cannot listen at {address}: {source}{}", advice(source.kind()))]
    Listen {
        /// Where.
        address: String,
        /// Why the system refused.
        source: std::io::Error,
    },
    /// A peer that can't be a worker of this pool.
    #[error("cannot attach to {address}: {trouble}")]
    Attach {
        /// Where it is.
        address: String,
        /// What is wrong with it.
        trouble: String,
    },
    /// The pool was told to be its own worker.
    #[error(
        "cannot attach to {address}: it is this pool itself; name another peer, or leave it out"
    )]
    AttachedToItself {
        /// Where it was to attach to.
        address: String,
    },
    /// Another pool listens there.
    #[error("{address} is in use by process {pid}: stop it, or listen elsewhere with --listen")]
    InUse {
        /// Where.
        address: String,
        /// The process that listens there.
        pid: i32,
    },
    /// A listener that strangers could reach.
    #[error(
        "{0} can be reached from other machines: it must be a tls: listener with a token \
         (token_file=PATH) or with ca=PATH for its clients, unless you say --insecure"
    )]
    Unguarded(String),
    /// The directory of sockets is not this user's alone.
    #[error("{} is not a directory that only its owner may use: remove it, or set its mode to 0700", .0.display())]
    UnsafeDirectory(std::path::PathBuf),
    /// The files of a TLS listener can't be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A token can't be read.
    #[error("cannot read the token in {}: {source}", path.display())]
    Token {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No worker ever became ready, and another start would fail as this one did.
    #[error("no worker can be started: {why}")]
    Hopeless {
        /// What is known of the start that failed.
        why: String,
    },
    /// A filter's answers can't be told apart, or it ends by itself.
    #[error("{0}")]
    Filter(String),
}

/// What to do about a listener that the system refused.
fn advice(refused: ErrorKind) -> &'static str {
    match refused {
        ErrorKind::AddrInUse => ": stop who listens there, or choose another address",
        ErrorKind::AddrNotAvailable => ": choose an address that this machine has",
        ErrorKind::NotFound => ": make its directory, or choose another path",
        ErrorKind::PermissionDenied => ": choose an address that this user may open",
        _ => "",
    }
}
