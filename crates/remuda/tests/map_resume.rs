//! `-o FILE --joblog` survives `kill -9` at any moment: the finished file is the undisturbed one.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use map_runs::{Chance, Ran, command, folder, is_soak, lines, map_in, numbers, read, write};

/// Jobs of about a millisecond each, all different; each 50th fails.
fn jobs(count: u32) -> String {
    let job = |n: u32| match n % 50 {
        0 => format!("no {n}\n"),
        _ => format!("0.001{n:06}\n"),
    };
    (1..=count).map(job).collect()
}

const ARGS: [&str; 10] =
    ["-j2", "-a", "in", "-o", "out", "--joblog", "log", "--on-error", "null", "--errors=errors"];

fn resume(dir: &Path, more: &[&str]) -> Ran {
    let mut args = ARGS.to_vec();
    args.extend_from_slice(more);
    args.extend_from_slice(&["--builtin", "sleep"]);
    map_in(dir, &args, "")
}

/// Starts the run and kills it after so long; true if it had ended by itself.
fn killed_after(dir: &Path, more: &[&str], time: Duration) -> bool {
    let mut args = ARGS.to_vec();
    args.extend_from_slice(more);
    args.extend_from_slice(&["--builtin", "sleep"]);
    let mut run = command(dir, &args).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(time);
    let ended = run.try_wait().unwrap().is_some();
    run.kill().unwrap();
    run.wait().unwrap();
    ended
}

#[track_caller]
fn each_job_stands_in_the_log_once(dir: &Path, count: usize) {
    let mut numbers: Vec<usize> = lines(dir, "log")[1..]
        .iter()
        .map(|row| row.split('\t').next().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
}

#[test]
fn killed_at_random_moments_and_resumed_the_file_is_the_undisturbed_one() {
    let (kills, count) = if is_soak() { (50, 20_000) } else { (8, 3_000) };
    let dir = folder();
    let input = jobs(count);
    write(dir.path(), "in", &input);
    let wanted: String = input
        .lines()
        .map(|line| if line.starts_with("no") { "null\n".to_owned() } else { format!("{line}\n") })
        .collect();
    let mut chance = Chance::new();
    let mut ended = 0;
    for kill in 0..kills {
        let time = Duration::from_millis(chance.below(500));
        ended += u32::from(killed_after(dir.path(), &["-k", "--resume"], time));
        let out = std::fs::read(dir.path().join("out")).unwrap_or_default();
        assert!(wanted.as_bytes().starts_with(&out), "after kill {kill} the file is wrong");
    }
    assert!(ended < kills, "no run was killed before its end");
    let left = resume(dir.path(), &["-k", "--resume"]);
    assert!((0..=100).contains(&left.status), "{}", left.stderr);
    assert!(read(dir.path(), "out") == wanted, "the file differs from the undisturbed one");
    each_job_stands_in_the_log_once(dir.path(), count as usize);
    let failed = wanted.lines().filter(|line| *line == "null").count();
    assert_eq!(lines(dir.path(), "errors").len(), failed, "each failed job stands there once");
    // All is done: nothing is left to run.
    assert_eq!(resume(dir.path(), &["-k", "--resume"]).quiet().text(), "");
    assert!(read(dir.path(), "out") == wanted);
    assert_eq!(lines(dir.path(), "errors").len(), failed);
}

#[test]
fn without_keep_order_each_result_is_there_once() {
    let dir = folder();
    let input = jobs(1_000);
    write(dir.path(), "in", &input);
    let mut chance = Chance::new();
    for _ in 0..3 {
        killed_after(dir.path(), &["--resume"], Duration::from_millis(chance.below(300)));
    }
    resume(dir.path(), &["--resume"]);
    let mut found = lines(dir.path(), "out");
    let mut wanted: Vec<String> = input
        .lines()
        .map(|line| if line.starts_with("no") { "null".to_owned() } else { line.to_owned() })
        .collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    each_job_stands_in_the_log_once(dir.path(), 1_000);
}

/// A finished run of five jobs, of which the third failed.
fn finished() -> tempfile::TempDir {
    let dir = folder();
    write(dir.path(), "in", "0.001\n0.002\nno\n0.004\n0.005\n");
    resume(dir.path(), &["-k"]).expect(1);
    assert_eq!(read(dir.path(), "out"), "0.001\n0.002\nnull\n0.004\n0.005\n");
    dir
}

#[test]
fn torn_tails_are_cut_off() {
    let dir = finished();
    let (out, log, errors) =
        (read(dir.path(), "out"), read(dir.path(), "log"), read(dir.path(), "errors"));
    let rows = log.lines().map(str::len).scan(0, |end, len| {
        *end += len + 1;
        Some(*end)
    });
    let rows: Vec<usize> = rows.collect();
    // Rows are written after their results: the log may lack any of its end, the output none of
    // what the log tells of.
    for cut in [0, 5, rows[0], rows[0] + 7, rows[2] - 1, rows[2], rows[3] + 1, rows[5] - 1] {
        write(dir.path(), "log", &log[..cut]);
        write(dir.path(), "out", format!("{out}garb"));
        write(dir.path(), "errors", format!("{errors}{{\"numb"));
        let ran = resume(dir.path(), &["-k", "--resume"]);
        assert_eq!(ran.status, i32::from(cut < rows[3]), "{cut}: {}", ran.stderr);
        assert_eq!(read(dir.path(), "out"), out, "cut at {cut}");
        assert_eq!(read(dir.path(), "errors"), errors, "cut at {cut}");
        each_job_stands_in_the_log_once(dir.path(), 5);
    }
    // A log that tells of results which aren't there, as after a crash of the machine.
    write(dir.path(), "log", &log);
    write(dir.path(), "out", &out[..8]);
    resume(dir.path(), &["-k", "--resume"]).expect(1);
    assert_eq!(read(dir.path(), "out"), out);
    each_job_stands_in_the_log_once(dir.path(), 5);
}

#[test]
fn resume_failed_runs_the_failed_jobs_and_puts_their_results_in_their_places() {
    let dir = folder();
    write(dir.path(), "in", "a\nb\nc\nd\n");
    let job = format!(
        "if [ -e {}/ok ]; then ok $body; else case $body in '\"b\"'|'\"d\"') fail oh;; *) ok $body;; esac; fi; echo $body >>{0}/runs",
        dir.path().display()
    );
    let worker = map_runs::shell_worker(dir.path(), "w.sh", &job);
    let run = |more: &[&str]| {
        let mut args = ARGS.to_vec();
        args.extend_from_slice(&["-k"]);
        args.extend_from_slice(more);
        args.extend_from_slice(&["--", "sh", &worker]);
        map_in(dir.path(), &args, "")
    };
    run(&[]).expect(2);
    assert_eq!(read(dir.path(), "out"), "a\nnull\nc\nnull\n");
    run(&["--resume"]).quiet();
    assert_eq!(lines(dir.path(), "runs").len(), 4, "--resume leaves failed jobs alone");
    write(dir.path(), "ok", "");
    run(&["--resume-failed"]).quiet();
    assert_eq!(read(dir.path(), "out"), "a\nb\nc\nd\n");
    let mut again = lines(dir.path(), "runs").split_off(4);
    again.sort_unstable();
    assert_eq!(again, ["\"b\"", "\"d\""]);
    each_job_stands_in_the_log_once(dir.path(), 4);
    assert_eq!(read(dir.path(), "errors"), "");
    run(&["--resume-failed"]).quiet();
    assert_eq!(lines(dir.path(), "runs").len(), 6);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    let left: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".resum")), "{left:?}");
}

#[test]
fn a_rewrite_that_was_killed_between_its_renames_is_finished() {
    let dir = finished();
    let (out, log) = (read(dir.path(), "out"), read(dir.path(), "log"));
    // As it is left when all is written and one of two renames done.
    write(dir.path(), "out.resuming", out.replace("null", "0.003"));
    write(
        dir.path(),
        "log.resumed",
        log.replace("handler_error", "ok").replace("\t5\tno", "\t6\tno"),
    );
    let row = log.lines().nth(3).unwrap();
    let receive = row.split('\t').nth(5).unwrap();
    let fixed = row.replacen(&format!("\t{receive}\t"), "\t6\t", 1).replace("handler_error", "ok");
    write(dir.path(), "log.resumed", log.replace(row, &fixed));
    resume(dir.path(), &["-k", "--resume"]).quiet();
    assert_eq!(read(dir.path(), "out"), out.replace("null", "0.003"));
    assert!(!dir.path().join("log.resumed").exists() && !dir.path().join("out.resuming").exists());
}

#[test]
fn changed_input_is_refused_by_content() {
    let dir = finished();
    let (out, log) = (read(dir.path(), "out"), read(dir.path(), "log"));
    write(dir.path(), "in", "0.001\n0.003\nno\n0.004\n0.005\n");
    resume(dir.path(), &["-k", "--resume"]).expect(255).says(
        "remuda: the input is not the one that the job log was written for: line 2 has changed. \
         Resume with the old input, or start anew with another job log",
    );
    write(dir.path(), "in", "0.001\n0.002\nno\n");
    resume(dir.path(), &["-k", "--resume"]).expect(255).says(
        "remuda: the input is not the one that the job log was written for: it ends after line 3, \
         and the log tells of line 5. Resume with the old input, or start anew with another job log",
    );
    assert_eq!((read(dir.path(), "out"), read(dir.path(), "log")), (out, log), "nothing was lost");
    write(dir.path(), "in", "0.001\n0.002\nno\n0.004\n0.005\n0.006\n");
    resume(dir.path(), &["-k", "--resume"]).quiet();
    assert!(read(dir.path(), "out").ends_with("0.005\n0.006\n"), "input may have grown");
}

#[test]
fn what_is_no_job_log_is_left_alone() {
    let dir = folder();
    write(dir.path(), "in", numbers(2));
    write(dir.path(), "log", "my notes\n");
    resume(dir.path(), &["--resume"]).expect(255).says(
        "remuda: cannot resume from log: its first line is not the header of a job log written by \
         `remuda map --joblog`",
    );
    assert_eq!(read(dir.path(), "log"), "my notes\n");
}
