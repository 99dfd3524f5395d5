//! The rows: each starts the servers it compares on core 0, and loads them from core 1 in turn, a
//! short burst each, again and again. A pair is a burst of one and the burst of another beside
//! it; what is told is the median of the paired ratios with its 95 % interval.
//!
//! Processor time is the server's, user and system, of all its threads, for each request.

mod print;
mod rows;
mod servers;
mod statistics;

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use serde_json::Value;

use rows::{Row, Server};
use servers::{Running, burst};

/// Pairs, and milliseconds of a burst.
const QUICK: (usize, u64) = (15, 40);
const FULL: (usize, u64) = (42, 100);
/// The servers of a row are started anew after so many pairs, so that an interval holds what differs
/// from start to start.
const PAIRS_A_START: usize = 3;
/// Memory is the same each time.
const PAIRS_OF_MEMORY: usize = 3;

#[derive(Parser)]
#[command(about)]
struct Options {
    /// Short bursts, and few of them: about a minute in all, else about seven.
    #[arg(long)]
    quick: bool,
    /// So many pairs.
    #[arg(long)]
    pairs: Option<usize>,
    /// Only rows whose name holds this; may be given several times.
    #[arg(long)]
    row: Vec<String>,
    /// Only servers whose name holds this; may be given several times.
    #[arg(long)]
    server: Vec<String>,
    /// Names the rows, and runs none.
    #[arg(long)]
    list: bool,
    /// One line of JSON for each row instead of text.
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Pairs, and milliseconds of a burst.
    fn lengths(&self) -> (usize, u64) {
        let (pairs, millis) = if self.quick { QUICK } else { FULL };
        (self.pairs.unwrap_or(pairs), millis)
    }
}

/// What the bursts of one server brought, in the order of the pairs.
pub struct Series {
    pub server: Server,
    pub bursts: Vec<Value>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    net::process::raise_file_limit();
    let chosen = |list: &[String], name: &str| {
        list.is_empty() || list.iter().any(|part| name.contains(part.as_str()))
    };
    let mut failed = false;
    for row in rows::rows().iter().filter(|row| chosen(&options.row, row.name)) {
        if options.list {
            println!("{:18} {}", row.name, row.what);
            continue;
        }
        let started = Instant::now();
        let servers: Vec<Server> = row
            .servers()
            .into_iter()
            .filter(|server| chosen(&options.server, server.name()))
            .collect();
        let all = if row.idle { memory(row, &servers) } else { bursts(row, &servers, &options) };
        match all {
            Ok(all) => print::row(row, &all, options.lengths().1, options.json),
            // The others needn't be lost.
            Err(error) => {
                failed = true;
                eprintln!("{}: {error}", row.name);
            }
        }
        eprintln!("{}: {:.1} s", row.name, started.elapsed().as_secs_f64());
    }
    if failed { Err("a row failed".into()) } else { Ok(()) }
}

fn bursts(row: &Row, servers: &[Server], options: &Options) -> Result<Vec<Series>, Box<dyn Error>> {
    let (pairs, millis) = options.lengths();
    let mut all: Vec<Series> =
        servers.iter().map(|server| Series { server: *server, bursts: Vec::new() }).collect();
    let mut running: Vec<Running> = Vec::new();
    for pair in 0..pairs {
        if pair % PAIRS_A_START == 0 {
            // Ended first: they may have the same sockets.
            running.clear();
            running = servers
                .iter()
                .map(|server| Running::start(row, *server))
                .collect::<Result<_, _>>()?;
        }
        for turn in 0..running.len() {
            // Each is the first as often as any other.
            let index = (pair + turn) % running.len();
            all[index].bursts.push(burst(row, &running[index], millis)?);
        }
    }
    Ok(all)
}

fn memory(row: &Row, servers: &[Server]) -> Result<Vec<Series>, Box<dyn Error>> {
    let mut all: Vec<Series> =
        servers.iter().map(|server| Series { server: *server, bursts: Vec::new() }).collect();
    for _ in 0..PAIRS_OF_MEMORY {
        for series in &mut all {
            let running = Running::start(row, series.server)?;
            series.bursts.push(burst(row, &running, 0)?);
        }
    }
    Ok(all)
}
