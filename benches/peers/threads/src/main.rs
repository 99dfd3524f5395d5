//! remuda-threads beside crossbeam-channel, std's mpsc and rayon: rows of work with `u64` messages
//! and an upward bound of 1024, on one worker and on two.
//!
//! `threads-rows [--quick] [--pairs N] [--one-core] [--json] [up|burst|flight|round ...]`
//!
//! `--one-core` ties all threads to the first core; else they run where the system puts them.
//! `--json` prints one object with all rows; else a line a row, with our figure and how many times
//! as fast as each peer we are: the median of the paired ratios and its 95 % interval.
//!
//! Built on nightly Rust with `--features published`, document 004's crate is a peer too.
#![allow(clippy::unwrap_used, reason = "a bench has no caller to report to")]

mod median;
mod peers;
#[cfg(feature = "published")]
mod published;
mod rows;

use std::process::ExitCode;

use rows::{Row, Work};
use serde_json::{Value, json};

const PAIRS_DEFAULT: usize = 15;
const PAIRS_QUICK: usize = 7;
const WORKERS: [usize; 2] = [1, 2];
const USAGE: &str =
    "usage: threads-rows [--quick] [--pairs N] [--one-core] [--json] [up|burst|flight|round ...]";

struct Options {
    pairs: usize,
    one_core: bool,
    json: bool,
    works: Vec<Work>,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(255);
    };
    if options.one_core {
        pin_to_first_core();
    }
    let mut rows = Vec::new();
    for &work in &options.works {
        for workers in WORKERS {
            let row = Row::measure(work, workers, options.pairs);
            if !options.json {
                println!("{}", line(&row));
            }
            rows.push(as_json(&row));
        }
    }
    if options.json {
        println!("{}", json!({"pairs": options.pairs, "one_core": options.one_core, "rows": rows}));
    }
    ExitCode::SUCCESS
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options =
        Options { pairs: PAIRS_DEFAULT, one_core: false, json: false, works: Vec::new() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.pairs = PAIRS_QUICK,
            "--pairs" => {
                options.pairs = arguments.next()?.parse().ok().filter(|&pairs| pairs > 0)?;
            }
            "--one-core" => options.one_core = true,
            "--json" => options.json = true,
            name => options.works.push(Work::ALL.into_iter().find(|work| work.name() == name)?),
        }
    }
    if options.works.is_empty() {
        options.works.extend(Work::ALL);
    }
    Some(options)
}

fn line(row: &Row) -> String {
    let figure = row.ours.figure(row.work);
    let figure = match row.work.is_latency() {
        true => format!("{:8.2} us ", figure * 1e6),
        false => format!("{:8.1} M/s", figure / 1e6),
    };
    let mut line = format!("{:7}{} worker(s) {figure}", row.work.name(), row.workers);
    for peer in &row.peers {
        let ratio = peer.ratio();
        line += &format!(
            "   {} x {:.2} [{:.2}, {:.2}]",
            peer.name, ratio.middle, ratio.low, ratio.high
        );
    }
    line
}

fn as_json(row: &Row) -> Value {
    let peers: Vec<Value> = row
        .peers
        .iter()
        .map(|peer| {
            let ratio = peer.ratio();
            json!({
                "peer": peer.name,
                "figure": peer.figure(row.work),
                "times_as_fast": ratio.middle,
                "low": ratio.low,
                "high": ratio.high,
            })
        })
        .collect();
    json!({
        "row": row.work.name(),
        "workers": row.workers,
        "unit": if row.work.is_latency() { "s" } else { "messages/s" },
        "figure": row.ours.figure(row.work),
        "peers": peers,
    })
}

fn pin_to_first_core() {
    let mut only = rustix::thread::CpuSet::new();
    only.set(0);
    rustix::thread::sched_setaffinity(None, &only).unwrap();
}
