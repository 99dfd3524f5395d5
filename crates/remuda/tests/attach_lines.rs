//! `serve --attach` line by line: what a peer is told, and what it may answer.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/attached.rs"]
mod attached;
#[path = "support/serve.rs"]
mod serve;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use attached::{all_linked, attach};
use serde_json::Value;
use serve::{Serve, text};

/// A peer whose every line the test sees.
struct Peer {
    lines: BufReader<UnixStream>,
    socket: UnixStream,
}

impl Peer {
    /// Accepts, and shakes hands as that version.
    fn greet(listener: &UnixListener, version: &str) -> Self {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(serve::PATIENCE)).unwrap();
        let mut peer = Self { lines: BufReader::new(socket.try_clone().unwrap()), socket };
        assert_eq!(peer.next().unwrap()["op"], "handshake");
        peer.send(&HELLO.replace("VERSION", version));
        peer
    }

    /// The next line, or nothing at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.lines.read_line(&mut line).unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    /// Whether the pool has closed the link and says no more; it may have left something unread.
    fn is_cut(&mut self) -> bool {
        let read = self.lines.read_line(&mut String::new());
        read.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |count| count == 0)
    }

    fn send(&mut self, line: &str) {
        writeln!(self.socket, "{line}").unwrap();
    }

    /// Answers a call with its own body.
    fn answer(&mut self, call: &Value) {
        let (id, body) = (&call["id"], &call["body"]);
        self.send(&format!(r#"{{"id":{id},"ok":true,"data":{{"kind":"result","body":{body}}}}}"#));
    }
}

const HELLO: &str = r#"{"ok":true,"data":{"kind":"handshake","version":"VERSION","instance":"x","pid":1,"capacity":1,"ordered":true,"batch":0,"capabilities":["cancel"]}}"#;

/// A place where such a peer listens, and the option that attaches to it.
fn place() -> (tempfile::TempDir, UnixListener, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let option = format!("--attach=unix:{}", path.display());
    (dir, listener, option)
}

#[test]
fn one_that_speaks_something_else_is_told_of_once_and_by_its_first_line() {
    let (_dir, listener, option) = place();
    let front = Serve::start(&[&option]);
    for _ in 0..3 {
        let (mut socket, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(socket.try_clone().unwrap()).read_line(&mut line).unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
    }
    assert!(front.wait_line("cannot attach to").contains("HTTP/1.1 400"));
    let told = front.stderr();
    assert_eq!(told.matches("cannot attach to").count(), 1, "{told}");
    assert!(!told.contains("Connection") && !told.contains("what is no reply"), "{told}");
}

#[test]
fn only_a_peer_that_says_so_is_asked_again_what_it_offers() {
    let (_dir, listener, option) = place();
    let front = Serve::start(&[&option]);
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(serve::PATIENCE)).unwrap();
    let mut peer = Peer { lines: BufReader::new(socket.try_clone().unwrap()), socket };
    let hello = HELLO.replace("VERSION", "1").replace("\"ordered\":true", "\"ordered\":false");
    let offers = hello.replace("[\"cancel\"]", "[\"cancel\",\"offer\"]");
    let mut client = front.client();
    for id in 0..3 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
    }
    front.status_when("all wait", |status| status["queued"] == 3);
    assert_eq!(peer.next().unwrap()["op"], "handshake");
    peer.send(&offers);
    // At once, before any call; from then on now and then.
    let again = peer.next().unwrap();
    assert_eq!((&again["op"], &again["id"]), (&Value::from("handshake"), &Value::Null), "{again}");
    let mut calls = vec![peer.next().unwrap()];
    peer.send(&offers.replace("\"capacity\":1", "\"capacity\":3"));
    let mut is_asked_again = false;
    while calls.len() < 3 || !is_asked_again {
        let line = peer.next().unwrap();
        match line["op"].as_str() {
            Some("call") => calls.push(line),
            _ => is_asked_again = line["op"] == "handshake",
        }
    }
    calls.iter().for_each(|call| peer.answer(call));
    (0..3).for_each(|_| assert_eq!(client.reply()["ok"], true));
    // One that was not asked, and says what it offers, breaks the protocol.
    let (_dir, listener, option) = place();
    let front = Serve::start(&[&option]);
    let mut silent = Peer::greet(&listener, "1");
    all_linked(&front);
    silent.send(&hello);
    assert!(front.wait_line("what is no reply").contains("it has no id"));
    assert_eq!(silent.next(), None, "it was asked nothing, and its link is closed");
}

#[test]
fn a_peer_is_never_told_to_reset_or_to_shut_down() {
    let (_dir, listener, option) = place();
    let mut front = Serve::start(&["-j1", "--builtin=sleep", &option]);
    let mut peer = Peer::greet(&listener, "1");
    all_linked(&front);
    front.status_when("its own worker is ready, too", |status| {
        status["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
    // One job for its own worker, and one for the peer.
    let mut client = front.client();
    let calls = [1, 2].map(|id| format!("{{\"op\":\"call\",\"id\":{id},\"body\":0.3}}\n"));
    client.send_bytes(calls.concat().as_bytes());
    let call = peer.next().unwrap();
    assert_eq!(call["op"], "call");
    assert_eq!(call["hops"], 1, "it tells through how many pools it came: {call}");
    let reset = front.run("reset", &[]);
    assert!(reset.status.success(), "{}", text(&reset.stderr));
    let stop = front.run("stop", &[]);
    assert!(stop.status.success(), "{}", text(&stop.stderr));
    peer.answer(&call);
    assert_eq!([client.reply()["ok"].clone(), client.reply()["ok"].clone()], [true, true]);
    assert_eq!(peer.next(), None, "the link is closed, and nothing was said");
    assert_eq!(front.wait_end().code(), Some(0));
}

#[test]
fn what_a_peer_that_is_shutting_down_refuses_waits_for_it_or_runs_elsewhere() {
    let (_dir, listener, option) = place();
    let front = Serve::start(&[&option]);
    let mut peer = Peer::greet(&listener, "1");
    let mut client = front.client();
    client.send(r#"{"op":"call","id":1,"body":1}"#);
    let id = peer.next().unwrap()["id"].clone();
    peer.send(&format!(r#"{{"id":{id},"ok":false,"code":"draining","error":"it is ending"}}"#));
    assert_eq!(peer.next(), None, "the link is closed");
    let mut peer = Peer::greet(&listener, "1");
    let call = peer.next().unwrap();
    peer.answer(&call);
    assert_eq!(client.reply()["data"]["body"], 1);

    // One that has still much to do refuses at once what it gets, and would get all.
    let pools = [Serve::python(&["-j2"]), Serve::python(&["-j1"])];
    pools.iter().for_each(|pool| drop(pool.ready()));
    let front = attach(&pools.each_ref(), &[]);
    all_linked(&front);
    let (mut own, gate) = (pools[0].client(), pools[0].gate());
    own.send(&format!(r#"{{"op":"call","id":1,"body":{}}}"#, gate.job("1")));
    pools[0].status_when("it has something to do", |status| status["in_flight"] == 1);
    assert!(pools[0].run("stop", &[]).status.success());
    let mut client = front.client();
    for id in 0..100 {
        let reply = client.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
        assert_eq!(reply["data"]["body"], id, "{reply}");
    }
    gate.open();
    assert_eq!(own.reply()["ok"], true);
}

#[test]
fn a_peer_that_breaks_the_protocol_loses_its_link_which_is_tried_again() {
    for (wrong, told) in [
        ("this is no reply", "what is no reply"),
        (r#"{"id":77,"ok":true,"data":{"kind":"result","body":1}}"#, "broke the protocol"),
    ] {
        let (_dir, listener, option) = place();
        let front = Serve::start(&[&option]);
        let mut peer = Peer::greet(&listener, "1");
        let mut client = front.client();
        client.send(r#"{"op":"call","id":1,"body":1}"#);
        peer.next().unwrap();
        peer.send(wrong);
        let line = front.wait_line(told);
        assert!(line.contains("its link is closed and tried again"), "{line}");
        assert_eq!(client.reply()["code"], "worker_lost");
        let mut peer = Peer::greet(&listener, "1");
        client.send(r#"{"op":"call","id":2,"body":2}"#);
        let call = peer.next().unwrap();
        peer.answer(&call);
        assert_eq!(client.reply()["data"]["body"], 2);
    }
}

#[test]
fn a_line_that_is_too_long_and_belongs_to_no_call_costs_a_peer_its_link() {
    let (_dir, listener, option) = place();
    let front = Serve::start(&["--max-body-bytes=1K", &option]);
    let unknown = r#"{"id":999,"ok":true,"data":{"kind":"result","body":""#.to_owned();
    for (beginning, wanted) in
        [(String::new(), "begins with no id"), (unknown, "a call that it was not sent")]
    {
        let mut peer = Peer::greet(&listener, "1");
        all_linked(&front);
        // The pool may close the link before it has all of the line.
        let _ = writeln!(peer.socket, "{beginning}{}", "x".repeat(100_000));
        let told = front.wait_line(wanted);
        assert!(told.contains("its link is closed and tried again"), "{told}");
        assert!(peer.is_cut());
    }
    let mut peer = Peer::greet(&listener, "1");
    all_linked(&front);
    let mut client = front.client();
    client.send(r#"{"op":"call","id":1,"body":"short"}"#);
    let call = peer.next().unwrap();
    peer.answer(&call);
    assert_eq!(client.reply()["data"]["body"], "short");
}

#[test]
fn a_peer_of_another_version_is_not_asked_again_and_others_work_on() {
    let (_dir, listener, option) = place();
    let front = Serve::start(&["-j1", "--builtin=echo", &option]);
    Peer::greet(&listener, "77");
    let line = front.wait_line("not tried again");
    assert!(line.contains("77"), "{line}");
    assert_eq!(front.client().ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
    assert_eq!(front.status()["workers"].as_array().unwrap().len(), 1);

    // A pool that has nobody else can do nothing.
    let mut alone = Serve::start(&[&option]);
    Peer::greet(&listener, "77");
    assert_eq!(alone.wait_end().code(), Some(255));
    alone.wait_line("77");
}
