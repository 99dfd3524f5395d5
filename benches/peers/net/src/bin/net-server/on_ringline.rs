//! The servers on ringline, one worker, as its documentation would have one write them.
//!
//! It binds its listeners itself and doesn't say where, so a free port is found beforehand.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;

use net::address::Address;
use ringline::{
    AsyncEventHandler, ConfigBuilder, ConnCtx, ParseResult, RinglineBuilder, TlsConfig, join,
};

use crate::{Mode, Options, papers};

/// As many connections as the largest row has, and some.
const CONNECTIONS: u32 = 16_384;
/// Bytes that copied sends may hold, in slots of a receive buffer's size.
const SEND_BYTES: usize = 4 << 20;
/// As the other servers have it.
const BACKLOG: i32 = 4096;

/// Where a proxy connects to. A handler is made from a worker's number, and nothing else.
static UPSTREAM: OnceLock<Address> = OnceLock::new();

pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut config = config(options);
    if options.mode == Mode::Tls {
        let tls = papers::server_config(options.certificate.as_deref())?;
        config = config.tls(TlsConfig::new(tls));
    }
    if let Some(upstream) = &options.upstream {
        let _ = UPSTREAM.set(upstream.clone());
    }
    let builder = RinglineBuilder::new(config.build()?);
    let (builder, address) = match &options.listen {
        Address::Tcp(addr) => {
            let addr = free_port(*addr)?;
            (builder.bind(addr), Address::Tcp(addr))
        }
        Address::Unix(path) => (builder.bind_unix(path), options.listen.clone()),
    };
    let (_shutdown, workers) = match options.mode {
        Mode::Proxy => builder.launch::<Proxy>()?,
        Mode::Echo | Mode::Tls => builder.launch::<Echo>()?,
    };
    // It listens when `launch` returns.
    println!("listening {address}");
    for worker in workers {
        worker.join().map_err(|_| "ringline's worker panicked")??;
    }
    Ok(())
}

/// One worker, no helpers; buffers as the row has them. The process is pinned already, with
/// ringline's accepting thread.
fn config(options: &Options) -> ConfigBuilder {
    let slots = (SEND_BYTES / options.buffer).min(usize::from(u16::MAX)) as u16;
    ConfigBuilder::new()
        .workers(1)
        .pin_to_core(false)
        .max_connections(CONNECTIONS)
        .backlog(BACKLOG)
        .tcp_nodelay(true)
        .recv_buffer(options.buffers, options.buffer as u32)
        .send_pool(slots, options.buffer as u32)
        .resolver_threads(0)
        .spawner_threads(0)
        .blocking_threads(0)
        .no_fs()
}

fn free_port(addr: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(addr)?.local_addr()
}

struct Echo;

impl AsyncEventHandler for Echo {
    fn on_accept(&self, conn: ConnCtx) -> impl Future<Output = ()> + 'static {
        echo(conn)
    }

    fn create_for_worker(_worker: usize) -> Self {
        Self
    }
}

async fn echo(conn: ConnCtx) {
    let mut echo = |data: &[u8]| {
        if conn.forward_recv_buf(data).is_err() {
            conn.close();
        }
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(&mut echo).await > 0 {}
}

struct Proxy;

impl AsyncEventHandler for Proxy {
    fn on_accept(&self, conn: ConnCtx) -> impl Future<Output = ()> + 'static {
        proxy(conn)
    }

    fn create_for_worker(_worker: usize) -> Self {
        Self
    }
}

async fn proxy(conn: ConnCtx) {
    let connecting = match UPSTREAM.get() {
        Some(Address::Tcp(addr)) => conn.connect(*addr),
        Some(Address::Unix(path)) => conn.connect_unix(path),
        None => return,
    };
    let Ok(connecting) = connecting else { return };
    let Ok(other) = connecting.await else { return };
    join(forward(conn, other), forward(other, conn)).await;
    other.close();
}

/// Sends what comes from one to the other, until the end, waiting for each send. Its forwarding
/// without a copy is for what goes back to where it came from, or to a descriptor that isn't one
/// of its own connections.
async fn forward(from: ConnCtx, to: ConnCtx) {
    loop {
        let mut sending = None;
        let send = |data: &[u8]| {
            sending = Some(to.send(data));
            ParseResult::Consumed(data.len())
        };
        if from.with_data(send).await == 0 {
            break;
        }
        let Some(Ok(sending)) = sending else { break };
        if sending.await.is_err() {
            break;
        }
    }
    to.shutdown_write();
}
