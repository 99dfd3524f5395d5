//! TLS handshakes: waiting for them, on accepted connections and on those that are made.

use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};

use crate::conn::Kind;
use crate::ctx::ConnCtx;
use crate::error::{NetError, Result};
use crate::listen::{ListenerHandle, listen, on_accept, tcp_fd};
use crate::runtime;
use crate::slots::Key;
use crate::state::OnAccept;
use crate::time::timeout;
use crate::tls::{Tls, TlsInfo};

/// Ready when the handshake is done, or will never be.
pub(crate) fn poll_handshake(key: Key, cx: &mut Context<'_>) -> Poll<Result<()>> {
    let polled = runtime::with_io(|state, _| {
        let Some(conn) = state.live(key) else { return Poll::Ready(Err(NetError::Closed)) };
        let Some(tls) = conn.tls() else {
            return Poll::Ready(Err(NetError::Tls("the connection has no session".into())));
        };
        if let Some(error) = &tls.error {
            return Poll::Ready(Err(NetError::Tls(error.clone())));
        }
        if !tls.is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        if conn.recv_end.is_some() {
            let why = "the peer ended the connection during the handshake";
            return Poll::Ready(Err(NetError::Tls(why.into())));
        }
        conn.note_event_waiter(cx.waker());
        Poll::Pending
    });
    polled.unwrap_or(Poll::Ready(Err(NetError::NoRuntime)))
}

/// Serves accepted connections after their handshake, if that is done in time.
pub(crate) fn on_accept_tls<F, Fut>(config: Arc<ServerConfig>, limit: Duration, f: F) -> OnAccept
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let f = Rc::new(f);
    on_accept(move |conn: ConnCtx| {
        let (config, f) = (Arc::clone(&config), Rc::clone(&f));
        async move {
            let started = Tls::server(&config)
                .map(|tls| runtime::with_io(|state, _| state.start_tls(conn.key, tls)));
            let key = conn.key;
            let shaken = match started {
                Ok(_) => timeout(limit, poll_fn(|cx| poll_handshake(key, cx))).await,
                Err(error) => Ok(Err(error)),
            };
            match shaken {
                Ok(Ok(())) => f(conn).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    })
}

/// As [`listen_tcp`](crate::listen_tcp), with TLS: `f` gets connections whose handshake is done.
/// One that fails, or takes longer than `Config::tls_handshake_timeout`, is closed.
///
/// # Errors
/// As `listen_tcp`.
pub fn listen_tls<F, Fut>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    f: F,
) -> Result<ListenerHandle>
where
    F: Fn(ConnCtx) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let limit = runtime::with(|core| core.config().tls_handshake_timeout);
    let limit = limit.ok_or(NetError::NoRuntime)?;
    listen(tcp_fd(listener)?, Kind::Tcp, on_accept_tls(config, limit, f), false)
}

/// The client's session for `server_name`, and how long its handshake may take.
pub(crate) fn client_session(server_name: &str) -> Result<(Box<Tls>, Duration)> {
    let config = runtime::with(|core| core.config().tls_client.clone());
    let config = config
        .ok_or(NetError::NoRuntime)?
        .ok_or_else(|| NetError::Tls("no client configuration: set Config::tls_client".into()))?;
    client_session_with(&config, server_name)
}

/// As [`client_session`], with a configuration of its own.
pub(crate) fn client_session_with(
    config: &Arc<ClientConfig>,
    server_name: &str,
) -> Result<(Box<Tls>, Duration)> {
    let limit = runtime::with(|core| core.config().tls_handshake_timeout);
    Ok((Tls::client(config, server_name)?, limit.ok_or(NetError::NoRuntime)?))
}

impl ConnCtx {
    /// What the TLS handshake agreed on; `None` without TLS.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        self.conn(|conn| conn.tls().and_then(|tls| tls.info())).flatten()
    }

    /// Begins a TLS connection with `Config::tls_client`; it resolves after the handshake, whose
    /// time is limited by `Config::tls_handshake_timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`NetError::Tls`] if there is no configuration or
    /// `server_name` is no name. A handshake that fails is the future's error.
    pub fn connect_tls(&self, addr: SocketAddr, server_name: &str) -> Result<crate::ConnectFuture> {
        self.begin_tls(addr, server_name, None)
    }

    /// As [`connect_tls`](Self::connect_tls), with a limit in milliseconds for connecting and
    /// handshake together.
    ///
    /// # Errors
    /// As `connect_tls`.
    pub fn connect_tls_with_timeout(
        &self,
        addr: SocketAddr,
        server_name: &str,
        timeout_ms: u64,
    ) -> Result<crate::ConnectFuture> {
        self.begin_tls(addr, server_name, Some(Duration::from_millis(timeout_ms)))
    }
}
