//! HTTP, for people's browsers, for orchestrators and for `curl`: health, metrics, `POST /call`.
//!
//! It runs on a tokio runtime on a thread of its own. A job that came in otherwise never passes
//! here.

mod address;
mod admin;
mod call;
mod metrics;
mod patience;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use remuda_engine::{PoolError, Remote};
use tokio::sync::watch;

pub(crate) use address::HttpAddress;
use call::Calls;
pub(crate) use patience::Patience;
use server::{Behind, Door, Traffic};

/// How many connections the admin listener has open at a time; more wait to be accepted.
const ADMIN_CONNECTIONS: usize = 64;
/// How many connections, and so jobs at a time, the calling listener has; more wait to be accepted.
const CALL_CONNECTIONS: usize = 4096;

/// What is to be listened to, and who may call.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpOptions {
    /// Where health, metrics and status are.
    pub(crate) admin: Option<HttpAddress>,
    /// Where `POST /call` is.
    pub(crate) calls: Option<HttpAddress>,
    /// The token that callers must send.
    pub(crate) token: Option<String>,
    /// Other machines may come in without a token.
    pub(crate) insecure: bool,
    /// How long clients may take.
    pub(crate) patience: Patience,
}

impl HttpOptions {
    /// Looks whether other machines could come in without a token, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), HttpError> {
        if let Some(address) = &self.calls {
            address.addresses(self.insecure || self.token.is_some(), HttpError::OpenCalls)?;
        }
        if let Some(address) = &self.admin {
            address.addresses(self.insecure, HttpError::OpenAdmin)?;
        }
        Ok(())
    }
}

/// Why nothing is listened to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Listen(PoolError),
    #[error(
        "{0} can be reached from other machines, and has neither token nor TLS: listen at loopback, or say --insecure"
    )]
    OpenAdmin(String),
    #[error(
        "{0} can be reached from other machines: give it a token (--token-file), or say --insecure"
    )]
    OpenCalls(String),
    #[error("cannot start the thread of the HTTP listeners: {0}")]
    Thread(io::Error),
}

/// The listeners, and the thread that serves them.
pub(crate) struct Http {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    /// Where they listen, as it came out.
    pub(crate) addresses: Vec<String>,
    /// How many connections there may be at a time.
    pub(crate) connections: usize,
}

impl Http {
    /// Opens the listeners that `options` ask for; none if they ask for none.
    pub(crate) fn start(options: &HttpOptions, remote: Remote) -> Result<Option<Self>, HttpError> {
        let mut doors = Vec::new();
        let mut addresses = Vec::new();
        let most = remuda_engine::descriptor_limit();
        let calls = Arc::new(Traffic::new("call", CALL_CONNECTIONS.min(most / 4).max(1)));
        let admin = Arc::new(Traffic::new("admin", ADMIN_CONNECTIONS.min(most / 16).max(1)));
        if let Some(address) = &options.calls {
            let guarded = options.insecure || options.token.is_some();
            let (listener, at) = address.bind(guarded, HttpError::OpenCalls)?;
            addresses.push(written(at));
            let token = options.token.as_deref();
            let behind = Calls::new(remote.clone(), token, options.patience.body, calls.clone());
            let behind = Behind::Calls(Arc::new(behind));
            doors.push(Door { listener, behind, traffic: calls.clone() });
        }
        if let Some(address) = &options.admin {
            let (listener, at) = address.bind(options.insecure, HttpError::OpenAdmin)?;
            addresses.push(format!("{} (admin)", written(at)));
            let behind = Behind::Admin(admin::router(remote, [calls, admin.clone()]));
            doors.push(Door { listener, behind, traffic: admin });
        }
        if doors.is_empty() {
            return Ok(None);
        }
        let connections = doors.iter().map(|door| door.traffic.limit()).sum();
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(HttpError::Thread)?;
        let head_timeout = options.patience.head;
        let thread = std::thread::Builder::new()
            .name("remuda-http".into())
            .spawn(move || runtime.block_on(server::serve(doors, head_timeout, stopped)))
            .map_err(HttpError::Thread)?;
        Ok(Some(Self { stop, thread: Some(thread), addresses, connections }))
    }
}

/// Answers that are on their way go out, for `server::STOP_GRACE` at most; then the thread ends.
impl Drop for Http {
    fn drop(&mut self) {
        // A thread that has ended already needs no telling.
        let _ = self.stop.send(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the HTTP listeners ended by a panic");
        }
    }
}

fn written(at: SocketAddr) -> String {
    format!("http://{at}")
}
