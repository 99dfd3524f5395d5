//! Streams that can't be written: a full disk below them, or a reader that has gone. What goes to
//! stdout was asked for, and its loss is an error; what goes to stderr ends nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use map_runs::{REMUDA, command, folder, numbers, shell_worker};

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A stream whose reader has gone.
fn broken_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// Runs `remuda ARGS` for the pool at `socket`.
fn ask(socket: &Path, args: &[&str], stdout: Stdio, stderr: Stdio) -> Output {
    let to = format!("unix:{}", socket.display());
    let mut command = Command::new(REMUDA);
    command.args([args[0], "--to", &to]).args(&args[1..]).stdout(stdout).stderr(stderr);
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// A pool of one worker that serves there; with what it says on stderr.
fn serve(dir: &Path, socket: &Path, worker: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let listen = format!("unix:{},role=admin", socket.display());
    let mut pool = Command::new(REMUDA)
        .args(["serve", "-j1", "-l", &listen, "--", "sh", worker])
        .current_dir(dir)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(pool.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("listening") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    (pool, stderr)
}

#[test]
fn failures_that_cannot_be_told_are_counted_all_the_same() {
    let dir = folder();
    for stderr in [full().into(), broken_pipe()] {
        let args = ["-j1", "--builtin", "sha256"];
        let mut run = command(dir.path(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut run.stdin.take().unwrap(), b"/a\n/b\n/dev/null\n").unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(2));
    }
}

/// What `remuda map -j1 --builtin echo` says on stderr with such streams, and its status.
fn map_with(streams: &str) -> (String, Option<i32>) {
    let script = format!("echo a | {REMUDA} map -j1 --builtin echo {streams}");
    let out = Command::new("sh").args(["-c", &script]).output().unwrap();
    (String::from_utf8_lossy(&out.stderr).into_owned(), out.status.code())
}

#[test]
fn streams_that_were_closed_are_errors() {
    let dir = folder();
    let bad = "Bad file descriptor (os error 9)\n";
    let wanted = (format!("remuda: cannot write stdout: {bad}"), Some(255));
    assert_eq!(map_with(">&-"), wanted);
    let wanted = (format!("remuda: cannot read the jobs from stdin: {bad}"), Some(255));
    assert_eq!(map_with("<&-"), wanted);
    // Nobody can be told; the status says so.
    assert_eq!(map_with(">&- 2>&-"), (String::new(), Some(255)));
    let output = dir.path().join("out");
    let input = dir.path().join("in");
    std::fs::write(&input, "a\n").unwrap();
    for streams in [
        "> /dev/null",
        "< /dev/null",
        // So does Python open its DEVNULL, and Node what it ignores.
        "1<>/dev/null",
        "0<>/dev/null",
        // They are not used.
        &format!(">&- -o {}", output.display()),
        &format!("<&- -a {} >/dev/null", input.display()),
    ] {
        assert_eq!(map_with(streams), (String::new(), Some(0)), "{streams}");
    }
    for args in ["--version", "map --help", "serve --check --builtin echo"] {
        let script = format!("{REMUDA} {args} >&-");
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_eq!(status.code(), Some(255), "{args}");
    }
}

#[test]
fn wrong_options_are_no_failed_jobs_even_if_nobody_can_be_told() {
    let dir = folder();
    for args in [&["--nosuch"][..], &[], &["--builtin", "echo", "-a", "nosuch"]] {
        let status = command(dir.path(), args).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(255), "{args:?}");
    }
}

#[test]
fn what_workers_print_for_nobody_holds_nothing_up() {
    let dir = folder();
    let worker = shell_worker(dir.path(), "worker.sh", r#"echo noise; ok "$body""#);
    std::fs::write(dir.path().join("input"), numbers(20)).unwrap();
    let args = ["-j1", "-k", "-a", "input", "--", "sh", &worker];
    let out = command(dir.path(), &args).stderr(broken_pipe()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), numbers(20));
    assert_eq!(out.status.code(), Some(0));
}

#[test]
fn a_pool_outlives_who_read_its_log() {
    let dir = folder();
    let socket = dir.path().join("pool");
    let worker = shell_worker(dir.path(), "worker.sh", r#"echo noise; ok "$body""#);
    let (mut pool, log) = serve(dir.path(), &socket, &worker);
    drop(log);
    for _ in 0..3 {
        let called = ask(&socket, &["call", "abc"], Stdio::piped(), Stdio::inherit());
        assert_eq!(String::from_utf8_lossy(&called.stdout), "abc\n");
    }
    // The log tells of a reset, too.
    assert!(ask(&socket, &["reset"], Stdio::null(), Stdio::inherit()).status.success());
    assert!(ask(&socket, &["stop"], Stdio::null(), Stdio::inherit()).status.success());
    assert_eq!(pool.wait().unwrap().code(), Some(0));
}

#[test]
fn an_answer_that_cannot_be_printed_is_an_error() {
    let dir = folder();
    let socket = dir.path().join("pool");
    let worker = shell_worker(dir.path(), "worker.sh", r#"ok "$body""#);
    let (mut pool, _log) = serve(dir.path(), &socket, &worker);
    let commands: [&[&str]; 6] = [
        &["call", "abc"],
        &["status"],
        &["status", "--json"],
        &["bench", "-n1", "--warmup", "0"],
        &["reset", "--json"],
        &["stop", "--json"],
    ];
    for args in commands {
        let out = ask(&socket, args, full().into(), Stdio::piped());
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(255), "{args:?}: {told}");
        assert!(told.starts_with("remuda: cannot write stdout: "), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
    }
    assert_eq!(pool.wait().unwrap().code(), Some(0));

    let check = ["serve", "--builtin", "echo", "--check"];
    let status = Command::new(REMUDA).args(check).stdout(full()).status().unwrap();
    assert_eq!(status.code(), Some(255));
}

#[test]
fn a_log_for_programs_has_nothing_for_people_in_it() {
    let dir = folder();
    let socket = dir.path().join("pool");
    let listen = format!("unix:{},role=admin", socket.display());
    let worker = shell_worker(dir.path(), "worker.sh", r#"echo noise; ok "$body""#);
    let run = |args: &[&str]| {
        let mut command = Command::new(REMUDA);
        command.args(["serve", "--log-json", "-j1", "-l", &listen]).args(args);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let value = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(value) => value["fields"]["message"].as_str().unwrap_or_default().to_owned(),
        Err(error) => panic!("{error}: {line}"),
    };
    let mut pool = run(&["--", "sh", &worker]);
    let mut stderr = BufReader::new(pool.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.by_ref().any(|line| value(&line).starts_with("listening at unix:")));
    let called = ask(&socket, &["call", "abc"], Stdio::piped(), Stdio::inherit());
    assert_eq!(String::from_utf8_lossy(&called.stdout), "abc\n");
    let refused = run(&["--builtin", "echo"]).wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(255));
    let refused = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.lines().any(|line| value(line).contains("is in use by process")), "{refused}");
    map_runs::signal(pool.id(), "TERM");
    assert_eq!(pool.wait().unwrap().code(), Some(0));
    let rest: Vec<_> = stderr.map(|line| value(&line)).collect();
    assert!(rest.iter().any(|message| message.starts_with("stopping: ")), "{rest:?}");
}
