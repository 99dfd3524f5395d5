//! The pool's memory stays bounded however large the input, and however slow one job.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::io::Write;
use std::process::Stdio;

use map_runs::{command, folder, has, is_soak, write};

/// What the pool itself may take, in KiB.
const LIMIT_KIB: u64 = 64 << 10;

/// The most resident memory that a process had so far, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The peak of the pool over a run with one job that takes `seconds`, and `lines` others.
fn peak_with(lines: u64, seconds: u32) -> u64 {
    let dir = folder();
    let work =
        format!("import time\ndef f(t):\n    if t == '7': time.sleep({seconds})\n    return t\n");
    write(dir.path(), "work.py", work);
    let args = ["-j2", "-k", "--python", "work.py:f"];
    let mut run =
        command(dir.path(), &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = run.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let mut out = std::io::BufWriter::with_capacity(1 << 16, &mut stdin);
        for n in 1..=lines {
            writeln!(out, "{n}").unwrap();
        }
    });
    let mut stdout = run.stdout.take().unwrap();
    let mut most = 0;
    let mut seen = 0u64;
    let mut chunk = vec![0; 1 << 16];
    loop {
        let read = std::io::Read::read(&mut stdout, &mut chunk).unwrap();
        // The pool is there as long as its stdout is open: its peak only grows.
        most = peak(run.id()).unwrap_or(most).max(most);
        if read == 0 {
            break;
        }
        seen += memchr::memchr_iter(b'\n', &chunk[..read]).count() as u64;
    }
    feeder.join().unwrap();
    assert!(run.wait().unwrap().success());
    assert_eq!(seen, lines);
    most
}

#[test]
fn with_keep_order_and_one_slow_job_it_stays_under_64_mib() {
    if !has("python3") {
        return;
    }
    let (lines, seconds) = if is_soak() { (10_000_000, 10) } else { (200_000, 2) };
    let most = peak_with(lines, seconds);
    eprintln!("{lines} lines, one job of {seconds} s: at most {most} KiB resident");
    assert!(most > 0 && most < LIMIT_KIB, "{most} KiB");
}
