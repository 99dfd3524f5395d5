//! A peer whose process is stopped, not gone: its connection stands, and nobody is heard. And the
//! end of one that never had a call, or still has one.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/attached.rs"]
mod attached;
#[path = "support/serve.rs"]
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;

use attached::{Worker, all_linked, attach, peers};
use serde_json::Value;
use serve::{Serve, signal, text};

#[test]
fn a_peer_that_is_stopped_is_away_and_comes_back() {
    let behind = Serve::python(&["-j2"]);
    behind.ready();
    let front = attach(&[&behind], &[]);
    all_linked(&front);
    let mut client = front.client();
    client.send(r#"{"op":"call","id":1,"body":{"sleep":600}}"#);
    behind.status_when("it runs there", |status| status["in_flight"] == 1);
    signal(behind.pid(), "STOP");
    let reply = client.reply();
    assert_eq!((&reply["id"], &reply["code"]), (&1.into(), &"worker_lost".into()), "{reply}");
    let status = front.status();
    assert_eq!(peers(&status)[0], ("away".to_owned(), 0), "{status}");
    let why = front.wait_line("counts as away");
    assert!(why.contains("it was silent for 10s, though it was asked"), "{why}");
    // Between attempts it says why, and in one that there is one.
    let table = text(&front.run("status", &[]).stdout);
    let told = ["tried again in ", "being reached: it has not answered yet"];
    assert!(table.contains("away") && told.iter().any(|words| table.contains(words)), "{table}");
    // What comes meanwhile waits, and runs once the peer answers again.
    client.send(r#"{"op":"call","id":2,"body":{"back":"again"}}"#);
    front.status_when("it waits", |status| status["queued"] == 1);
    signal(behind.pid(), "CONT");
    assert_eq!(client.reply()["data"]["body"], "again");
    // The link was closed: so what ran there is cancelled.
    behind
        .status_when("it was cancelled there", |status| status["jobs"]["failed"]["cancelled"] == 1);
}

#[test]
fn a_worker_by_hand_that_is_stopped_costs_its_own_job_and_works_on_when_it_continues() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker");
    let worker = Worker::start(&path);
    let serve = Serve::start(&[&format!("--attach=unix:{}", path.display()), "--exec-ttl=3s"]);
    all_linked(&serve);
    let mut client = serve.client();
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":"a"}"#)["data"]["body"], "A");
    // Nothing is asked of one that has nothing to do, so it isn't noticed before its next job.
    signal(worker.0.id(), "STOP");
    let late = client.ask(r#"{"op":"call","id":2,"body":"b"}"#);
    assert_eq!((&late["id"], &late["code"]), (&2.into(), &"timeout".into()), "{late}");
    // The job may still run there: it gets no other.
    client.send(r#"{"op":"call","id":3,"body":"c"}"#);
    let status = serve.status_when("the next one waits", |status| status["queued"] == 1);
    assert_eq!(peers(&status), [("busy".to_owned(), 1)], "{status}");
    signal(worker.0.id(), "CONT");
    assert_eq!(client.reply()["data"]["body"], "C");
}

#[test]
fn a_pool_that_drains_still_says_that_it_lives() {
    let mut pool = Serve::python(&["-j1"]);
    pool.ready();
    let (mut peer, mut other, gate) = (pool.client(), pool.client(), pool.gate());
    peer.send(&format!(r#"{{"op":"call","id":1,"body":{},"hops":1}}"#, gate.job("1")));
    pool.status_when("it runs", |status| status["in_flight"] == 1);
    signal(pool.pid(), "TERM");
    pool.wait_line("stopping: accepted jobs finish");
    while other.ask(r#"{"op":"status","id":1}"#)["data"]["phase"] != "draining" {}
    assert_eq!(other.ask(r#"{"op":"call","id":2,"body":0}"#)["code"], "draining");
    let offer = peer.ask(r#"{"op":"handshake","version":"1"}"#);
    assert_eq!(offer["data"]["capacity"], 1, "{offer}");
    gate.open();
    assert_eq!(peer.reply()["data"]["body"], 1);
    assert_eq!(peer.reply()["code"], "draining");
    assert_eq!(peer.line(), None);
    drop((peer, other));
    assert_eq!(pool.wait_end().code(), Some(0));
}

#[test]
fn a_pool_that_ends_says_so_to_pools_that_never_had_a_call() {
    let mut pool = Serve::start(&["-j1", "--builtin=echo"]);
    pool.ready();
    let mut peer = pool.client();
    // Only a pool asks again what is offered.
    assert_eq!(peer.ask(r#"{"op":"handshake","version":"1"}"#)["ok"], true);
    signal(pool.pid(), "TERM");
    let farewell = peer.reply();
    assert_eq!((&farewell["id"], &farewell["code"]), (&Value::Null, &"draining".into()));
    drop(peer);
    assert_eq!(pool.wait_end().code(), Some(0));
}

#[test]
fn a_peer_is_asked_before_its_first_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let front = Serve::start(&[&format!("--attach=unix:{}", path.display())]);
    let mut client = front.client();
    client.send(r#"{"op":"call","id":1,"body":1}"#);
    front.status_when("it waits", |status| status["queued"] == 1);
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(serve::PATIENCE)).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let mut op = || -> Value {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["op"].clone()
    };
    assert_eq!(op(), "handshake");
    let hello = r#"{"kind":"handshake","version":"1","capacity":4,"capabilities":["offer"]}"#;
    writeln!(socket, r#"{{"ok":true,"data":{hello}}}"#).unwrap();
    assert_eq!(op(), "handshake", "it is asked what it offers by now");
    assert_eq!(op(), "call");
}
