//! `remuda map`: the options, checked, and the run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use remuda_engine::{Delivery, RetryOn, WorkerKind};

use crate::cli::worker::WorkerArgs;
use crate::cli::{exit, number, pool::PoolArgs};
use crate::map::{self, Halt, MapConfig, OnError};

/// Run the lines of stdin (or of a file) through a pool of warm workers.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MapArgs {
    /// How many workers run at once, 1 to 1024, or by the cores: +N more, -N fewer, N% of them
    /// [default: 100%]
    #[arg(short = 'j', long, alias = "num-workers", value_name = "N", allow_negative_numbers = true, env = "REMUDA_JOBS",
          value_parser = number::workers(1024))]
    jobs: Option<u32>,

    /// Read jobs from FILE instead of stdin
    #[arg(short = 'a', long, value_name = "FILE")]
    arg_file: Option<PathBuf>,

    /// Jobs end with a NUL byte instead of a line break
    #[arg(short = '0', long)]
    null: bool,

    /// Write results to FILE instead of stdout
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Print results in the order of their jobs
    #[arg(short = 'k', long)]
    keep_order: bool,

    /// Jobs and results are JSON values, one a line
    #[arg(long)]
    json: bool,

    /// Try a job N times in all, whatever its failure [default: only jobs of lost workers again]
    #[arg(long, value_name = "N", allow_negative_numbers = true, env = "REMUDA_RETRIES",
          value_parser = number::whole::<u32>(1..=1000))]
    retries: Option<u32>,

    /// Try again only after these failures (3 times in all, unless --retries says otherwise)
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    retry_on: Vec<RetryKind>,

    /// Never start a job again that may have started
    #[arg(long, conflicts_with_all = ["retries", "retry_on"])]
    at_most_once: bool,

    /// Give a job up when so many workers died under it (each is replaced within 250ms)
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3, env = "REMUDA_POISON_AFTER",
          value_parser = number::whole::<u32>(1..=1000))]
    poison_after: u32,

    /// Stop a job that runs longer: seconds, or 150ms, 2s, 5m [default: none is stopped]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, env = "REMUDA_TIMEOUT")]
    timeout: Option<Duration>,

    /// End early: now|soon,fail|success|done=N|N%, or never [default: never]
    #[arg(long, value_name = "WHEN,WHY=N", value_parser = parse_halt)]
    halt: Option<HaltArg>,

    /// Write a row for each job to FILE, in the columns of GNU parallel
    #[arg(long, value_name = "FILE")]
    joblog: Option<PathBuf>,

    /// Go on where the run that wrote the job log ended
    #[arg(long, requires = "joblog")]
    resume: bool,

    /// Like --resume, and run the failed jobs again
    #[arg(long, requires = "joblog", conflicts_with = "resume")]
    resume_failed: bool,

    /// What stands in the output for a failed job
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnErrorArg::Skip)]
    on_error: OnErrorArg,

    /// Write failed jobs to FILE, as JSON lines: number, input, code, message, traceback
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,

    /// Put the job and a tab before its result
    #[arg(long)]
    tag: bool,

    /// Show progress on stderr: one line that changes on a terminal, now and then a line elsewhere
    /// [default: on a terminal that the results don't go to]
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "no_bar")]
    bar: bool,

    /// Show no progress
    #[arg(long)]
    no_bar: bool,

    // Behind the options of its own, which would stand under its heading.
    #[command(flatten)]
    worker: WorkerArgs,

    #[command(flatten)]
    pool: PoolArgs,
}

const EXAMPLES: &str = "\
Examples:
  git ls-files -z | remuda map -0 --builtin sha256
  remuda map -a words.txt -k --python examples/upper.py:upper
  remuda map --json -a rows.jsonl --node examples/upper.mjs:upper
  seq 1000000 | remuda map -k --stdio -- sed -u 's/^/x/'
  remuda map -a jobs.txt -k -o out.txt --joblog jobs.log --resume -- ./worker

A TIME is seconds (2, 0.5), or has a unit: 50us, 150ms, 2s, 5m, 1h, 1d. A SIZE is bytes, or has K, M
or G. 0 turns off a limit of time or memory that is off by default.

Exit status: 0 all jobs succeeded, 1 to 100 that many failed, 101 more than 100 failed,
130 interrupted, 255 any other error.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RetryKind {
    /// The worker died
    Lost,
    /// The job ran too long
    Timeout,
    /// The handler failed
    Error,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnErrorArg {
    /// Nothing
    Skip,
    /// The line `null`, so that result N stays line N
    Null,
    /// The run ends at the first failure
    Halt,
}

#[derive(Debug, Clone, Copy)]
struct HaltArg(Option<Halt>);

fn parse_halt(text: &str) -> Result<HaltArg, String> {
    if text == "never" {
        return Ok(HaltArg(None));
    }
    text.parse().map(|halt| HaltArg(Some(halt)))
}

/// How many tries `--retry-on` gives without `--retries`.
const RETRY_ON_TRIES: u32 = 3;

/// Runs the command.
pub(crate) fn run(args: MapArgs) -> ExitCode {
    let kind = match args.worker.kind() {
        Ok(kind) => kind,
        Err(message) => return exit::error(message),
    };
    let mut pool = match args.pool.config(kind) {
        Ok(pool) => pool,
        Err(message) => return exit::error(message),
    };
    match args.worker.attached() {
        Ok(attach) => pool.attach = attach,
        Err(message) => return exit::error(message),
    }
    if matches!(pool.kind, WorkerKind::None) {
        pool.dispatch.num_workers = 0;
    } else if let Some(jobs) = args.jobs {
        pool.dispatch.num_workers = jobs;
    }
    pool.dispatch.delivery = args.delivery();
    pool.dispatch.poison_after = args.poison_after;
    pool.dispatch.supervisor.exec_ttl = args.timeout.or(pool.dispatch.supervisor.exec_ttl);
    let halt = match (args.on_error, args.halt) {
        (OnErrorArg::Halt, None) => Some(Halt::NOW_AT_FIRST_FAILURE),
        (_, halt) => halt.and_then(|HaltArg(halt)| halt),
    };
    let config = MapConfig {
        pool,
        own_command: args.worker.is_own_command(),
        input: args.arg_file,
        delimiter: if args.null { 0 } else { b'\n' },
        output: args.output,
        keep_order: args.keep_order,
        json: args.json,
        halt,
        joblog: args.joblog,
        resume: args.resume || args.resume_failed,
        resume_failed: args.resume_failed,
        on_error: match args.on_error {
            OnErrorArg::Null => OnError::Null,
            OnErrorArg::Skip | OnErrorArg::Halt => OnError::Skip,
        },
        errors: args.errors,
        tag: args.tag,
        bar: if args.no_bar { Some(false) } else { args.bar.then_some(true) },
    };
    map::run(config)
}

impl MapArgs {
    fn delivery(&self) -> Delivery {
        if self.at_most_once {
            return Delivery::AtMostOnce;
        }
        if self.retries.is_none() && self.retry_on.is_empty() {
            return Delivery::AT_LEAST_ONCE;
        }
        let all = self.retry_on.is_empty();
        let on = |kind| all || self.retry_on.contains(&kind);
        let retry_on = RetryOn {
            lost: on(RetryKind::Lost),
            timeout: on(RetryKind::Timeout),
            error: on(RetryKind::Error),
        };
        Delivery::AtLeastOnce { tries: self.retries.unwrap_or(RETRY_ON_TRIES), retry_on }
    }
}
