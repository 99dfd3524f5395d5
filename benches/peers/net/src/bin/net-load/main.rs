//! One burst of load against a server, from one thread: so many connections, each with so many
//! messages in flight. Prints one line of JSON: requests, seconds, latencies in microseconds, and
//! the server's processor time if its process is named.
//!
//! First each connection exchanges one message whose bytes are compared. Then a part of the burst
//! runs that isn't counted. At the end of each part everything in flight is waited for, so that
//! the server sleeps while its account is read.

mod burst;
mod peer;
mod upstream;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use net::address::Address;
use net::process;
use serde_json::json;

use burst::Burst;

#[derive(Parser)]
#[command(about)]
struct Options {
    /// The server: tcp:HOST:PORT or unix:/path.
    #[arg(long)]
    to: Address,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Messages in flight on each connection.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// How long the counted part takes.
    #[arg(long, default_value_t = 200)]
    millis: u64,
    /// How long the part before it takes.
    #[arg(long, default_value_t = 20)]
    warm_millis: u64,
    /// Where the proxy under test connects to: the load listens there, and sends back what comes.
    #[arg(long)]
    upstream: Option<Address>,
    /// TLS, trusting the certificate in this file.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// The server's process.
    #[arg(long)]
    server: Option<u32>,
    /// Only opens the connections, exchanges a message on each, and tells of the server's memory.
    #[arg(long)]
    idle: bool,
    /// The core to run on.
    #[arg(long)]
    core: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    process::raise_file_limit();
    if let Some(core) = options.core {
        process::pin(core)?;
    }
    let memory = || options.server.map_or(Ok(0), process::resident);
    let mut burst = Burst::open(&options)?;
    if options.idle {
        // Its whole memory: one takes it when it starts, another for each connection.
        let each = memory()? as f64 / options.connections as f64;
        println!("{}", json!({ "connections": options.connections, "bytes_each": each }));
        return Ok(());
    }
    burst.run(Duration::from_millis(options.warm_millis))?;
    let cpu = || options.server.map_or(Ok(Duration::ZERO), process::cpu_time);
    burst.latencies.clear();
    let (cpu_before, started) = (cpu()?, Instant::now());
    burst.run(Duration::from_millis(options.millis))?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu()? - cpu_before);
    let latencies = &mut burst.latencies;
    latencies.sort_unstable();
    let at = |share: f64| {
        let rank = (latencies.len() as f64 * share) as usize;
        latencies.get(rank).map_or(0.0, |nanos| f64::from(*nanos) / 1e3)
    };
    let requests = latencies.len();
    println!(
        "{}",
        json!({
            "requests": requests,
            "seconds": seconds,
            "per_second": requests as f64 / seconds,
            "cpu_us": cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
        })
    );
    Ok(())
}
