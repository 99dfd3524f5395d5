//! Each option of `remuda map`, and each exit status.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

use map_runs::{fifo, folder, has, lines, map, map_in, numbers, read, shell_worker, start, write};

#[test]
fn results_of_any_order_and_of_the_input_s_order() {
    let ran = map(&["-j", "2", "--builtin", "echo"], numbers(1000)).quiet();
    let mut wanted: Vec<String> = (1..=1000).map(|n: u64| n.to_string()).collect();
    wanted.sort_unstable();
    assert_eq!(ran.sorted(), wanted);
    let ran = map(&["-j", "2", "-k", "--builtin", "echo"], numbers(1000)).quiet();
    assert_eq!(ran.text(), numbers(1000));
}

#[test]
fn with_keep_order_a_slow_job_holds_back_the_rest() {
    let ran = map(&["-j2", "-k", "--builtin", "sleep"], "0.3\n0.01\n0.02\n").quiet();
    assert_eq!(ran.text(), "0.3\n0.01\n0.02\n");
    // Without it, what is done comes out, and the slow one once it may end.
    let dir = folder();
    let gate = fifo(dir.path(), "gate");
    let job = format!("case $body in '\"slow\"') read -r go <{};; esac; ok $body", gate.display());
    let worker = shell_worker(dir.path(), "w.sh", &job);
    let mut run = start(dir.path(), &["-j2", "--", "sh", &worker]);
    run.give("slow\na\nb\n", false);
    let mut first = [0; 4];
    run.child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"a\nb\n");
    std::fs::write(&gate, "go\n").unwrap();
    let (status, stdout, stderr) = run.end();
    assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(0), "slow\n", ""));
}

#[test]
fn jobs_says_how_many_workers_run() {
    let dir = folder();
    for jobs in [1, 3] {
        // No job ends before so many workers are there.
        let meet = format!(
            "mkdir -p slots{jobs}/$REMUDA_WORKER_SLOT; \
             until [ $(ls slots{jobs} | wc -l) -ge {jobs} ]; do sleep 0.01; done; \
             sleep 0.01; ok $REMUDA_WORKER_SLOT"
        );
        let worker = shell_worker(dir.path(), "s.sh", &meet);
        let args = ["-j", &jobs.to_string(), "--timeout=60s", "--", "sh", &worker];
        let ran = map_in(dir.path(), &args, numbers(30)).quiet();
        let mut slots = ran.sorted();
        slots.dedup();
        assert_eq!(slots, ["0", "1", "2"][..jobs]);
    }
    map(&["-j", "0", "--builtin", "echo"], "").expect(255).tells(&["0", "1 to 1024"]);
}

#[test]
fn there_are_never_more_workers_than_jobs() {
    let dir = folder();
    let worker = shell_worker(dir.path(), "w.sh", "sleep 0.3; ok $REMUDA_WORKER_SLOT");
    let script = read(dir.path(), "w.sh");
    write(dir.path(), "w.sh", format!("echo $REMUDA_WORKER_SLOT >> started\n{script}"));
    let ran = map_in(dir.path(), &["-j1024", "--", "sh", &worker], "a\nb\nc\n").quiet();
    assert_eq!(ran.text().lines().count(), 3);
    let started = read(dir.path(), "started");
    assert!(started.lines().all(|slot| ["0", "1", "2"].contains(&slot)), "{started}");

    // They are there for jobs that come later, too: each of these waits for the other.
    let meet =
        "echo here >&2; echo x >> met; until [ $(grep -c x met) = 2 ]; do sleep 0.01; done; ok 1";
    let worker = shell_worker(dir.path(), "m.sh", meet);
    let mut run = start(dir.path(), &["-j2", "--timeout=60s", "--", "sh", &worker]);
    run.give("a\n", true);
    run.hears("here");
    run.give("b\n", false);
    let (status, stdout, stderr) = run.end();
    assert!(status.success() && stdout == "1\n1\n", "{stdout}{stderr}");
}

#[test]
fn jobs_can_go_by_the_cores() {
    let dir = folder();
    let cores = std::thread::available_parallelism().unwrap().get();
    for (jobs, workers) in [("100%", cores), ("+1", cores + 1), ("-1", (cores - 1).max(1))] {
        // No job ends before so many workers are there.
        let meet = format!(
            "mkdir -p slots{jobs}/$REMUDA_WORKER_SLOT; \
             until [ $(ls slots{jobs} | wc -l) -ge {workers} ]; do sleep 0.01; done; \
             sleep 0.01; ok $REMUDA_WORKER_SLOT"
        );
        let worker = shell_worker(dir.path(), "s.sh", &meet);
        let args = ["-j", jobs, "--timeout=60s", "--", "sh", &worker];
        let ran = map_in(dir.path(), &args, numbers(10 * workers as u64)).quiet();
        let slots: std::collections::BTreeSet<&str> = ran.text().lines().collect();
        assert_eq!(slots.len(), workers, "{jobs}: {slots:?}");
    }
    for jobs in ["0", "x", "2000", "200000%"] {
        let said = map(&["-j", jobs, "--builtin", "echo"], "").expect(255);
        said.tells(&["+N more, -N fewer, N% of them"]);
    }
}

#[test]
fn input_comes_from_a_file_and_output_goes_to_one() {
    let dir = folder();
    write(dir.path(), "in", "a\nb\n");
    let args = ["-k", "-a", "in", "-o", "out", "--builtin", "echo"];
    assert_eq!(map_in(dir.path(), &args, "not this\n").quiet().text(), "");
    assert_eq!(read(dir.path(), "out"), "a\nb\n");
    map_in(dir.path(), &["-a", "none", "--builtin", "echo"], "")
        .expect(255)
        .says("remuda: cannot read the jobs from none: No such file or directory (os error 2)");
    map_in(dir.path(), &["-a", ".", "--builtin", "echo"], "").expect(255).tells(&["cannot read"]);
    map_in(dir.path(), &["-o", "no/out", "--builtin", "echo"], "")
        .expect(255)
        .tells(&["cannot write to no/out"]);
}

#[test]
fn nul_ends_jobs_and_names_with_line_breaks_are_escaped() {
    let dir = folder();
    write(dir.path(), "a\nb", "abc");
    write(dir.path(), "plain", "");
    let ran = map_in(dir.path(), &["-0", "-k", "--builtin", "sha256"], "a\nb\0plain\0").quiet();
    let theirs = std::process::Command::new("sha256sum")
        .args(["a\nb", "plain"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(ran.stdout, theirs.stdout);
}

#[test]
fn json_in_and_json_out() {
    let input = "{\"a\": [1, 2]}\n\"x\\ny\"\n 3 \nnope\n[4]";
    let ran = map(&["-k", "--json", "--builtin", "echo"], input).expect(1);
    assert_eq!(ran.text(), "{\"a\": [1, 2]}\n\"x\\ny\"\n3\n[4]");
    ran.says("remuda: line 4: bad_request: the line is not a JSON value: not valid JSON at byte 0");
}

#[test]
fn text_results_are_printed_raw_and_others_as_json() {
    let dir = folder();
    let job = r#"case $body in '"s"') ok '"a\tb"';; '"n"') ok null;; '"o"') ok '{"k":[1]}';; *) ok '"a\nb"';; esac"#;
    let worker = shell_worker(dir.path(), "w.sh", job);
    let ran = map(&["-k", "-j1", "--", "sh", &worker], "s\nn\no\nbreak\n").expect(1);
    assert_eq!(ran.text(), "a\tb\nnull\n{\"k\":[1]}\n");
    ran.says(
        "remuda: line 4: handler_error: the result holds a line break: use --json, or return one \
         line",
    );
}

#[test]
fn what_is_not_utf8_is_for_filters_alone() {
    let ran = map(&["-k", "--builtin", "echo"], &b"a\n\xff\xfe\nb\n"[..]).expect(1);
    assert_eq!(ran.text(), "a\nb\n");
    ran.tells(&["line 2", "not UTF-8", "--stdio"]);
}

/// A worker that counts its runs in `runs`, and fails the bodies that begin with `f`.
fn counting(dir: &std::path::Path) -> String {
    let job = format!(
        "echo $body >>{}/runs; case $body in '\"f'*) fail oh;; '\"d'*) exit 7;; '\"s'*) sleep \
         100;; *) ok $body;; esac",
        dir.display()
    );
    shell_worker(dir, "count.sh", &job)
}

fn runs(dir: &std::path::Path, body: &str) -> usize {
    lines(dir, "runs").iter().filter(|line| line.trim_matches('"') == body).count()
}

#[test]
fn retries_are_tries_in_all_whatever_the_failure() {
    let dir = folder();
    let worker = counting(dir.path());
    let ran = map(&["-j1", "--retries", "3", "--", "sh", &worker], "a\nf1\nd1\n").expect(2);
    assert_eq!(ran.text(), "a\n");
    assert_eq!((runs(dir.path(), "f1"), runs(dir.path(), "d1")), (3, 3));
    ran.tells(&["line 2", "handler_error: oh"]).tells(&["line 3", "poisoned"]);
}

#[test]
fn without_retries_a_failed_job_is_not_run_again() {
    let dir = folder();
    let worker = counting(dir.path());
    map(&["-j1", "--", "sh", &worker], "f1\n").expect(1).tells(&["line 1: handler_error: oh"]);
    assert_eq!(runs(dir.path(), "f1"), 1);
}

#[test]
fn retry_on_names_the_failures_that_count() {
    let dir = folder();
    let worker = counting(dir.path());
    map(&["-j1", "--retry-on", "error", "--", "sh", &worker], "f1\nd1\n").expect(2);
    assert_eq!((runs(dir.path(), "f1"), runs(dir.path(), "d1")), (3, 1));
    map(&["-j1", "--retry-on", "lost", "--retries=2", "--", "sh", &worker], "f2\nd2\n").expect(2);
    assert_eq!((runs(dir.path(), "f2"), runs(dir.path(), "d2")), (1, 2));
    let args = ["-j1", "--retry-on", "timeout", "--timeout=2", "--retries=2", "--", "sh", &worker];
    map(&args, "s1\nf3\n").expect(2).tells(&["line 1: timeout"]);
    assert_eq!((runs(dir.path(), "s1"), runs(dir.path(), "f3")), (2, 1));
}

#[test]
fn at_most_once_runs_no_job_twice() {
    let dir = folder();
    let worker = counting(dir.path());
    let ran = map(&["-j1", "--at-most-once", "--", "sh", &worker], "a\nd1\nb\n").expect(1);
    assert_eq!(ran.text(), "a\nb\n");
    assert_eq!(runs(dir.path(), "d1"), 1);
    ran.says("remuda: line 2: worker_lost: the worker exited with status 7 while it had the job");
    map(&["--at-most-once", "--retries=2", "--builtin", "echo"], "")
        .expect(255)
        .tells(&["--at-most-once", "cannot be used with"]);
}

#[test]
fn poison_after_says_how_many_workers_a_job_may_cost() {
    let dir = folder();
    let worker = counting(dir.path());
    map(&["-j1", "--poison-after", "2", "--", "sh", &worker], "d1\na\n").expect(1).says(
        "remuda: line 1: poisoned: 2 workers died while they had this job: it is not tried again. \
         The last time, the worker exited with status 7",
    );
    assert_eq!(runs(dir.path(), "d1"), 2);
}

#[test]
fn a_job_over_its_time_is_stopped_with_all_it_started_and_its_worker_is_replaced() {
    let dir = folder();
    let job = "case $body in '\"slow\"') sleep 1000;; *) ok $body;; esac";
    let worker = shell_worker(dir.path(), "w.sh", job);
    for time in ["2.5", "2500ms"] {
        let began = Instant::now();
        let args = ["-j1", "-k", "--timeout", time, "--", "sh", &worker];
        let ran = map(&args, "a\nslow\nb\n").expect(1);
        assert_eq!(ran.text(), "a\nb\n");
        ran.says(
            "remuda: line 2: timeout: the job ran for longer than exec_ttl (of map: --timeout), and \
             its worker was killed",
        );
        assert!(began.elapsed() < map_runs::LONG / 2);
    }
    let args = ["--timeout", "soon", "--builtin", "echo"];
    map(&args, "")
        .expect(255)
        .tells(&["`soon` is not a time: give seconds (2, 0.5), or 50us, 150ms"]);
}

#[test]
fn waiting_does_not_count_as_running() {
    // Ten jobs of 300 ms on one worker: the last waits for longer than any may run.
    let args = ["-j1", "--timeout", "2.5", "--builtin", "sleep"];
    map(&args, "0.3\n".repeat(10)).quiet();
}

#[test]
fn halt_now_and_soon() {
    let dir = folder();
    let worker = counting(dir.path());
    let input: String = "f\n".to_owned() + &numbers(5000);
    let ran = map(&["-j1", "--halt", "now,fail=1", "--", "sh", &worker], input.as_str()).expect(1);
    assert!(ran.text().lines().count() < 5000);
    let ran = map(&["-j1", "--halt", "soon,success=3", "--", "sh", &worker], input).expect(0);
    assert!((3..100).contains(&ran.text().lines().count()), "{}", ran.text());
    let input = "f\n".repeat(3) + &numbers(5000);
    let args = ["-j1", "--halt", "now,fail=50%", "--", "sh", &worker];
    let ran = map(&args, input).expect(3);
    assert!(ran.text().lines().count() < 5000);
    let args = ["--halt", "later", "--builtin", "echo"];
    map(&args, "").expect(255).tells(&["`later` is not of the form", "soon,fail=3"]);
    assert_eq!(map(&["--halt", "never", "--builtin", "echo"], "1\n").quiet().text(), "1\n");
}

#[test]
fn the_job_log_has_the_columns_of_gnu_parallel() {
    let dir = folder();
    let worker = counting(dir.path());
    let log = dir.path().join("log");
    let args =
        ["-j1", "-k", "--at-most-once", "--joblog", log.to_str().unwrap(), "--", "sh", &worker];
    map(&args, "a\tb\nf1\nd1\n").expect(2);
    let rows = lines(dir.path(), "log");
    assert_eq!(
        rows[0],
        "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tCode\tHash"
    );
    let rows: Vec<Vec<&str>> = rows[1..].iter().map(|row| row.split('\t').collect()).collect();
    assert_eq!(rows.len(), 3);
    let of = |row: usize, columns: &[usize]| -> Vec<&str> {
        columns.iter().map(|column| rows[row][*column]).collect()
    };
    assert_eq!(of(0, &[0, 4, 5, 6, 7, 8, 9]), ["1", "3", "4", "0", "0", "a\\tb", "ok"]);
    assert_eq!(of(1, &[0, 4, 5, 6, 7, 8, 9]), ["2", "2", "0", "1", "0", "f1", "handler_error"]);
    assert_eq!(of(2, &[0, 4, 5, 6, 7, 8, 9]), ["3", "2", "0", "1", "0", "d1", "worker_lost"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for row in &rows {
        let started: f64 = row[2].parse().unwrap();
        assert!((now.as_secs_f64() - started).abs() < 600.0, "{started}");
        assert!(row[3].parse::<f64>().unwrap() < 600.0);
        assert_eq!(row[10].len(), 16);
    }
}

#[test]
fn a_signal_stands_in_the_job_log() {
    let dir = folder();
    let worker = shell_worker(dir.path(), "w.sh", "kill -9 $$");
    let log = dir.path().join("log");
    let args = ["-j1", "--at-most-once", "--joblog", log.to_str().unwrap(), "--", "sh", &worker];
    map(&args, "a\n").expect(1).tells(&["worker_lost", "killed by signal 9 (SIGKILL)"]);
    let row = lines(dir.path(), "log")[1].clone();
    assert_eq!(row.split('\t').nth(7), Some("9"), "{row}");
}

#[test]
fn on_error_null_keeps_result_n_at_line_n() {
    let dir = folder();
    let worker = counting(dir.path());
    let args = ["-j2", "-k", "--on-error", "null", "--", "sh", &worker];
    assert_eq!(map(&args, "a\nf1\nb\nf2").expect(2).text(), "a\nnull\nb\nnull");
    let args = ["-j1", "-k", "--on-error", "skip", "--", "sh", &worker];
    assert_eq!(map(&args, "a\nf1\nb\n").expect(1).text(), "a\nb\n");
    let args = ["-j1", "-k", "--on-error", "halt", "--", "sh", &worker];
    let ran = map(&args, "a\nf1\n".to_owned() + &numbers(5000)).expect(1);
    assert!(ran.text().lines().count() < 5000);
}

#[test]
fn errors_has_a_line_of_json_for_each_failed_job() {
    let dir = folder();
    let worker = counting(dir.path());
    let errors = dir.path().join("errors");
    let args = ["-j1", "-k", "--errors", errors.to_str().unwrap(), "--", "sh", &worker];
    map(&args, "a\nf \"1\"\nb\n").expect(1);
    assert_eq!(
        read(dir.path(), "errors"),
        "{\"number\":2,\"input\":\"f \\\"1\\\"\",\"code\":\"handler_error\",\"message\":\"oh\"}\n"
    );
}

#[test]
fn equal_failures_are_grouped() {
    let dir = folder();
    let worker = counting(dir.path());
    let ran = map(&["-j1", "-k", "--", "sh", &worker], "a\n".to_owned() + &"f\n".repeat(120));
    ran.expect(101).says(
        "remuda: line 2: handler_error: oh\n\
         remuda: handler_error: oh, 120 times, first at line 2",
    );
}

#[test]
fn tag_puts_the_job_before_its_result() {
    let ran = map(&["-k", "--tag", "--builtin", "echo"], "a\nb").quiet();
    assert_eq!(ran.text(), "a\ta\nb\tb");
    let args = ["-k", "--tag", "--on-error", "null", "--builtin", "sleep"];
    assert_eq!(map(&args, "0\nno\n").expect(1).text(), "0\t0\nno\tnull\n");
}

#[test]
fn the_bar_is_for_terminals_unless_it_is_asked_for() {
    let ran = map(&["--builtin", "echo"], numbers(10)).quiet();
    assert_eq!(ran.text().lines().count(), 10);
    let ran = map(&["--bar", "-j2", "--builtin", "sleep"], "0.3\n".repeat(24)).expect(0);
    assert_eq!(ran.text().lines().count(), 24);
    // No terminal: a line now and then, the first after a second.
    ran.tells(&["/24 done, ", "/s, 2/2 busy"]);
    if !has("script") {
        return;
    }
    // A terminal: `script` makes one.
    let command =
        format!("yes 0.2 | head -20 | {} map -j2 --builtin sleep > /dev/null", map_runs::REMUDA);
    let mut script = std::process::Command::new("script");
    // Nothing is drawn where nobody says what the terminal can do.
    let out = script.args(["-qefc", &command, "/dev/null"]).env("TERM", "xterm").output();
    let text = String::from_utf8_lossy(&out.unwrap().stdout).into_owned();
    for part in ["/20", "/s", "left", "/2 busy"] {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
}

#[test]
fn exit_statuses() {
    for (failing, status) in [(0, 0), (1, 1), (100, 100), (101, 101), (150, 101)] {
        let input = "no\n".repeat(failing) + "0\n";
        map(&["-j2", "--builtin", "sleep"], input).expect(status);
    }
    map(&["--no-such-option"], "").expect(255).tells(&["unexpected argument '--no-such-option'"]);
    map(&[], "").expect(255).tells(&["no worker given", "--builtin NAME"]);
    map(&["--builtin", "echo", "--", "cat"], "").expect(255).tells(&["more than one worker"]);
    map(&["--stdio", "--builtin", "echo"], "").expect(255).tells(&["--stdio needs a filter"]);
}

#[test]
fn max_jobs_replaces_workers_and_ids_and_slots_tell() {
    let dir = folder();
    let job = "ok \"\\\"$REMUDA_WORKER_ID/$REMUDA_WORKER_SLOT\\\"\"";
    let worker = shell_worker(dir.path(), "w.sh", job);
    let mut run = start(dir.path(), &["-j1", "--max-jobs", "2", "--", "sh", &worker]);
    let mut results = BufReader::new(run.child.stdout.take().unwrap());
    let mut jobs = vec![0];
    // One that has had its jobs goes on until the fresh one is ready, which may be for many.
    while jobs.len() < 5 {
        run.give("a\n", true);
        let mut line = String::new();
        results.read_line(&mut line).unwrap();
        let (id, slot) = line.trim_end().split_once('/').unwrap();
        assert_eq!(slot, "0");
        let id: usize = id.parse().unwrap();
        jobs.resize(jobs.len().max(id + 1), 0);
        jobs[id] += 1;
    }
    assert!(run.end().0.success());
    let (_, replaced) = jobs[1..].split_last().unwrap();
    assert!(replaced.iter().all(|jobs| *jobs >= 2), "not before their time: {jobs:?}");
}

#[test]
fn help_says_which_options_are_the_worker_s() {
    for command in ["map", "serve"] {
        let help = std::process::Command::new(map_runs::REMUDA).args([command, "-h"]).output();
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        let at = |words: &str| help.find(words).unwrap_or_else(|| panic!("no {words:?}: {help}"));
        let (own, worker, pool) = (at("Options:\n"), at("Worker (one of):\n"), at("Pool:\n"));
        assert!(own < at("  -j, --") && at("  -j, --") < worker, "{help}");
        assert!(worker < at("--stdio") && at("[COMMAND]...  ") < pool, "{help}");
    }
}

#[test]
fn who_types_the_jobs_is_told_that_they_are_waited_for() {
    if !has("script") {
        return;
    }
    // It gives the command a terminal, which ends where this input does.
    let command = format!("{} map --builtin echo", map_runs::REMUDA);
    let ran = assert_cmd::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .write_stdin("typed\n")
        .timeout(map_runs::LONG)
        .unwrap();
    let shown = String::from_utf8(ran.stdout).unwrap();
    assert!(shown.contains("jobs are read from the terminal, one a line"), "{shown}");
    // Nobody is told who gives them in another way.
    map(&["--builtin", "echo"], "a\n").quiet();
}
