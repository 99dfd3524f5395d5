//! A peer whose process is stopped, not gone: its connection stands, and nobody is heard. And the
//! end of one that never had a call.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/attached.rs"]
mod attached;
#[path = "support/serve.rs"]
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;

use attached::{all_linked, attach, peers};
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
