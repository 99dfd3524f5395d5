//! `map` with fewer descriptors than its workers take: those that start do the work.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::process::Command;

use map_runs::{folder, numbers, write};

/// A filter that prints more to stderr, for each line, than a pipe holds.
const TALKER: &str =
    "while read -r line; do head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2; echo $line; done";

#[test]
fn a_run_ends_though_all_descriptors_are_in_use() {
    let dir = folder();
    write(dir.path(), "in", numbers(20));
    for worker in [
        &["--builtin", "echo"][..],
        &["--stdio", "--", "cat"],
        &["--stdio", "--", "sh", "-c", TALKER],
    ] {
        for jobs in ["-j8", "-j20", "-j64"] {
            let mut run = Command::new("sh");
            // A run that hangs is killed after a minute.
            run.args(["-c", "ulimit -n 64; exec timeout -s KILL 60 \"$@\"", "sh"]);
            run.args([env!("CARGO_BIN_EXE_remuda"), "map", jobs, "-k", "-a", "in"]).args(worker);
            let ran = run.current_dir(dir.path()).output().unwrap();
            assert_eq!(
                ran.status.code(),
                Some(0),
                "{jobs} {worker:?}: {}",
                String::from_utf8_lossy(&ran.stderr[..ran.stderr.len().min(500)])
            );
            assert_eq!(String::from_utf8_lossy(&ran.stdout), numbers(20), "{jobs} {worker:?}");
        }
    }
}
