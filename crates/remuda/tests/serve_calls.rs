//! What a client of a pool may rely on: order, ids, budgets, cancelling, leaving, a full queue.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serve::{Client, Serve};

#[test]
fn pipelined_requests_are_answered_with_their_ids_byte_for_byte() {
    let serve = Serve::start(&["-j2", "--builtin=echo"]);
    let mut client = serve.client();
    let ids = ["1", "1.0", r#""1""#, "9007199254740993", "-0", "1e3", r#""ü\u0041""#, r#""""#];
    let calls = ids.map(|id| format!("{{\"op\":\"call\",\"id\":{id},\"body\":null}}\n"));
    client.send_bytes(calls.concat().as_bytes());
    let mut replies: Vec<String> = ids.iter().map(|_| client.line().unwrap()).collect();
    for id in ids {
        let at = replies.iter().position(|reply| reply.contains(&format!("\"id\":{id},")));
        let reply = replies.remove(at.unwrap_or_else(|| panic!("no reply for {id}: {replies:?}")));
        assert!(reply.contains(r#""ok":true"#), "{reply}");
    }
    let many: String =
        (0..2000).map(|n| format!("{{\"op\":\"call\",\"id\":{n},\"body\":{n}}}\n")).collect();
    client.send_bytes(many.as_bytes());
    let mut seen = vec![false; 2000];
    for _ in 0..2000 {
        let reply = client.reply();
        let id = reply["id"].as_u64().unwrap();
        assert_eq!(reply["data"]["body"], id, "each gets its own answer");
        assert!(!std::mem::replace(&mut seen[id as usize], true), "{id} twice");
    }
}

/// What several connections have at once is read before any of it is handed out: it shows by a
/// worker that takes many jobs in one call, and tells how many it was given.
#[test]
fn calls_of_several_connections_that_are_there_at_once_travel_together() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("many.py");
    let source =
        "import remuda\n@remuda.batch(64)\ndef many(jobs): return [len(jobs)] * len(jobs)\n";
    std::fs::write(&program, source).unwrap();
    let function = format!("--python={}:many", program.display());
    let serve = Serve::start(&["-j1", "--retries=3", &function]);
    serve.ready();
    let call = r#"{"op":"call","id":1,"body":0}"#;
    let mut clients: Vec<Client> = (0..4).map(|_| serve.client()).collect();
    let since = Instant::now();
    loop {
        // How many may travel together is learnt from how long they take.
        for client in &mut clients {
            assert_eq!(client.ask(call)["data"]["body"], 1);
        }
        // A pool that is stopped finds all of them when it goes on.
        serve.signal("STOP");
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", serve.pid())).unwrap();
        while !stat().contains(") T ") {}
        clients.iter_mut().for_each(|client| client.send(call));
        serve.signal("CONT");
        let given: Vec<_> = clients.iter_mut().map(|c| c.reply()["data"]["body"].take()).collect();
        if given.iter().all(|given| *given == 4) {
            return;
        }
        assert!(since.elapsed() < serve::PATIENCE, "they travel alone: {given:?}");
    }
}

#[test]
fn replies_without_ids_come_in_the_order_of_their_requests() {
    let serve = Serve::start(&["-j3", "--builtin=sleep"]);
    let mut client = serve.client();
    serve.ready();
    for body in ["0.2", "0.1", "0"] {
        client.send(&format!(r#"{{"op":"call","body":{body}}}"#));
    }
    client.send(r#"{"op":"status"}"#);
    client.send("this is not JSON");
    for _ in 0..3 {
        assert_eq!(client.reply()["data"]["kind"], "result");
    }
    assert_eq!(client.reply()["data"]["kind"], "status");
    assert_eq!(client.reply()["code"], "bad_request");
}

#[test]
fn a_budget_is_spent_in_the_queue_and_what_is_expired_never_runs() {
    let serve = Serve::python(&["-j1"]);
    serve.ready();
    let (mark, gate) = (serve.file("mark"), serve.gate());
    let mut client = serve.client();
    client.send(&format!(r#"{{"op":"call","id":"long","body":{}}}"#, gate.job("1")));
    let touch = mark.display();
    let since = Instant::now();
    client.send(&format!(
        r#"{{"op":"call","id":"late","timeout_ms":100,"body":{{"touch":"{touch}"}}}}"#
    ));
    let reply = client.reply();
    assert_eq!(reply["id"], "late");
    let code = reply["code"].as_str().unwrap();
    assert!(code == "timeout" || code == "queue_timeout", "{reply}");
    assert!(since.elapsed() >= Duration::from_millis(5), "not refused at once");
    gate.open();
    assert_eq!(client.reply()["ok"], true);
    assert_eq!(client.ask(r#"{"op":"call","id":3,"body":3}"#)["ok"], true);
    assert!(!mark.exists(), "the job that was too late was never dispatched");
}

#[test]
fn a_budget_ends_a_job_that_runs() {
    let serve = Serve::python(&["-j1", "--exec-ttl", "4s"]);
    let before = serve.ready();
    let mut client = serve.client();
    let reply = client.ask(r#"{"op":"call","id":1,"timeout_ms":1000,"body":{"sleep":600}}"#);
    assert_eq!(reply["code"], "timeout", "{reply}");
    // At exec_ttl it would have been told of that.
    assert_eq!(reply["error"], "the job's time was over before its worker answered");
    // The budget is the client's; the worker is free again when its own time is over.
    let pid = client.ask(r#"{"op":"call","id":2,"body":{}}"#);
    assert_eq!(pid["ok"], true, "the next job has a worker: {pid}");
    assert_ne!(pid["data"]["body"], before[0]);
}

#[test]
fn a_queued_job_and_one_that_runs_are_cancelled() {
    let serve = Serve::python(&["-j1"]);
    serve.ready();
    let mark = serve.file("mark");
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":"runs","body":{"sleep":600}}"#);
    let touch = mark.display();
    client.send(&format!(r#"{{"op":"call","id":"waits","body":{{"touch":"{touch}"}}}}"#));
    client.send(r#"{"op":"cancel","id":"waits"}"#);
    let reply = client.reply();
    assert_eq!((&reply["id"], &reply["code"]), (&"waits".into(), &"cancelled".into()));
    client.send(r#"{"op":"cancel","id":"runs"}"#);
    let reply = client.reply();
    assert_eq!((&reply["id"], &reply["code"]), (&"runs".into(), &"cancelled".into()));
    client.send(r#"{"op":"cancel","id":"never was"}"#);
    assert!(!mark.exists());
    // Another's id is another's.
    let mut other = serve.client();
    other.send(r#"{"op":"cancel","id":"runs"}"#);
    assert_eq!(other.ask(r#"{"op":"status","id":1}"#)["ok"], true);
}

#[test]
fn a_client_that_is_gone_drops_its_queued_jobs() {
    let serve = Serve::python(&["-j1"]);
    serve.ready();
    let (mark, gate) = (serve.file("mark"), serve.gate());
    let mut client = serve.client();
    client.send(&format!(r#"{{"op":"call","id":0,"body":{}}}"#, gate.job("1")));
    let touch = mark.display();
    for id in 1..50 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{{"touch":"{touch}"}}}}"#));
    }
    serve.status_when("all accepted", |status| status["jobs"]["accepted"] == 50);
    drop(client);
    serve.status_when("nothing queued", |status| status["queued"] == 0);
    gate.open();
    let status = serve.status_when("nothing runs", |status| status["in_flight"] == 0);
    assert!(!mark.exists(), "{status:#}");
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
}

#[test]
fn a_client_that_only_closed_its_sending_half_gets_its_answers() {
    let serve = Serve::start(&["-j1", "--builtin=sleep", "-l", "tcp:127.0.0.1:0"]);
    let mut tcp = Client::tcp(&serve.address(1));
    tcp.greet();
    for mut client in [serve.client(), tcp] {
        for id in 0..5 {
            client.send(&format!(r#"{{"op":"call","id":{id},"body":0.05}}"#));
        }
        client.end_sending();
        for _ in 0..5 {
            assert_eq!(client.reply()["ok"], true);
        }
        assert_eq!(client.line(), None, "then the pool closes");
    }
    let mut client = serve.client();
    client.send(r#"{"op":"reset","id":1}"#);
    client.end_sending();
    assert_eq!(client.reply()["data"]["kind"], "reset", "a reset's end is an answer, too");
    assert_eq!(client.line(), None);
}

#[test]
fn a_full_queue_is_an_answer_at_once_and_status_works_meanwhile() {
    let serve = Serve::python(&["-j1", "--max-queue-size", "4"]);
    serve.ready();
    let mut client = serve.client();
    for id in 0..20 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{{"sleep":600}}}}"#));
    }
    let refused = 20 - 5;
    for _ in 0..refused {
        let reply = client.reply();
        assert_eq!(reply["code"], "queue_full", "{reply}");
    }
    let status = client.ask(r#"{"op":"status","id":"s"}"#);
    assert_eq!(status["data"]["queued"], 4, "{status}");
    assert_eq!(status["data"]["jobs"]["failed"]["queue_full"], 15);
    let output = serve.run("status", &[]);
    assert!(serve::text(&output.stdout).contains("4 queued, 1 running"));
    assert_eq!(serve.client().ask(r#"{"op":"shutdown","id":1}"#)["ok"], true, "admin works, too");
}

#[test]
fn a_client_that_does_not_read_is_cut_and_others_are_not_disturbed() {
    let serve = Serve::python(&["-j1"]);
    serve.ready();
    let mut deaf = serve.client();
    // Answers of a megabyte each: 64 MiB are the most that wait for one client.
    let calls: String = (0..150)
        .map(|id| format!("{{\"op\":\"call\",\"id\":{id},\"body\":{{\"big\":1000000}}}}\n"))
        .collect();
    deaf.send_bytes(calls.as_bytes());
    serve.status_when("the client that doesn't read is cut", |status| {
        status["connections"] == 1 && status["in_flight"] == 0 && status["queued"] == 0
    });
    assert!(serve.resident() < 400 << 20, "{} MiB", serve.resident() >> 20);
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
    drop(deaf);
}

#[test]
fn a_person_with_socat_is_served_however_slowly_they_type() {
    if !std::path::Path::new("/usr/bin/socat").exists() {
        return serve::skipped("a person with socat: there is no socat");
    }
    use std::io::{BufRead, Write};
    let serve = Serve::start(&["-j1", "--builtin=echo"]);
    let mut socat = std::process::Command::new("socat");
    socat.arg("-").arg(format!("UNIX-CONNECT:{}", serve.path().display()));
    let mut child = socat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut screen = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for (typed, shown) in [
        (serve::HANDSHAKE, r#""kind":"handshake""#),
        (r#"{"op":"call","body":"abc"}"#, r#""body":"abc""#),
    ] {
        let (first, rest) = typed.split_at(7);
        write!(keys, "{first}").unwrap();
        keys.flush().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        writeln!(keys, "{rest}").unwrap();
        keys.flush().unwrap();
        line.clear();
        screen.read_line(&mut line).unwrap();
        assert!(line.contains(shown), "{line}");
    }
    drop(keys);
    assert!(child.wait().unwrap().success());
}

#[test]
fn running_out_of_descriptors_does_not_spin_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    let listen = format!("--listen=unix:{}/s,role=admin", dir.path().display());
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_remuda")]);
    command.args(["serve", "-j1", "--builtin=echo", &listen]);
    let mut serve = Serve::spawn(command);
    serve.dir = Some(dir);
    serve.listening();
    serve.ready();
    let mut first = serve.client();
    let crowd: Vec<Client> = (0..100).map(|_| Client::unix(&serve.path())).collect();
    let (before, since) = (serve.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let used = serve.cpu() - before;
    println!("CPU while out of descriptors: {used:?} of {:?}", since.elapsed());
    assert!(used < since.elapsed() / 2, "it spins: {used:?}");
    assert_eq!(first.ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
    // The worker's own descriptors were not taken.
    let worker = serve::pids(&first.ask(r#"{"op":"status","id":2}"#)["data"])[0];
    serve::signal(worker, "KILL");
    loop {
        let reply = first.ask(r#"{"op":"call","id":3,"body":1,"timeout_ms":60000}"#);
        match reply["code"].as_str() {
            // It was handed to the one that was being killed.
            Some("worker_lost") => {}
            code => break assert_eq!(code, None, "{reply}"),
        }
    }
    drop(crowd);
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
}

#[test]
fn who_calls_a_pool_without_workers_is_told_why_the_job_waits() {
    let serve = Serve::start(&["-j1", "--python", "no_such_file.py:f"]);
    serve.status_when("a start failed", |status| status["starts_failed"] != 0);
    let mut call = serve.command("call").arg("abc").stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(call.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.starts_with("remuda: the job waits: no worker is ready: "), "{told}");
    assert!(told.contains("no_such_file.py"), "{told}");
    call.kill().unwrap();
    call.wait().unwrap();
}
