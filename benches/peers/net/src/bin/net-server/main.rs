//! One server of several kinds. It prints `listening ADDRESS` and serves until it is killed.

mod bare;
mod listener;
mod on_remuda;
mod on_ringline;
mod on_tokio;
mod papers;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use net::address::Address;
use net::process;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// remuda-net; `--backend` says on what.
    RemudaNet,
    /// A bare io_uring loop: multishot, provided buffers, one enter a turn.
    Bare,
    /// ringline, one worker.
    Ringline,
    /// tokio, current_thread.
    Tokio,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Sends back what comes.
    Echo,
    /// Connects to `--upstream` for each connection, and forwards both ways.
    Proxy,
    /// As echo, with TLS. Not for the bare loop.
    Tls,
}

#[derive(Parser)]
#[command(about)]
struct Options {
    kind: Kind,
    mode: Mode,
    /// Where to listen: tcp:HOST:PORT (port 0 for any) or unix:/path.
    #[arg(long, default_value = "tcp:127.0.0.1:0")]
    listen: Address,
    /// Where a proxy connects to.
    #[arg(long)]
    upstream: Option<Address>,
    /// Where to write the certificate that a TLS client is to trust, in DER.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// remuda-net's driver: io_uring or mio.
    #[arg(long, default_value = "io_uring")]
    backend: String,
    /// Bytes of a receive buffer: tokio's of each connection, the bare loop's and ringline's of
    /// the ring.
    #[arg(long, default_value_t = 4096)]
    buffer: usize,
    /// Buffers in the bare loop's ring, and in ringline's.
    #[arg(long, default_value_t = 256)]
    buffers: u16,
    /// The core to run on.
    #[arg(long)]
    core: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    process::raise_file_limit();
    process::end_with_parent()?;
    if let Some(core) = options.core {
        process::pin(core)?;
    }
    match options.kind {
        Kind::RemudaNet => on_remuda::serve(&options),
        Kind::Bare => bare::serve(&options),
        Kind::Ringline => on_ringline::serve(&options),
        Kind::Tokio => on_tokio::serve(&options),
    }
}
