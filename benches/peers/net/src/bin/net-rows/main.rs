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
const FULL: (usize, u64) = (31, 150);
/// Memory is the same each time.
const PAIRS_OF_MEMORY: usize = 3;

#[derive(Parser)]
#[command(about)]
struct Options {
    /// Short bursts, and few of them: below four minutes in all.
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
            Ok(all) => print::row(row, &all, options.json),
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
    let (pairs, millis) = if options.quick { QUICK } else { FULL };
    let running: Vec<Running> =
        servers.iter().map(|server| Running::start(row, *server)).collect::<Result<_, _>>()?;
    let mut all: Vec<Series> =
        servers.iter().map(|server| Series { server: *server, bursts: Vec::new() }).collect();
    for pair in 0..options.pairs.unwrap_or(pairs) {
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
