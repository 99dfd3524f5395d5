//! A stderr that nobody reads: it holds up neither a pool nor a run, and what it has no room for is
//! dropped, and told of once it is read again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use map_runs::{REMUDA, command, folder, numbers, shell_worker, signal};

/// How many jobs print more than a pipe and the backlog hold together.
const JOBS: u64 = 12;

/// A worker that prints 200 lines of 1,000 bytes for each job.
fn loud(dir: &Path) -> String {
    let print = "i=0; while [ $i -lt 200 ]; do printf '%01000d\\n' $i; i=$((i + 1)); done";
    shell_worker(dir, "loud.sh", &format!(r#"{print}; ok "$body""#))
}

/// A pool that serves with `args`, whose log is read as far as the tests want.
fn a_pool_goes_on(args: &[&str], message: impl Fn(&str) -> String) {
    let dir = folder();
    let listen = format!("unix:{},role=admin", dir.path().join("pool").display());
    let mut pool = Command::new(REMUDA)
        .args(["serve", "-j1", "-l", &listen])
        .args(args)
        .args(["--", "sh", &loud(dir.path())])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::with_capacity(1, pool.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0);
    }
    for number in 0..JOBS {
        let to = format!("unix:{}", dir.path().join("pool").display());
        let called = assert_cmd::Command::new(REMUDA)
            .args(["call", "--to", &to, &number.to_string()])
            .timeout(map_runs::LONG)
            .unwrap();
        assert_eq!(String::from_utf8(called.stdout).unwrap(), format!("{number}\n"));
    }
    let mut lines = BufReader::new(log).lines().map(|line| message(&line.unwrap()));
    let told = "lines for stderr were dropped: its reader did not read";
    assert!(lines.by_ref().any(|line| line.contains(told)), "nothing tells of lines that are gone");
    // What comes after is written again.
    signal(pool.id(), "TERM");
    assert!(lines.any(|line| line.contains("stopping: accepted jobs finish")));
    assert_eq!(pool.wait().unwrap().code(), Some(0));
}

#[test]
fn a_pool_goes_on_while_nobody_reads_its_log() {
    a_pool_goes_on(&[], str::to_owned);
}

#[test]
fn a_log_for_programs_tells_of_lines_that_nobody_read() {
    a_pool_goes_on(&["--log-json"], |line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["fields"]["message"].as_str().unwrap().to_owned()
    });
}

#[test]
fn a_run_ends_though_nobody_reads_what_it_says() {
    for bar in ["--no-bar", "--bar"] {
        let dir = folder();
        std::fs::write(dir.path().join("input"), numbers(JOBS)).unwrap();
        let worker = loud(dir.path());
        let args = ["-j1", "-k", bar, "-a", "input", "--", "sh", &worker];
        let mut run = command(dir.path(), &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut results = String::new();
        run.stdout.take().unwrap().read_to_string(&mut results).unwrap();
        assert_eq!(results, numbers(JOBS));
        assert_eq!(run.wait().unwrap().code(), Some(0));
        let mut told = String::new();
        run.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(told.starts_with("[worker 1] 0"), "{told:.80}");
    }
}
