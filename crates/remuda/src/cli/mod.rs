//! The command line: one file a command.

mod address;
mod admin;
mod bench;
pub(crate) mod builtin;
mod call;
mod config_file;
mod config_names;
mod connection;
mod effective;
pub(crate) mod exit;
mod hint;
mod interpreter;
mod log;
mod map;
pub(crate) mod number;
mod pool;
mod rings;
pub(crate) mod say;
mod serve;
mod stderr;
mod systemd;
mod tls_trouble;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Keeps workers warm and hands each job to a free one.
#[derive(Debug, Parser)]
#[command(name = "remuda", version, arg_required_else_help = true)]
#[command(after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  git ls-files -z | remuda map -0 --builtin sha256      what sha256sum prints, in parallel
  seq 1000 | remuda map --python work.py:handle          a Python function, kept warm
  remuda map -a urls.txt -k -- ./my-worker               an own program that speaks the protocol
  remuda serve --python examples/upper.py:upper &        the same for other programs
  remuda call abc                                        one job to it

Exit status of map: 0 all jobs succeeded, 1 to 100 that many failed, 101 more than 100 failed,
130 interrupted, 255 any other error. Of the others: `remuda COMMAND --help`.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the lines of stdin (or of a file) through a pool of warm workers
    Map(Box<map::MapArgs>),
    /// Serve a pool of warm workers to other programs, until it is stopped
    Serve(Box<serve::ServeArgs>),
    /// Send one job to a running pool, and print its result
    Call(call::CallArgs),
    /// Say how a running pool is
    #[command(after_help = admin::STATUS_EXAMPLES)]
    Status(admin::StatusArgs),
    /// Replace the workers of a running pool, without a gap
    #[command(after_help = admin::RESET_EXAMPLES)]
    Reset(admin::AdminArgs),
    /// Let a running pool finish what it has, and end
    #[command(after_help = admin::STOP_EXAMPLES)]
    Stop(admin::AdminArgs),
    /// Load a running pool, and print how long its calls take
    Bench(bench::BenchArgs),
}

/// Reads the command line, and the variables that stand in for options.
fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command().mut_subcommands(|command| command.mut_args(without_empty));
    let mut matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// A variable that is empty is none: clap would take it for a wrong value.
fn without_empty(arg: Arg) -> Arg {
    let value = arg.get_env().and_then(std::env::var_os);
    if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
}

/// Runs the command that `args` name.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            if !error.use_stderr() {
                return say::out_by(|| error.print())
                    .map_or_else(|status| status, |()| ExitCode::SUCCESS);
            }
            // A closed stderr is nothing to act upon.
            let _ = error.print();
            if let Some(hint) = hint::of(&error) {
                say::line(format_args!("\nremuda: {hint}"));
            }
            return exit::ERROR.into();
        }
    };
    let status = match cli.command {
        Command::Map(args) => map::run(*args),
        Command::Serve(args) => match log::start(args.log_json) {
            Ok(()) => serve::run(*args),
            Err(message) => exit::error(message),
        },
        Command::Call(args) => call::run(&args),
        Command::Status(args) => admin::status(&args),
        Command::Reset(args) => admin::reset(&args),
        Command::Stop(args) => admin::stop(&args),
        Command::Bench(args) => bench::run(&args),
    };
    stderr::finish();
    status
}
