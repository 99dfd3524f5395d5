//! `--spin`: looking for events before sleeping changes what a call costs, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::time::Duration;

use serve::{Serve, cpu_of, pids};

/// How long an idle pool and its workers are watched.
const IDLE: Duration = Duration::from_millis(500);
/// What each may compute meanwhile; one that goes on looking computes all the time.
const IDLE_CPU: Duration = Duration::from_millis(200);
const CALLS: u32 = 500;
/// A Python program with a function that tells for how long its worker may look.
const TOLD: &str = "import os\ndef told(_): return os.environ.get('REMUDA_SPIN_US', 'nothing')\n";
const CALL: &str = r#"{"op":"call","id":1,"body":0}"#;

fn serves_and_then_sleeps(spin: &str, workers: &str) {
    let spin = format!("--spin={spin}");
    let serve = Serve::start(&[workers, "--builtin=echo", &spin]);
    serve.ready();
    let mut client = serve.client();
    for n in 0..CALLS {
        let reply = client.ask(&format!(r#"{{"op":"call","id":{n},"body":{n}}}"#));
        assert_eq!(reply["data"]["body"], n);
    }
    let mut all = vec![serve.pid()];
    all.extend(pids(&serve.status()));
    let before: Vec<Duration> = all.iter().map(|pid| cpu_of(*pid)).collect();
    // That they do nothing takes time to see.
    std::thread::sleep(IDLE);
    for (pid, before) in all.iter().zip(before) {
        let spent = cpu_of(*pid) - before;
        assert!(spent < IDLE_CPU, "the idle {pid} computed for {spent:?} in {IDLE:?} with {spin}");
    }
}

#[test]
fn a_pool_that_never_looks_serves() {
    serves_and_then_sleeps("0", "-j1");
}

#[test]
fn a_pool_that_looks_for_long_sleeps_when_it_has_nothing_to_do() {
    serves_and_then_sleeps("20ms", "-j1");
    serves_and_then_sleeps("50us", "-j3");
}

/// What a Python worker finds in its environment for as long as it may look, in a pool with `options`.
fn told(options: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told.py");
    std::fs::write(&file, TOLD).unwrap();
    let function = format!("--python={}:told", file.display());
    let serve = Serve::start(&[&[function.as_str()], options].concat());
    serve.ready();
    serve.client().ask(CALL)["data"]["body"].clone()
}

#[test]
fn workers_are_told_for_how_long_they_may_look() {
    let processors = std::thread::available_parallelism().unwrap().get();
    // Those over rings look for a moment unless they are told not to.
    let too_many = format!("-j{}", processors + 1);
    assert_eq!(told(&[&too_many, "--spin=0"]), "0");
    if processors == 1 {
        assert_eq!(told(&["-j1"]), "nothing");
        return;
    }
    assert_eq!(told(&["-j1"]), "50");
    assert_eq!(told(&["-j1", "--spin=2ms"]), "2000");
    assert_eq!(told(&["-j1", "--spin=0"]), "0");
    // More workers than processors would take them from each other.
    assert_eq!(told(&[&too_many]), "nothing");
}

/// A worker without an SDK that tells the same.
const PLAIN: &str = r#"
import json, os, socket
lines = socket.socket(fileno=int(os.environ["REMUDA_FD"])).makefile("rw")
for line in lines:
    asked = json.loads(line)
    if asked["op"] == "handshake":
        data = {"kind": "handshake", "version": "1", "instance": "w", "pid": os.getpid(), "capacity": 1}
        answer = {"ok": True, "data": data}
    else:
        told = os.environ.get("REMUDA_SPIN_US", "nothing")
        answer = {"id": asked["id"], "ok": True, "data": {"kind": "result", "body": told}}
    lines.write(json.dumps(answer) + "\n")
    lines.flush()
"#;

#[test]
fn those_that_are_fast_leave_a_processor_to_the_pool_and_are_told_by_it_alone() {
    let processors = std::thread::available_parallelism().unwrap().get();
    for (workers, wanted) in [(processors, "nothing"), (processors - 1, "50")] {
        if workers == 0 {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut command = serve::remuda();
        // As a pool has it that is a worker itself.
        command.arg("serve").env("REMUDA_SPIN_US", "7");
        command.arg(format!("--listen=unix:{}/s,role=admin", dir.path().display()));
        command.args([&format!("-j{workers}"), "--", "python3", "-c", PLAIN]);
        let mut serve = Serve::spawn(command);
        serve.dir = Some(dir);
        serve.listening();
        assert_eq!(serve.client().ask(CALL)["data"]["body"], wanted, "{workers} workers");
    }
}

#[test]
fn workers_that_start_after_a_reset_are_told_what_holds_then() {
    let dir = tempfile::tempdir().unwrap();
    let (config, program) = (dir.path().join("remuda.toml"), dir.path().join("told.py"));
    std::fs::write(&program, TOLD).unwrap();
    let write = |spin: &str| {
        let function = format!("{}:told", program.display());
        let file =
            format!("[worker]\npython = {function:?}\n[pool]\nnum_workers = 1\nspin = {spin}\n");
        std::fs::write(&config, file).unwrap();
    };
    write("0");
    let serve = Serve::start(&["-c", config.to_str().unwrap()]);
    serve.ready();
    let told = || serve.client().ask(CALL)["data"]["body"].clone();
    assert_eq!(told(), "0");
    write("\"2ms\"");
    assert!(serve.run("reset", &[]).status.success());
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(told(), if processors > 1 { "2000" } else { "nothing" });
}

#[test]
fn a_time_that_is_out_of_range_is_an_error() {
    let output = serve::remuda().args(["serve", "--builtin=echo", "--spin=1h"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let said = serve::text(&output.stderr);
    assert!(said.contains("spin"), "{said}");
}
