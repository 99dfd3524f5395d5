//! Limits that supervise: a worker's jobs, the time of a start and of a reset, and HTTP's own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serve::{Serve, remuda, signal, text};

#[test]
fn no_worker_is_replaced_long_before_max_jobs_and_not_all_at_the_same_count() {
    let serve = Serve::python(&["-j2", "--max-jobs", "100"]);
    let mut client = serve.client();
    let mut jobs: BTreeMap<u64, u64> = BTreeMap::new();
    // A worker serves on until the one that follows it is ready, however slowly that starts.
    let since = Instant::now();
    for id in 0u64.. {
        assert!(since.elapsed() < serve::PATIENCE, "too few were replaced: {jobs:?}");
        let call = format!(r#"{{"op":"call","id":{id},"body":{{"env":["REMUDA_WORKER_ID"]}}}}"#);
        let reply = client.ask(&call);
        let worker = reply["data"]["body"]["REMUDA_WORKER_ID"].as_str().unwrap();
        *jobs.entry(worker.parse().unwrap()).or_default() += 1;
        if jobs.len() > 6 {
            break;
        }
    }
    let status = serve.status();
    let still: Vec<u64> = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|worker| worker["worker"].as_u64())
        .collect();
    let counts: Vec<u64> =
        jobs.iter().filter(|(id, _)| !still.contains(id)).map(|(_, count)| *count).collect();
    println!("jobs of the workers that were replaced: {counts:?}");
    assert!(counts.len() >= 3, "{counts:?}");
    assert!(counts.iter().all(|count| *count >= 90), "{counts:?}");
    assert!(counts.iter().any(|count| *count != counts[0]), "all at the same count: {counts:?}");
}

#[test]
fn a_worker_that_does_not_start_in_time_is_killed_and_another_is_tried() {
    // It holds its socket, and never shakes hands.
    let args = ["-j1", "--allocate-timeout", "1s", "--", "sh", "-c", "echo waits >&2; sleep 600"];
    let serve = Serve::start(&args);
    let status = serve
        .status_when("two starts failed", |status| status["starts_failed"].as_u64().unwrap() >= 2);
    assert_eq!(status["ready"], false);
    let events = text(&serve.run("status", &["--events"]).stdout);
    assert!(events.contains("waits"), "the end of what it printed: {events}");
    let json = serve.run("status", &["--events", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json[0]["killed"], "allocate_timeout", "{json}");
    // A job's own time limit holds meanwhile.
    let call = r#"{"op":"call","id":1,"timeout_ms":50,"body":1}"#;
    assert_eq!(serve.client().ask(call)["code"], "queue_timeout");
}

#[test]
fn a_reset_whose_workers_are_too_slow_fails_at_its_timeout_and_the_old_ones_stay() {
    let serve = Serve::python(&["-j2", "--reset-timeout", "8s"]);
    let before = serve.ready();
    let file = serve.file("work.py");
    let handler = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("import time\ntime.sleep(600)\n{handler}")).unwrap();
    let since = Instant::now();
    let reset = serve.run("reset", &[]);
    assert_eq!(reset.status.code(), Some(1), "{}", text(&reset.stderr));
    assert!(since.elapsed() >= Duration::from_secs(8));
    assert_eq!(serve.ready(), before, "the old ones stay");
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
    std::fs::write(&file, handler).unwrap();
    let reset = serve.run("reset", &[]);
    assert!(reset.status.success(), "{}", text(&reset.stderr));
    assert!(serve.ready().iter().all(|pid| !before.contains(pid)));
}

/// Calls one after the other on `callers` connections until `until`, and gives how long each that
/// was answered took, and the codes of the others.
fn callers(serve: &Serve, callers: usize, until: Instant) -> (Vec<Duration>, Vec<String>) {
    let seen: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = serve.client();
                    let (mut times, mut codes) = (Vec::new(), Vec::new());
                    while Instant::now() < until {
                        let since = Instant::now();
                        let reply = client.ask(r#"{"op":"call","id":1,"body":1}"#);
                        match reply["ok"] == true {
                            true => times.push(since.elapsed()),
                            false => codes.push(reply["code"].as_str().unwrap().to_owned()),
                        }
                    }
                    (times, codes)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut times: Vec<_> = seen.iter().flat_map(|(times, _)| times.clone()).collect();
    times.sort();
    (times, seen.into_iter().flat_map(|(_, codes)| codes).collect())
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

#[test]
fn a_stopped_worker_costs_its_own_job_and_others_go_on() {
    let serve = Serve::python(&["-j2", "--exec-ttl", "3s"]);
    let workers = serve.ready();
    signal(workers[0], "STOP");
    let (times, codes) = callers(&serve, 4, Instant::now() + Duration::from_secs(5));
    println!("others' p99 beside a stopped worker: {:?} of {} calls", p99(&times), times.len());
    assert_eq!(codes, ["timeout"], "one job was at the stopped worker");
    serve.status_when("it was replaced", |status| status["restarts"]["exec_timeout"] == 1);
}

#[test]
fn what_was_answered_while_the_pool_was_stopped_was_in_time() {
    let in_time = |shm: &str| {
        let serve = Serve::start(&["-j2", "--exec-ttl=3s", "--builtin=sleep", shm]);
        serve.ready();
        let mut client = serve.client();
        client.send(r#"{"op":"call","id":1,"body":1}"#);
        client.send(r#"{"op":"call","id":2,"body":1,"timeout_ms":2900}"#);
        // Not that they run: they may have ended before this is seen.
        serve.status_when("both were taken", |status| {
            status["jobs"]["accepted"] == 2 && status["queued"] == 0
        });
        serve.signal("STOP");
        std::thread::sleep(Duration::from_secs(4));
        serve.signal("CONT");
        for _ in 0..2 {
            let reply = client.reply();
            assert_eq!(reply["ok"], true, "{shm}: {reply}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| in_time("--shm=true"));
        in_time("--shm=false");
    });
}

#[test]
fn a_worker_that_leaks_is_replaced_and_no_other_job_fails() {
    let serve = Serve::python(&["-j2", "--max-worker-memory", "60M", "--watch-tick", "20ms"]);
    serve.ready();
    let until = Instant::now() + Duration::from_secs(3);
    let (times, codes) = std::thread::scope(|scope| {
        let leaking = scope.spawn(|| {
            let mut client = serve.client();
            let is_replaced =
                || serve.status()["restarts"]["memory"].as_u64().is_some_and(|times| times > 0);
            while Instant::now() < until || !is_replaced() {
                let reply = client.ask(r#"{"op":"call","id":1,"body":{"leak":2000000}}"#);
                assert_eq!(reply["ok"], true, "{reply}");
                assert!(until.elapsed() < serve::PATIENCE, "none was replaced");
            }
        });
        let seen = callers(&serve, 2, until);
        leaking.join().unwrap();
        seen
    });
    println!("others' p99 beside a worker that leaks: {:?} of {} calls", p99(&times), times.len());
    assert!(codes.is_empty(), "{codes:?}");
}

/// The host and port behind the n-th address, an HTTP one.
fn host(serve: &Serve, n: usize) -> String {
    let address = serve.address(n);
    address.trim_start_matches("http://").split(' ').next().unwrap().to_owned()
}

/// All that comes until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        // What it had still to read was thrown away.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    text(&rest)
}

fn connected(host: &str) -> TcpStream {
    let stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(serve::PATIENCE * 2)).unwrap();
    stream
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let serve = Serve::start(&["-j1", "--builtin=echo", "--http=0"]);
    let mut stream = connected(&host(&serve, 1));
    let head = format!("POST /call HTTP/1.1\r\nhost: x\r\nx: {}\r\n", "y".repeat(100 << 10));
    // It may be cut before all of it was sent.
    let _ = stream.write_all(head.as_bytes());
    let answer = rest(stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
}

#[test]
fn admin_connections_beyond_their_limit_wait_and_disturb_no_calls() {
    let serve = Serve::start(&["-j1", "--builtin=echo", "--http=0", "--http-admin=0"]);
    let (calls, admin) = (host(&serve, 1), host(&serve, 2));
    let get = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut held: Vec<_> = (0..64).map(|_| connected(&admin)).collect();
    let mut late = connected(&admin);
    late.write_all(get).unwrap();
    // The calling listener has places of its own.
    let mut call = connected(&calls);
    call.write_all(
        b"POST /call HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
          content-length: 1\r\n\r\n7",
    )
    .unwrap();
    assert!(rest(call).ends_with("\r\n\r\n7"));
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(late.read(&mut [0; 64]).is_err(), "there was a place");
    late.set_read_timeout(Some(serve::PATIENCE)).unwrap();
    held.pop();
    assert!(rest(late).starts_with("HTTP/1.1 200"), "a place is free");
}

#[test]
fn a_body_that_does_not_come_is_408_and_a_head_that_does_not_ends_the_connection() {
    if !serve::is_soak() {
        return serve::not_now("HTTP's time limits (30 s and 60 s): REMUDA_SOAK=1 runs it");
    }
    let serve = Serve::start(&["-j1", "--builtin=echo", "--http=0"]);
    let since = Instant::now();
    let (mut body, mut head) = (connected(&host(&serve, 1)), connected(&host(&serve, 1)));
    body.write_all(
        b"POST /call HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
          content-length: 100\r\n\r\n\"half",
    )
    .unwrap();
    head.write_all(b"POST /call HTTP/1.1\r\nhost:").unwrap();
    let answer = rest(body);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("bad_request"), "{answer}");
    assert!(since.elapsed() >= Duration::from_secs(29));
    let answer = rest(head);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(since.elapsed() >= Duration::from_secs(59));
}

#[test]
fn max_jobs_of_none_is_refused() {
    let output = remuda().args(["serve", "--builtin=echo", "--max-jobs=0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("max-jobs"), "{}", text(&output.stderr));
}

/// A worker that takes its time before it reads, and gives back what it gets.
const SLOW_READER: &str = r#"
import os, socket, time
pool = socket.socket(fileno=int(os.environ["REMUDA_FD"]))
lines = pool.makefile("rb")
lines.readline()
offer = b'{"ok":true,"data":{"kind":"handshake","version":"1","capacity":16}}\n'
pool.sendall(offer)
time.sleep(1)
for line in lines:
    start = line.index(b'"id":') + 5
    call = line[start:line.index(b",", start)]
    body = line[line.index(b'"body":') + 7:line.rindex(b"}")]
    body = body[:body.rindex(b'"') + 1]
    pool.sendall(b'{"id":%s,"ok":true,"data":{"kind":"result","body":%s}}\n' % (call, body))
"#;

#[test]
fn a_worker_that_is_slow_to_read_large_bodies_loses_none() {
    let calls = 6;
    let serve = Serve::start(&["-j1", "--", "python3", "-c", SLOW_READER]);
    serve.ready();
    let mut client = serve.client();
    let body = "x".repeat(15 << 20);
    // The answers are read all the while: a client that takes none for ten seconds is cut.
    let (mut sending, sent) = (client.twin(), body.clone());
    let sender = std::thread::spawn(move || {
        for id in 0..calls {
            sending.send(&format!(r#"{{"op":"call","id":{id},"body":"{sent}"}}"#));
        }
    });
    for _ in 0..calls {
        let reply = client.reply();
        assert!(reply["data"]["body"] == body.as_str(), "{:.200}", reply.to_string());
    }
    sender.join().unwrap();
}

#[test]
fn the_pool_decides_how_large_a_body_of_a_built_in_worker_may_be() {
    let serve = Serve::start(&["-j1", "--max-body-bytes", "20000000", "--builtin=echo"]);
    serve.ready();
    let body = "x".repeat(19_000_000);
    let reply = serve.client().ask(&format!(r#"{{"op":"call","id":1,"body":"{body}"}}"#));
    assert!(reply["data"]["body"] == body.as_str(), "{:.200}", reply.to_string());
}
