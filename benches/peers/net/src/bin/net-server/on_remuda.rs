//! The servers on remuda-net, as its documentation would have one write them.

use std::error::Error;
use std::future::pending;

use net::address::Address;
use remuda_net::{
    Backend, Config, ConnCtx, ParseResult, connect, connect_unix, forward_both, listen_tcp,
    listen_tls, listen_unix, run_local,
};

use crate::listener::{Listener, bind};
use crate::{Mode, Options, papers};

/// Unsent bytes of a connection at which its peer isn't read any more.
const UNSENT: usize = 1 << 20;

pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let backend = match options.backend.as_str() {
        "io_uring" => Backend::IoUring,
        "mio" => Backend::Mio,
        other => return Err(format!("--backend takes io_uring or mio, not {other}").into()),
    };
    // Before the address is told: the client reads the certificate then.
    let tls = match options.mode {
        Mode::Tls => Some(papers::server_config(options.certificate.as_deref())?),
        _ => None,
    };
    let listener = bind(&options.listen)?;
    let config = Config { backend, ..Config::default() };
    let (mode, upstream) = (options.mode, options.upstream.clone());
    run_local(config, async move {
        match (mode, listener) {
            (Mode::Echo, Listener::Tcp(listener)) => listen_tcp(listener, echo).map(drop)?,
            (Mode::Echo, Listener::Unix(listener)) => listen_unix(listener, echo).map(drop)?,
            (Mode::Tls, Listener::Tcp(listener)) => {
                listen_tls(listener, tls.ok_or("TLS needs a certificate")?, echo).map(drop)?;
            }
            (Mode::Tls, Listener::Unix(_)) => return Err("TLS is for TCP".into()),
            (Mode::Proxy, listener) => {
                let upstream = upstream.ok_or("a proxy needs --upstream")?;
                let serve = move |conn| proxy(conn, upstream.clone());
                match listener {
                    Listener::Tcp(listener) => listen_tcp(listener, serve).map(drop)?,
                    Listener::Unix(listener) => listen_unix(listener, serve).map(drop)?,
                }
            }
        }
        pending::<Result<(), Box<dyn Error>>>().await
    })?
}

/// Sends back what comes, until the end.
async fn echo(conn: ConnCtx) {
    let mut forward = |data: &[u8]| {
        if conn.forward_recv_buf(data).is_err() {
            conn.close();
        }
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(&mut forward).await > 0 {
        if conn.unsent() > UNSENT && conn.flushed(UNSENT).await.is_err() {
            break;
        }
    }
    conn.shutdown_write();
}

async fn proxy(conn: ConnCtx, upstream: Address) {
    let connecting = match &upstream {
        Address::Tcp(addr) => connect(*addr),
        Address::Unix(path) => connect_unix(path),
    };
    let Ok(connecting) = connecting else { return };
    let Ok(other) = connecting.await else { return };
    // Its end is the end of both, in whatever way.
    let _ = forward_both(conn, other).await;
    other.close();
}
