//! The servers on tokio's current_thread runtime.

use std::error::Error;
use std::sync::Arc;

use net::address::Address;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::listener::{Listener, bind};
use crate::{Mode, Options, papers};

#[derive(Clone)]
struct Plan {
    mode: Mode,
    buffer: usize,
    upstream: Option<Address>,
    tls: Option<TlsAcceptor>,
}

pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let tls = match options.mode {
        Mode::Tls => {
            let config = papers::server_config(options.certificate.as_deref())?;
            Some(TlsAcceptor::from(Arc::clone(&config)))
        }
        _ => None,
    };
    let (mode, buffer) = (options.mode, options.buffer);
    let plan = Plan { mode, buffer, upstream: options.upstream.clone(), tls };
    let listener = bind(&options.listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    spawn(stream, &plan);
                }
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    spawn(stream, &plan);
                }
            }
        }
    })
}

/// Each mode's task is of its own size: an idle echo shall not hold a proxy's memory.
fn spawn<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, plan: &Plan) {
    let (mode, buffer) = (plan.mode, plan.buffer);
    match (mode, plan.tls.clone(), plan.upstream.clone()) {
        (Mode::Echo, ..) => drop(tokio::spawn(echo(stream, buffer))),
        (Mode::Tls, Some(tls), _) => drop(tokio::spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                echo(stream, buffer).await;
            }
        })),
        (Mode::Proxy, _, Some(upstream)) => drop(tokio::spawn(proxy(stream, upstream, buffer))),
        _ => {}
    }
}

async fn proxy<S: AsyncRead + AsyncWrite + Unpin>(stream: S, upstream: Address, buffer: usize) {
    match upstream {
        Address::Tcp(addr) => {
            if let Ok(other) = TcpStream::connect(addr).await {
                let _ = other.set_nodelay(true);
                forward(stream, other, buffer).await;
            }
        }
        Address::Unix(path) => {
            if let Ok(other) = UnixStream::connect(path).await {
                forward(stream, other, buffer).await;
            }
        }
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, buffer: usize) {
    let mut memory = vec![0; buffer];
    while let Ok(count @ 1..) = stream.read(&mut memory).await {
        if stream.write_all(&memory[..count]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn forward<A, B>(mut one: A, mut other: B, buffer: usize)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // Its end is the end of both, in whatever way.
    let _ = copy_bidirectional_with_sizes(&mut one, &mut other, buffer, buffer).await;
}
