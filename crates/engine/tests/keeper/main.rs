//! The keeper against real processes, in a PID namespace and without one.
//!
//! A `main` of its own, since this binary is also the keeper that it tests, and the pool that it
//! kills.
// `unreachable_pub`: nothing of a test binary is reachable from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod ends;
mod figures;
mod kills;
mod pool;
mod starts;
mod support;

use libtest_mimic::{Arguments, Completion, Trial};
use remuda_engine::keeper::{self, PidNamespace};

fn main() -> std::process::ExitCode {
    if let Some(notes) = std::env::var_os(starts::FORGETFUL) {
        return starts::forgetful(&notes);
    }
    match std::env::args().nth(1).as_deref() {
        Some(keeper::ARGUMENT) => return keeper::main(),
        Some(pool::ARGUMENT) => return pool::main(),
        _ => {}
    }
    let mut trials = Vec::new();
    for (name, test) in [starts::TESTS, kills::TESTS, ends::TESTS].concat() {
        for (mode, pid_namespace) in
            [("namespaced", PidNamespace::Require), ("plain", PidNamespace::Never)]
        {
            trials.push(Trial::ignorable_test(format!("{name}::{mode}"), move || {
                let lack = if !support::has_python() {
                    let may_lack = std::env::var_os("REMUDA_CI").is_none_or(|ci| ci != "1");
                    assert!(may_lack, "{name}: there is no python3");
                    "needs python3"
                } else if pid_namespace == PidNamespace::Require && !support::may_namespace() {
                    "needs root or CAP_SYS_ADMIN"
                } else {
                    test(pid_namespace);
                    return Ok(Completion::Completed);
                };
                eprintln!("SKIPPED {name}::{mode}: {lack}");
                Ok(Completion::ignored_with(lack))
            }));
        }
    }
    for (name, test) in starts::TESTS_OF_START {
        trials.push(Trial::test(*name, move || {
            test();
            Ok(())
        }));
    }
    trials.extend(figures::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
