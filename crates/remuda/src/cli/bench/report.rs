//! The figures of a run, for people and for programs.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::plan::{Measured, Pace};
use crate::cli::number::grouped;

/// The percentiles that are shown, by their names.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The figures in a few lines.
pub(super) fn text(measured: &Measured, pool: u32) -> String {
    let mut text = String::new();
    let connections = measured.connections;
    let plural = if connections == 1 { "" } else { "s" };
    let pace = match measured.plan.pace {
        Pace::Closed { in_flight } => format!("closed loop, {in_flight} in flight"),
        Pace::Open { rate } => format!("open loop, {rate} calls/s"),
    };
    let seconds = measured.elapsed.as_secs_f64();
    let done = measured.done.len();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(format!("{pace}, {connections} connection{plural} to the pool of process {pool}"));
    line(format!(
        "{} results in {seconds:.2} s: {} jobs/s",
        grouped(done),
        grouped(per_second(measured) as u64)
    ));
    if done > 0 {
        line(format!("latency  {}", times(&measured.done)));
    }
    if measured.failures() > 0 {
        let failed: Vec<String> = measured
            .failed
            .iter()
            .map(|(code, count)| format!("{} {code}", grouped(*count)))
            .collect();
        line(format!("failed   {}", failed.join(", ")));
        if !measured.refused.is_empty() {
            line(format!("  after  {}", times(&measured.refused)));
        }
        if let Some(message) = &measured.first_failure {
            line(format!("  first  {}", message.lines().next().unwrap_or_default()));
        }
    }
    text
}

/// The figures as one JSON object.
pub(super) fn json(measured: &Measured, pool: u32) -> Value {
    let (mode, in_flight, rate) = match measured.plan.pace {
        Pace::Closed { in_flight } => ("closed", Some(in_flight), None),
        Pace::Open { rate } => ("open", None, Some(rate)),
    };
    json!({
        "mode": mode,
        "in_flight": in_flight,
        "rate": rate,
        "connections": measured.connections,
        "body_bytes": measured.plan.body.len(),
        "pool_pid": pool,
        "backend": measured.backend,
        "seconds": measured.elapsed.as_secs_f64(),
        "done": measured.done.len(),
        "failed": measured.failed,
        "first_failure": measured.first_failure,
        "cut_short": measured.cut,
        "jobs_per_second": per_second(measured),
        "latency_us": object(&measured.done),
        "failed_latency_us": object(&measured.refused),
    })
}

fn per_second(measured: &Measured) -> f64 {
    let seconds = measured.elapsed.as_secs_f64();
    if seconds > 0.0 { measured.done.len() as f64 / seconds } else { 0.0 }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn times(histogram: &Histogram<u64>) -> String {
    let mut words = String::new();
    for (name, quantile) in PERCENTILES {
        // Writing to a string can't fail.
        let _ = write!(words, "{name} {}  ", short(histogram.value_at_quantile(quantile)));
    }
    let _ = write!(words, "max {}", short(histogram.max()));
    words
}

/// A time in the unit that suits it.
fn short(ns: u64) -> String {
    match us(ns) {
        us if us < 1e3 => format!("{us:.1} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn object(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut object = Map::new();
    object.insert("min".into(), us(histogram.min()).into());
    object.insert("mean".into(), (histogram.mean() / 1e3).into());
    for (name, quantile) in PERCENTILES {
        object.insert(name.into(), us(histogram.value_at_quantile(quantile)).into());
    }
    object.insert("max".into(), us(histogram.max()).into());
    object.into()
}
