//! How a run ends: killed, interrupted, or with nobody left to read it. Nothing is left of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::io::{BufRead, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use map_runs::{command, fifo, folder, has, numbers, open_fifo, shell_worker, start};

/// What the issue allows is one second; a machine under load may take longer for anything.
const GONE: Duration = Duration::from_secs(10);

/// Processes with `token` in their environment.
fn left(token: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if memchr::memmem::find(&environ, token.as_bytes()).is_some() {
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&cmdline).replace('\0', " "));
        }
    }
    found
}

/// Each job starts a grandchild that forked twice and has a session of its own; all hold `alive`.
fn clinging(dir: &Path) -> String {
    let alive = dir.join("alive");
    let alive = alive.display();
    let job = format!(
        "exec 9>>{alive}; (setsid sh -c 'trap \"\" TERM HUP INT; (sleep 1000; :) & echo up >&9; \
         wait' &) ; sleep 1000"
    );
    shell_worker(dir, "cling.sh", &job)
}

fn killed_pool_leaves_nothing(mode: &str) {
    if !has("setsid") {
        return;
    }
    let dir = folder();
    let token = format!("TEST_TOKEN={}", dir.path().display());
    let alive = fifo(dir.path(), "alive");
    let worker = clinging(dir.path());
    let home = dir.path().join("tmp");
    std::fs::create_dir(&home).unwrap();
    let mut run = command(dir.path(), &["-j2", "--pid-namespace", mode, "--", "sh", &worker])
        .env("TEST_TOKEN", dir.path())
        .env("TMPDIR", &home)
        .env("XDG_RUNTIME_DIR", &home)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut run.stdin.take().unwrap(), b"1\n2\n").unwrap();
    let mut alive = open_fifo(&alive);
    for _ in 0..2 {
        let mut line = String::new();
        alive.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
    }
    assert!(left(&token).len() > 4, "the workers and their grandchildren run");
    let started = Instant::now();
    run.kill().unwrap();
    run.wait().unwrap();
    // The end comes when none of them holds it any more.
    assert_eq!(alive.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(started.elapsed() < GONE, "it took {:?}", started.elapsed());
    eprintln!("all were gone after {:?}", started.elapsed());
    // The keeper ends once it has reaped them, by a moment later than their descriptors.
    while !left(&token).is_empty() {
        assert!(started.elapsed() < GONE, "left: {:?}", left(&token));
        std::thread::yield_now();
    }
    let files: Vec<_> = std::fs::read_dir(&home).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn a_killed_pool_leaves_nothing_with_a_pid_namespace_where_permitted() {
    killed_pool_leaves_nothing("auto");
}

#[test]
fn a_killed_pool_leaves_nothing_without_a_pid_namespace() {
    killed_pool_leaves_nothing("never");
}

#[test]
fn escapees_of_a_replaced_worker_are_killed() {
    if !has("setsid") {
        return;
    }
    for mode in ["auto", "never"] {
        let dir = folder();
        let alive = fifo(dir.path(), "alive");
        let ready = fifo(dir.path(), "ready");
        // The job ends once its escapee runs.
        let job = format!(
            "if [ $REMUDA_WORKER_ID = 1 ]; then (exec 9>>{}; setsid sh -c 'trap \"\" TERM; echo up \
             >&9; echo up >{ready}; sleep 1000' &); read -r up <{ready}; fi; ok $body",
            alive.display(),
            ready = ready.display()
        );
        let worker = shell_worker(dir.path(), "escape.sh", &job);
        let args = ["-j1", "--max-jobs=1", "--pid-namespace", mode, "--", "sh", &worker];
        let mut run = start(dir.path(), &args);
        run.give("1\n", true);
        let mut alive = open_fifo(&alive);
        let mut line = String::new();
        alive.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        // Its worker has had its one job: it is replaced, and the escapee goes with it.
        assert_eq!(alive.read_to_end(&mut Vec::new()).unwrap(), 0);
        let (status, stdout, _) = run.end();
        assert!(status.success() && stdout == "1\n", "{status:?} {stdout}");
    }
}

/// A worker whose jobs tell that they run, then wait until the test opens the gate.
fn gated(dir: &Path) -> (String, std::path::PathBuf, std::path::PathBuf) {
    let (running, gate) = (fifo(dir, "running"), fifo(dir, "gate"));
    let job = format!("echo run >{}; read -r go <{}; ok $body", running.display(), gate.display());
    (shell_worker(dir, "gated.sh", &job), running, gate)
}

#[test]
fn the_first_ctrl_c_lets_running_jobs_finish() {
    for name in ["INT", "TERM"] {
        let dir = folder();
        let (worker, running, gate) = gated(dir.path());
        let mut run = start(dir.path(), &["-j1", "--", "sh", &worker]);
        run.give(&numbers(50), false);
        open_fifo(&running).read_line(&mut String::new()).unwrap();
        run.signal(name);
        run.hears("interrupted: running jobs finish; once more to kill them");
        std::fs::write(&gate, "go\n").unwrap();
        let (status, stdout, stderr) = run.end();
        assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(130), "1\n", ""));
    }
}

#[test]
fn the_second_ctrl_c_kills_at_once() {
    let dir = folder();
    let (worker, running, _gate) = gated(dir.path());
    let mut run = start(dir.path(), &["-j1", "--", "sh", &worker]);
    run.give(&numbers(50), true);
    open_fifo(&running).read_line(&mut String::new()).unwrap();
    run.signal("INT");
    run.hears("interrupted");
    run.signal("INT");
    let (status, stdout, stderr) = run.end();
    assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(130), "", ""));
}

#[test]
fn what_the_second_ctrl_c_killed_is_accounted_for_where_it_may_not_run_again() {
    let dir = folder();
    let (worker, running, _gate) = gated(dir.path());
    let log = dir.path().join("log").display().to_string();
    let options = ["-j1", "--at-most-once", "--joblog", &log, "--", "sh", &worker];
    let mut run = start(dir.path(), &options);
    run.give(&numbers(50), true);
    open_fifo(&running).read_line(&mut String::new()).unwrap();
    run.signal("INT");
    run.hears("interrupted");
    run.signal("INT");
    assert_eq!(run.end().0.code(), Some(130));
    let log = std::fs::read_to_string(log).unwrap();
    let rows: Vec<Vec<&str>> = log.lines().skip(1).map(|row| row.split('\t').collect()).collect();
    let told: Vec<_> = rows.iter().map(|row| (row[0], row[9])).collect();
    assert_eq!(told, [("1", "worker_lost")], "{log}");
}

#[test]
fn ctrl_c_before_any_input_ends_the_run() {
    let dir = folder();
    let mut run = start(dir.path(), &["-j1", "--builtin", "echo"]);
    // Its first answer shows that it listens for signals.
    run.give("a\n", true);
    let mut first = [0; 2];
    run.child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    run.signal("INT");
    run.hears("interrupted");
    let (status, stdout, stderr) = run.end();
    assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(130), "", ""));
}

#[test]
fn a_closed_stdout_ends_everything_quietly() {
    let dir = folder();
    let script = format!("yes | {} map -j2 --builtin echo 2>err | head -1", map_runs::REMUDA);
    let out = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "y\n");
    assert_eq!(map_runs::read(dir.path(), "err"), "");
}

#[test]
fn the_shells_streams_are_never_set_non_blocking() {
    let dir = folder();
    let script = format!(
        "{} map -j1 --builtin echo >/dev/null; grep flags: /proc/self/fdinfo/0",
        map_runs::REMUDA
    );
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(shell.stdin.take());
    let mut text = String::new();
    shell.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    shell.wait().unwrap();
    let flags = u32::from_str_radix(text.trim().trim_start_matches("flags:").trim(), 8).unwrap();
    assert_eq!(flags & 0o4000, 0, "O_NONBLOCK was left on the shared stdin: {text}");
}

/// Workers that can't be had, each in its own way.
const NO_WORKERS: [&[&str]; 4] = [
    &["-j2", "--", "nosuch-command"],
    &["-j2", "--stdio", "--", "nosuch-command"],
    &["-j2", "--", "sh", "-c", "exit 78"],
    &["-j2", "--attach", "unix:nosuch/socket"],
];

#[test]
fn an_input_without_a_job_needs_no_worker() {
    let dir = folder();
    for args in NO_WORKERS {
        // At once, and after the workers were found to be none.
        map_runs::map_in(dir.path(), args, "").expect(0);
        let mut run = start(dir.path(), args);
        std::thread::sleep(Duration::from_millis(200));
        assert!(run.child.try_wait().unwrap().is_none(), "{args:?}: a job may still come");
        let (status, stdout, _) = run.end();
        assert_eq!((status.code(), stdout.as_str()), (Some(0), ""), "{args:?}");
    }
    if has("python3") {
        let args = ["-j2", "--python", "nosuch.py:handle"];
        map_runs::map_in(dir.path(), &args, "").expect(0);
        map_runs::map_in(dir.path(), &args, "a\n").expect(255).tells(&["no worker can be started"]);
    }
}

#[test]
fn a_wrong_worker_is_told_of_once_there_is_a_job() {
    let dir = folder();
    for args in &NO_WORKERS[..3] {
        let mut run = start(dir.path(), args);
        std::thread::sleep(Duration::from_millis(50));
        run.give("a\n", true);
        run.hears("remuda: no worker can be started");
        let (status, ..) = run.end();
        assert_eq!(status.code(), Some(255), "{args:?}");
    }
    if has("script") {
        // Who types jobs hears of it before the first.
        let command = format!("{} map -- nosuch-command", map_runs::REMUDA);
        let mut run = std::process::Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        run.stdout.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(told.contains("remuda: no worker can be started"), "{told}");
        drop(run.stdin.take());
        assert_eq!(run.wait().unwrap().code(), Some(255));
    }
}
