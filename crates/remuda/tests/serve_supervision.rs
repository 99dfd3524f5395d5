//! Workers that age, leak, hang, end or are killed are replaced, and `--events` says why.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::time::{Duration, Instant};

use serde_json::Value;
use serve::{Serve, signal, text};

fn restarted(serve: &Serve, reason: &str, times: u64) -> Value {
    serve.status_when(&format!("{reason} {times} times"), |status| {
        status["restarts"][reason].as_u64().unwrap_or(0) >= times
    })
}

#[test]
fn a_worker_is_replaced_after_max_jobs_and_no_job_fails() {
    let serve = Serve::start(&["-j2", "--builtin=echo", "--max-jobs", "20"]);
    let mut client = serve.client();
    let mut id = 0;
    // One that has had its jobs goes on until the fresh one is ready, which may be for many.
    serve.status_when("max_jobs 3 times", |status| {
        for _ in 0..20 {
            id += 1;
            let reply = client.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
            assert_eq!(reply["data"]["body"], id, "{reply}");
        }
        status["restarts"]["max_jobs"].as_u64().unwrap_or(0) >= 3
    });
}

#[test]
fn a_worker_is_replaced_at_its_age() {
    let serve = Serve::start(&["-j1", "--builtin=echo", "--ttl", "300ms"]);
    let first = serve.ready();
    restarted(&serve, "ttl", 2);
    assert_ne!(serve.ready(), first);
}

#[test]
fn a_worker_that_has_nothing_to_do_is_replaced() {
    let serve = Serve::start(&["-j1", "--builtin=echo", "--idle-ttl", "300ms"]);
    restarted(&serve, "idle_ttl", 2);
}

#[test]
fn a_worker_that_leaks_is_replaced_and_no_job_fails() {
    let serve = Serve::python(&["-j1", "--max-worker-memory", "60M", "--watch-tick", "20ms"]);
    let mut client = serve.client();
    let since = Instant::now();
    loop {
        let reply = client.ask(r#"{"op":"call","id":1,"body":{"leak":2000000}}"#);
        assert_eq!(reply["ok"], true, "{reply}");
        if serve.status()["restarts"]["memory"].as_u64().unwrap_or(0) >= 1 {
            break;
        }
        assert!(since.elapsed() < serve::PATIENCE, "{:#}", serve.status());
    }
}

#[test]
fn a_limit_below_what_a_fresh_worker_needs_does_not_replace_it_for_ever() {
    let serve = Serve::python(&["-j1", "--max-worker-memory", "1M", "--watch-tick", "10ms"]);
    let first = serve.ready();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(serve.ready(), first);
}

#[test]
fn a_job_over_exec_ttl_costs_its_worker_and_itself_alone() {
    let serve = Serve::python(&["-j2", "--exec-ttl", "3s"]);
    serve.ready();
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":"hangs","body":{"sleep":600}}"#);
    let mut other = serve.client();
    for id in 0..50 {
        assert_eq!(other.ask(&format!(r#"{{"op":"call","id":{id},"body":1}}"#))["ok"], true);
    }
    assert_eq!(client.reply()["code"], "timeout");
    restarted(&serve, "exec_timeout", 1);
    serve.ready();
    let events = text(&serve.run("status", &["--events"]).stdout);
    assert!(events.contains(", exec_timeout) with job \"hangs\", 13 bytes, for "), "{events}");
}

#[test]
fn the_log_says_why_no_worker_starts_and_does_not_repeat_it() {
    let serve = Serve::start(&["-j1", "--python", "no_such_file.py:f"]);
    serve.status_when("three tries", |status| {
        status["starts_failed"].as_u64().is_some_and(|starts| starts >= 3)
    });
    serve.wait_line("(slot 0, start_failed)");
    let log = serve.stderr();
    let told = log.matches("/no_such_file.py").count();
    assert_eq!(told, 1, "{log}");
    let table = text(&serve.run("status", &[]).stdout);
    let why = table.lines().find(|line| line.starts_with("no worker is ready: ")).unwrap();
    assert!(why.contains("starts in a row failed: ") && why.contains("no_such_file.py"), "{why}");
}

#[test]
fn the_log_says_once_that_a_command_is_no_worker() {
    let serve = Serve::start(&["-j1", "--", "true"]);
    serve.wait_line("a command speaks the protocol; a filter of lines needs --stdio");
    let serve = Serve::start(&["-j1", "--stdio", "--", "false"]);
    serve.status_when("three deaths", |status| status["restarts"]["lost"].as_u64() >= Some(3));
    serve.wait_line("(slot 0, lost): the filter ended with status 1 before it read a line");
    let log = serve.stderr();
    assert_eq!(log.matches("the filter ended").count(), 1, "{log}");
}

#[test]
fn status_shows_what_a_worker_uses() {
    let serve = Serve::python(&["-j1", "--watch-tick", "20ms"]);
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":1,"body":{"burn":600}}"#);
    serve.status_when("a worker at work", |status| {
        let worker = &status["workers"][0];
        worker["cpu_percent"].as_u64().is_some_and(|percent| percent > 0)
            && worker["cpu_ms"].as_u64().is_some_and(|ms| ms > 0)
            && worker["memory"].as_u64().is_some_and(|bytes| bytes > 1 << 20)
    });
    let table = text(&serve.run("status", &[]).stdout);
    assert!(table.contains(" cpu ") && table.contains('%'), "{table}");
}

#[test]
fn a_guardian_that_is_killed_is_reaped_and_the_pool_goes_on() {
    let serve = Serve::start(&["--builtin=echo", "-j1"]);
    serve.ready();
    let children = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", serve.pid()));
    let guardian: u32 = children().unwrap().trim().parse().unwrap();
    signal(guardian, "KILL");
    let since = Instant::now();
    while !children().unwrap().is_empty() {
        assert!(since.elapsed() < serve::PATIENCE, "{guardian} is a zombie");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":7}"#)["data"]["body"], 7);
}

#[test]
fn a_stopped_worker_is_noticed_within_exec_ttl() {
    let serve = Serve::python(&["-j1", "--exec-ttl", "3s"]);
    let pids = serve.ready();
    signal(pids[0], "STOP");
    let mut client = serve.client();
    let reply = client.ask(r#"{"op":"call","id":1,"body":1}"#);
    assert_eq!(reply["code"], "timeout", "{reply}");
    let reply = client.ask(r#"{"op":"call","id":2,"body":2}"#);
    assert_eq!(reply["data"]["body"], 2, "{reply}");
    assert_ne!(serve.ready(), pids);
}

#[test]
fn a_worker_that_dies_costs_the_job_that_ran_and_events_say_why() {
    let serve = Serve::python(&["-j1"]);
    serve.ready();
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":"dies","body":{"exit":3}}"#);
    for id in 0..5 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":1}}"#));
    }
    let mut lost = 0;
    for _ in 0..6 {
        let reply = client.reply();
        match reply["id"].as_str() {
            Some(_) => {
                assert_eq!(reply["code"], "worker_lost", "{reply}");
                lost += 1;
            }
            None => assert_eq!(reply["ok"], true, "those behind it had not started: {reply}"),
        }
    }
    assert_eq!(lost, 1);
    let events = text(&serve.run("status", &["--events"]).stdout);
    serve.wait_line("worker 1 (slot 0, lost) with job \"dies\", 10 bytes");
    assert!(events.contains("status 3"), "{events}");
    assert!(events.contains("the handler ends on purpose"), "the end of its stderr: {events}");
    assert!(
        events.contains(" ago worker 1 (slot 0, lost) with job \"dies\", 10 bytes"),
        "{events}"
    );
    let json = serve.run("status", &["--events", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["slot"], 0);
    assert_eq!(json[0]["reason"], "lost");
    assert_eq!(json[0]["job"]["id"], "dies");

    client.send(r#"{"op":"call","id":9,"body":{"kill":1}}"#);
    assert_eq!(client.reply()["code"], "worker_lost");
    let events = text(&serve.run("status", &["--events"]).stdout);
    assert!(events.contains("signal 9") || events.contains("SIGKILL"), "{events}");
}

#[test]
fn a_body_that_kills_its_worker_is_quarantined_and_no_other_job_fails() {
    let serve = Serve::python(&["-j2"]);
    serve.ready();
    let mut poisoner = serve.client();
    let mut other = serve.client();
    let mut times = Vec::new();
    let mut codes = Vec::new();
    for n in 0..6 {
        poisoner.send(&format!(r#"{{"op":"call","id":{n},"body":{{"kill":1}}}}"#));
        for id in 0..20 {
            let since = Instant::now();
            let reply = other.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
            times.push(since.elapsed());
            assert_eq!(reply["data"]["body"], id, "{reply}");
        }
        codes.push(poisoner.reply()["code"].as_str().unwrap().to_owned());
    }
    assert_eq!(codes[0], "worker_lost");
    assert_eq!(codes[5], "poisoned", "{codes:?}");
    times.sort();
    println!("others' p99 beside a body that kills: {:?}", times[times.len() * 99 / 100]);
}

#[test]
fn a_worker_that_ends_after_each_job_serves_all_the_same() {
    let serve = Serve::start(&["-j2", "--builtin=echo", "--max-jobs", "1"]);
    let mut client = serve.client();
    let mut times = Vec::new();
    for id in 0..40 {
        let since = Instant::now();
        let reply = client.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
        times.push(since.elapsed());
        assert_eq!(reply["data"]["body"], id, "{reply}");
    }
    times.sort();
    println!("p99 with a worker a job: {:?}", times[times.len() * 99 / 100]);
}

/// A worker that answers the first call once a file is there, and ends.
const LAST_WORDS: &str = r#"
import os, re, socket, sys, time
pool = socket.socket(fileno=int(os.environ["REMUDA_FD"]))
lines = pool.makefile("rb")
lines.readline()
offer = b'{"ok":true,"data":{"kind":"handshake","version":"1","capacity":8}}\n'
pool.sendall(offer)
call = re.search(rb'"id":(\d+)', lines.readline()).group(1)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
pool.sendall(b'{"id":%s,"ok":true,"data":{"kind":"result","body":"last words"}}\n' % call)
os._exit(0)
"#;

#[test]
fn what_a_worker_answered_before_its_end_counts_though_more_was_being_sent_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("now");
    let path = file.display().to_string();
    let serve = Serve::start(&["-j1", "--", "python3", "-c", LAST_WORDS, &path]);
    let worker = serve.ready()[0];
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":1,"body":1}"#);
    serve.status_when("it has the job", |status| status["in_flight"] == 1);
    // The pool finds more calls, and only then that the worker has answered and is gone.
    signal(serve.pid(), "STOP");
    for id in 2..8 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":1,"timeout_ms":1}}"#));
    }
    std::fs::write(&file, "").unwrap();
    while std::path::Path::new(&format!("/proc/{worker}")).exists() {
        std::thread::yield_now();
    }
    signal(serve.pid(), "CONT");
    let mut replies = (1..8).map(|_| client.reply());
    let first = replies.find(|reply| reply["id"] == 1).unwrap();
    assert_eq!(first["data"]["body"], "last words", "{first}");
}
