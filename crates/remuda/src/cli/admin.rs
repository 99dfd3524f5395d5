//! `remuda status`, `remuda reset` and `remuda stop`: one question to a running pool each.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use remuda_protocol::{Answer, encode};
use serde_json::Value;

use crate::cli::connection::{self, Connection, ConnectionError, ID};
use crate::cli::number::grouped;
use crate::cli::{exit, say};

/// Which pool is asked.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Where the pool is: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or shm:NAME [default: REMUDA_ADDR,
    /// else the socket of this user]
    #[arg(long, value_name = "ADDR")]
    to: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which pool is asked, and for what of its status.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// Print the last exits and failures of workers
    #[arg(long)]
    events: bool,
}

pub(crate) const STATUS_EXAMPLES: &str = "\
Examples:
  remuda status
  remuda status --events                       which workers ended, and why
  remuda status --to shm:upper --json | jq .queued

Exit status: 0 it was printed, 1 the pool refused, 255 any other error.";

pub(crate) const RESET_EXAMPLES: &str = "\
Examples:
  remuda reset
  remuda reset --to unix:/run/upper.sock       a listener with role=admin

Exit status: 0 all workers are new, 1 the pool refused, or the old workers stay because the new
ones don't become ready; 255 any other error.";

pub(crate) const STOP_EXAMPLES: &str = "\
Examples:
  remuda stop
  remuda stop --to unix:/run/upper.sock        a listener with role=admin

It returns at once: accepted jobs may still run, and the address be in use until they have ended.

Exit status: 0 the pool finishes what it has, and ends; 1 it refused, 255 any other error.";

/// The status for a request that the pool refused.
const REFUSED: u8 = 1;
/// How long a status is waited for. A pool has it at once; a worker that was started by hand, and
/// is at work, has not.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// `remuda status`.
pub(crate) fn status(args: &StatusArgs) -> ExitCode {
    let data = match ask(&args.admin, Some(STATUS_PATIENCE), |out| encode::status(out, ID)) {
        Ok(data) => data,
        Err(status) => return status,
    };
    let shown = if args.events { &data["events"] } else { &data };
    let text = match (args.admin.json, args.events) {
        (true, _) => format!("{shown:#}\n"),
        (false, true) => events(shown, &data["uptime_ms"]),
        (false, false) => table(shown),
    };
    say::out(text).map_or_else(|status| status, |()| ExitCode::SUCCESS)
}

/// `remuda reset`.
pub(crate) fn reset(args: &AdminArgs) -> ExitCode {
    finish(args, "all workers are new", ask(args, None, |out| encode::reset(out, ID)))
}

/// `remuda stop`.
pub(crate) fn stop(args: &AdminArgs) -> ExitCode {
    finish(
        args,
        "the pool finishes what it has, and ends",
        ask(args, None, |out| encode::shutdown(out, ID)),
    )
}

fn finish(args: &AdminArgs, done: &str, answer: Result<Value, ExitCode>) -> ExitCode {
    match answer {
        Ok(_) if args.json => {
            say::out("{\"ok\":true}\n").map_or_else(|status| status, |()| ExitCode::SUCCESS)
        }
        Ok(_) => {
            say::line(format_args!("remuda: {done}"));
            ExitCode::SUCCESS
        }
        Err(status) => status,
    }
}

/// Asks one thing; the error is the status to exit with, after why was told.
fn ask(
    args: &AdminArgs,
    patience: Option<Duration>,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<Value, ExitCode> {
    let mut request = Vec::new();
    write(&mut request);
    let line = asked(args.to.as_deref(), &request, patience).map_err(exit::error)?;
    match connection::answer(&line) {
        Ok(Answer::Status(data) | Answer::Other { data, .. }) => {
            data.parse().map_err(|error| exit::error(format!("the pool's answer: {error}")))
        }
        Ok(Answer::Error(failure)) => {
            let (code, error) = (failure.code_text.decode(), failure.error.decode());
            say::line(format_args!("remuda: {code}: {error}"));
            Err(REFUSED.into())
        }
        Ok(_) => Err(exit::error("the pool answered with something else")),
        Err(message) => Err(exit::error(message)),
    }
}

/// The line that a pool answers a request with.
fn asked(
    to: Option<&str>,
    request: &[u8],
    patience: Option<Duration>,
) -> Result<Vec<u8>, ConnectionError> {
    Connection::open(to, patience)?.ask(request)
}

/// Why a pool runs no job at the moment, if it can be asked and no worker can be started.
pub(crate) fn why_nothing_runs(to: Option<&str>) -> Option<String> {
    let mut request = Vec::new();
    encode::status(&mut request, ID);
    let line = asked(to, &request, Some(STATUS_PATIENCE)).ok()?;
    match connection::answer(&line).ok()? {
        Answer::Status(data) => not_ready(&data.parse().ok()?),
        _ => None,
    }
}

/// The status for people.
fn table(status: &Value) -> String {
    if status["phase"].is_null() {
        return format!("a worker, no pool: pid {}\n", status["pid"]);
    }
    let mut out = String::new();
    let mut line = |words: String| {
        out.push_str(words.trim_end());
        out.push('\n');
    };
    line(format!(
        "pool {} pid {}, up {}, on {}",
        text(&status["phase"]),
        status["pid"],
        seconds(&status["uptime_ms"]),
        text(&status["backend"]),
    ));
    let failed: u64 = status["jobs"]["failed"]
        .as_object()
        .map_or(0, |codes| codes.values().filter_map(Value::as_u64).sum());
    line(format!(
        "jobs {} accepted, {} done, {} failed or refused; {} queued, {} running",
        number(&status["jobs"]["accepted"]),
        number(&status["jobs"]["done"]),
        grouped(failed),
        number(&status["queued"]),
        number(&status["in_flight"]),
    ));
    line(format!(
        "waited p50 {} us, p99 {} us; ran p50 {} us, p99 {} us",
        number(&status["wait_us"]["p50"]),
        number(&status["wait_us"]["p99"]),
        number(&status["run_us"]["p50"]),
        number(&status["run_us"]["p99"]),
    ));
    if let Some(why) = not_ready(status) {
        line(why);
    }
    line(String::new());
    line(format!(
        "{:>6} {:>4} {:>8} {:<9} {:>10} {:>9} {:>9} {:>5} {:>9}",
        "worker", "slot", "pid", "state", "jobs", "age", "memory", "cpu", "job age"
    ));
    for worker in status["workers"].as_array().into_iter().flatten() {
        line(worker_row(worker));
        if let Some(link) = link(&worker["link"]) {
            line(format!("{:>21}  {link}", ""));
        }
    }
    out
}

/// A worker's line of the table.
fn worker_row(worker: &Value) -> String {
    let memory = worker["memory"].as_u64();
    let cpu = worker["cpu_percent"].as_u64();
    format!(
        "{:>6} {:>4} {:>8} {:<9} {:>10} {:>9} {:>9} {:>5} {:>9}  {}",
        plain(&worker["worker"]),
        plain(&worker["slot"]),
        plain(&worker["pid"]),
        text(&worker["state"]),
        number(&worker["jobs"]),
        seconds(&worker["age_ms"]),
        memory.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
        cpu.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
        seconds(&worker["job_age_ms"]),
        worker["attached"].as_str().unwrap_or_default(),
    )
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), grouped)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// Why no worker is ready, where none can be started.
fn not_ready(status: &Value) -> Option<String> {
    let failed = status["starts_failed"].as_u64().filter(|failed| *failed > 0)?;
    if status["ready"] != false || status["phase"] != "running" {
        return None;
    }
    let last = status["events"].as_array().and_then(|events| events.last());
    let what = last.and_then(|event| event["what"].as_str());
    let what = what.map(|what| format!(": {what}")).unwrap_or_default();
    Some(format!("no worker is ready: {} starts in a row failed{what}", grouped(failed)))
}

/// Why there is no link to a peer, and what follows; or that one is being made.
fn link(link: &Value) -> Option<String> {
    if link["state"] == "connecting" {
        return Some("being reached: it has not answered yet".to_owned());
    }
    let because = link["because"].as_str()?;
    Some(match link["due_ms"].as_u64() {
        Some(_) => format!("tried again in {}: {because}", seconds(&link["due_ms"])),
        None => because.to_owned(),
    })
}

/// The last exits and failures for people.
fn events(events: &Value, now: &Value) -> String {
    let mut out = String::new();
    for event in events.as_array().into_iter().flatten() {
        let age = match (now.as_u64(), event["at_ms"].as_u64()) {
            (Some(now), Some(at)) => now.saturating_sub(at).into(),
            _ => Value::Null,
        };
        let reason = event["reason"].as_str().map(|reason| format!(", {reason}"));
        let job = event["job"]["text"].as_str().map(|job| format!(" with {job}"));
        let others = event["in_flight"].as_u64().unwrap_or(0).saturating_sub(1);
        let others = (others > 0).then(|| format!(" and {others} more"));
        out.push_str(&format!(
            "{:>10} ago worker {} (slot {}{}){}{}: {}\n",
            seconds(&age),
            plain(&event["worker"]),
            plain(&event["slot"]),
            reason.unwrap_or_default(),
            job.unwrap_or_default(),
            others.unwrap_or_default(),
            event["what"].as_str().unwrap_or_default(),
        ));
    }
    if out.is_empty() {
        out.push_str("no worker has ended\n");
    }
    out
}

fn plain(value: &Value) -> String {
    if value.is_null() { "-".to_owned() } else { value.to_string() }
}

fn seconds(ms: &Value) -> String {
    ms.as_u64().map_or_else(|| "-".to_owned(), |ms| format!("{}.{}s", ms / 1000, ms % 1000 / 100))
}
