//! The command `remuda`: parses its arguments and hands over to one file a command.
#![forbid(unsafe_code)]
// They panic where stdout or stderr can't be written; `cli::say` is for that.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod builtin;
mod cli;
mod http;
mod map;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let _program = args.next();
    // The binary starts itself as the keeper and as the built-in workers.
    match args.next().as_ref().and_then(|first| first.to_str()) {
        Some(remuda_engine::keeper::ARGUMENT) => remuda_engine::keeper::main(),
        Some(cli::builtin::COMMAND) => cli::builtin::run(args.next()),
        _ => cli::exit::guarded(|| cli::run(std::env::args_os().collect::<Vec<OsString>>())),
    }
}
