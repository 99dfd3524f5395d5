//! A closed loop of calls: each answer is followed by the next call. The same program loads both
//! sides of a row, so what the load itself costs is the same for both.
//!
//! `load http --to HOST:PORT --path /call` keeps one call in flight on each keep-alive connection;
//! `load lines --to SOCKET` speaks Remuda's protocol and spreads `--in-flight` over them.
//! `--connections`, `--in-flight`, `--bytes` (of a body), and either `--calls` or `--seconds` after
//! `--warmup`. Prints one line of JSON.

mod many;
mod one;
mod options;
mod wire;

use std::io::Result;

fn main() -> Result<()> {
    let options = options::Options::parse();
    let measured = if options.in_flight == 1 { one::run(&options)? } else { many::run(&options)? };
    println!("{}", measured.json());
    Ok(())
}

/// What came out.
pub struct Measured {
    /// Answers within the measured time.
    pub done: u64,
    /// All answers with a result, those of the warm-up included.
    pub total: u64,
    /// Answers without a result.
    pub failed: u64,
    /// How long the measured time was.
    pub seconds: f64,
    /// The time between a call and its answer, where it was taken.
    pub times_ns: Vec<u64>,
}

impl Measured {
    fn json(mut self) -> String {
        self.times_ns.sort_unstable();
        let at = |part: f64| match self.times_ns.len() {
            0 => "null".to_string(),
            n => (self.times_ns[((n - 1) as f64 * part) as usize] as f64 / 1e3).to_string(),
        };
        format!(
            "{{\"jobs_per_second\":{:.1},\"p50_us\":{},\"p99_us\":{},\"done\":{},\"total\":{},\"failed\":{}}}",
            self.done as f64 / self.seconds,
            at(0.5),
            at(0.99),
            self.done,
            self.total,
            self.failed,
        )
    }
}
