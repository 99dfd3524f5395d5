//! `remuda call`: one job to a running pool.

use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Answer, Raw, json_string, unescape};

use crate::cli::connection::{self, Connection, ID};
use crate::cli::{admin, exit, number, say};

/// Send one job to a running pool, and print its result.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CallArgs {
    /// The job; `-` reads it from stdin
    #[arg(value_name = "BODY|-", allow_hyphen_values = true)]
    body: String,

    /// Where the pool is: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or shm:NAME [default: REMUDA_ADDR,
    /// else the socket of this user]
    #[arg(long, value_name = "ADDR")]
    to: Option<String>,

    /// The job and the result are JSON values
    #[arg(long)]
    json: bool,

    /// How long the job may take, waiting included: seconds, or 150ms, 2s, 5m [default: for ever]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration)]
    timeout: Option<Duration>,
}

const EXAMPLES: &str = "\
Examples:
  remuda call abc
  remuda call --json '{\"text\":\"abc\"}'
  remuda call --to tcp:127.0.0.1:7000 - < body.txt
  remuda call --to shm:upper abc               a pool that serves -l shm:upper

Exit status: 0 the result was printed, 1 the job failed, 255 any other error.";

/// The status for a job that failed.
const JOB_FAILED: u8 = 1;
/// How long past the job's time its end is waited for: the pool is to tell of it. Until the pool has
/// read the job, it is given as long for each piece.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// After so long without an answer, it is looked whether the pool can run a job at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the command.
pub(crate) fn run(args: &CallArgs) -> ExitCode {
    let body = match body(args) {
        Ok(body) => body,
        Err(message) => return exit::error(message),
    };
    let patience = args.timeout.map(|time| time.saturating_add(ANSWER_GRACE));
    let answer = Connection::open(args.to.as_deref(), patience).and_then(|mut connection| {
        tell_if_nothing_runs(args.to.clone());
        let mut request = Vec::new();
        let timeout_ms = args.timeout.map(|time| time.as_millis() as u64);
        let fields = CallFields { timeout_ms, hops: 0 };
        encode::call(&mut request, ID, &body, &fields);
        connection.ask(&request)
    });
    let line = match answer {
        Ok(line) => line,
        Err(error) => return exit::error(error),
    };
    match connection::answer(&line) {
        Ok(Answer::Result(result)) => say::out(printed(result, args.json))
            .map_or_else(|status| status, |()| ExitCode::SUCCESS),
        Ok(Answer::Error(failure)) => {
            let (code, error) = (failure.code_text.decode(), failure.error.decode());
            say::line(format_args!("remuda: {code}: {error}"));
            if let Some(traceback) = failure.traceback {
                say::line(traceback.decode().trim_end_matches('\n'));
            }
            JOB_FAILED.into()
        }
        Ok(_) => exit::error("the pool answered with something else than a result"),
        Err(message) => exit::error(message),
    }
}

/// Says why the job waits, if after a while it does because no worker can be started. The thread
/// ends with the command.
fn tell_if_nothing_runs(to: Option<String>) {
    let look = move || {
        std::thread::sleep(PATIENCE);
        if let Some(why) = admin::why_nothing_runs(to.as_deref()) {
            say::line(format_args!("remuda: the job waits: {why}"));
        }
    };
    // Without a thread to spare, nothing is said.
    let _ = std::thread::Builder::new().name("remuda-call".into()).spawn(look);
}

/// The body as JSON.
fn body(args: &CallArgs) -> Result<Vec<u8>, String> {
    let mut bytes = args.body.clone().into_bytes();
    if args.body == "-" {
        bytes.clear();
        io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|e| format!("cannot read stdin: {e}"))?;
        if !args.json && bytes.ends_with(b"\n") {
            bytes.pop();
        }
    }
    if args.json {
        Raw::new(&bytes).map_err(|error| format!("the job is not a JSON value: {error}"))?;
        return Ok(bytes);
    }
    let mut json = Vec::with_capacity(bytes.len() + 2);
    json_string(&mut json, &bytes).map_err(|_| "the job is not UTF-8".to_owned())?;
    Ok(json)
}

/// The line that a result is printed as.
fn printed(result: Raw<'_>, json: bool) -> String {
    let text = match unescape(result.as_str()) {
        Ok(text) if !json => text,
        _ => result.as_str().into(),
    };
    format!("{text}\n")
}
