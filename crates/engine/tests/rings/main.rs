//! Clients and workers over rings in shared memory: real processes, killed and stopped.
//!
//! A `main` of its own, since this binary is also the keeper, the workers, the client and the pool
//! of its tests.
// `unreachable_pub`: nothing of a test binary is reachable from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]
// Counting allocations takes an allocator of one's own, and that takes unsafe code.
#![allow(unsafe_code)]

mod clients;
mod counts;
mod programs;
mod support;
mod workers;

use libtest_mimic::{Arguments, Trial};
use remuda_engine::keeper;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some(keeper::ARGUMENT) => return keeper::main(),
        Some(programs::ARGUMENT) => return programs::main(&arguments[2..]),
        _ => {}
    }
    let mut trials = Vec::new();
    for (name, test) in [clients::TESTS, workers::TESTS, counts::TESTS].concat() {
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
