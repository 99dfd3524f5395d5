//! `--attach shm:`: a pool of the same user on this machine, over rings in shared memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/attached.rs"]
mod attached;
#[path = "support/serve.rs"]
mod serve;

use std::path::PathBuf;

use attached::{all_linked, passes_calls_on};
use remuda::shm::{Options, SpscFace};
use serde_json::{Value, json};
use serve::{Client, Serve, handler, pids, remuda, text};

/// The directory of names that the pools of a test share.
struct Names(tempfile::TempDir);

impl Names {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn runtime_dir(&self) -> PathBuf {
        self.0.path().join("run")
    }

    /// A pool with an admin socket of its own.
    fn serve(&self, args: &[&str]) -> Serve {
        let dir = tempfile::tempdir().unwrap();
        let mut command = remuda();
        command.arg("serve").env("REMUDA_RUNTIME_DIR", self.runtime_dir());
        command.arg(format!("--listen=unix:{}/s,role=admin", dir.path().display())).args(args);
        let mut serve = Serve::spawn(command);
        serve.dir = Some(dir);
        serve.listening();
        serve
    }

    /// A pool of Python workers that listens at `shm:behind` as well.
    fn behind(&self, args: &[&str]) -> Serve {
        let handler = handler(self.0.path());
        let mut all = vec!["--listen=shm:behind", "--python", &handler];
        all.extend(args);
        let serve = self.serve(&all);
        serve.address(1);
        serve
    }

    /// A pool that is attached to it.
    fn front(&self, args: &[&str]) -> Serve {
        self.serve(&[&["--attach=shm:behind"], args].concat())
    }
}

/// The memories that a process shares with others, one for each pair of rings.
fn memories(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("memfd:")).count()
}

fn is_attached(status: &Value) -> bool {
    let mut peers = status["workers"].as_array().unwrap().iter();
    peers.any(|peer| peer["attached"] == "shm:behind" && peer["state"] != "away")
}

fn away(front: &Serve) {
    front.status_when("not linked", |status| !is_attached(status));
}

fn calls(client: &mut Client) {
    for id in 0..100 {
        let reply = client.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
        assert_eq!(reply["data"]["body"], id, "{reply}");
    }
}

#[test]
fn jobs_go_over_rings_and_come_back_as_they_would_by_a_socket() {
    let names = Names::new();
    let behind = names.behind(&["-j2"]);
    let front = names.front(&[]);
    all_linked(&front);
    assert_eq!(memories(front.pid()), 1, "the link is a pair of rings");
    let mut client = front.client();
    calls(&mut client);
    passes_calls_on(&mut client, &behind);
}

#[test]
fn a_peer_over_rings_gets_as_many_jobs_as_it_has_workers() {
    let names = Names::new();
    let behind = names.behind(&["-j2"]);
    let front = names.front(&[]);
    all_linked(&front);
    let mut client = front.client();
    for id in 0..3 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{{"sleep":600}}}}"#));
    }
    front.status_when("one waits here", |status| status["queued"] == 1);
    behind.status_when("two run there", |status| status["in_flight"] == 2 && status["queued"] == 0);
}

#[test]
fn bodies_that_fit_into_no_slot_and_into_no_ring_come_whole_and_hold_up_no_small_ones() {
    let names = Names::new();
    let behind = names.behind(&["-j2"]);
    let front = names.front(&[]);
    all_linked(&front);
    let mut client = front.client();
    // A slot has 8 KiB, and a ring 1 MiB.
    for len in [8 << 10, 100_000, 1 << 20, 5 << 20] {
        let body = "ab".repeat(len / 2);
        let reply = client.ask(&format!(r#"{{"op":"call","id":{len},"body":"{body}"}}"#));
        assert!(reply["data"]["body"] == body, "a body of {len} bytes came back otherwise");
    }
    // All at once, in both directions; between them small ones. The answers are read all the while:
    // a client that takes none for ten seconds is cut, and on a busy machine this takes longer.
    let body = "x".repeat(3 << 20);
    let mut sending = client.twin();
    let sender = std::thread::spawn(move || {
        for id in 0..30 {
            let body = if id % 5 == 0 { format!(r#""{body}""#) } else { id.to_string() };
            sending.send(&format!(r#"{{"op":"call","id":{id},"body":{body}}}"#));
        }
    });
    let mut other = front.client();
    let others = std::thread::spawn(move || calls(&mut other));
    let mut seen = [false; 30];
    for _ in 0..30 {
        let reply = client.reply();
        let id = reply["id"].as_u64().unwrap();
        assert!(!std::mem::replace(&mut seen[id as usize], true), "{id} twice");
        match &reply["data"]["body"] {
            Value::String(body) => assert!(body.len() == 3 << 20 && id.is_multiple_of(5), "{id}"),
            small => assert_eq!(*small, id),
        }
    }
    sender.join().unwrap();
    others.join().unwrap();
    assert_eq!(behind.status()["jobs"]["failed"], json!({}));
}

#[test]
fn a_pool_that_is_killed_is_attached_again_and_leaves_nothing() {
    let names = Names::new();
    let front = names.front(&[]);
    for _ in 0..3 {
        let mut behind = names.behind(&["-j1"]);
        all_linked(&front);
        let mut client = front.client();
        calls(&mut client);
        client.send(r#"{"op":"call","id":"lost","body":{"sleep":600}}"#);
        behind.status_when("it runs there", |status| status["in_flight"] == 1);
        behind.signal("KILL");
        assert_eq!(client.reply()["code"], "worker_lost");
        away(&front);
        behind.wait_end();
        assert_eq!(memories(front.pid()), 0, "the rings of a link that ended are given back");
    }
    // A job waits until one is there.
    let mut client = front.client();
    client.send(r#"{"op":"call","id":2,"body":{"back":"early"}}"#);
    front.status_when("it waits", |status| status["queued"] == 1);
    let _behind = names.behind(&["-j1"]);
    assert_eq!(client.reply()["data"]["body"], "early");
}

#[test]
fn one_that_nobody_has_a_name_for_costs_nothing() {
    let names = Names::new();
    let front = names.front(&["-j1", "--builtin=echo"]);
    let line = front.wait_line("cannot attach to shm:behind");
    assert!(line.contains("nobody waits") && line.contains("tried again"), "{line}");
    calls(&mut front.client());
}

#[test]
fn a_peer_that_stands_still_costs_what_it_has_and_goes_on() {
    let names = Names::new();
    let behind = names.behind(&["-j2"]);
    let front = names.front(&[]);
    all_linked(&front);
    behind.signal("STOP");
    let mut client = front.client();
    let reply = client.ask(r#"{"op":"call","id":1,"body":1,"timeout_ms":100}"#);
    assert_eq!(reply["code"], "timeout", "{reply}");
    behind.signal("CONT");
    calls(&mut client);
}

#[test]
fn a_pool_is_not_its_own_worker_over_rings_either() {
    let names = Names::new();
    let output = remuda()
        .env("REMUDA_RUNTIME_DIR", names.runtime_dir())
        .args(["serve", "-j1", "--builtin=echo", "-l", "shm:me", "--attach", "shm:me"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(255));
    let told = text(&output.stderr);
    assert!(told.contains("shm:me") && told.contains("is this pool itself"), "{told}");
}

#[test]
fn a_name_that_none_can_have_is_refused_at_the_start() {
    let output = remuda()
        .args(["serve", "-l", "tcp:127.0.0.1:0", "--attach", "shm:.hidden"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(255));
    let told = text(&output.stderr);
    assert!(told.contains("shm:.hidden") && told.contains("no dot at its beginning"), "{told}");
}

#[test]
fn a_circle_over_rings_is_ended_by_hops() {
    let names = Names::new();
    let one = names.serve(&["--listen=shm:one", "--attach=shm:two"]);
    let two = names.serve(&["--listen=shm:two", "--attach=shm:one"]);
    for pool in [&one, &two] {
        pool.status_when("linked", |status| status["workers"][0]["state"] == "idle");
    }
    for pool in [&one, &two] {
        let reply = pool.client().ask(r#"{"op":"call","id":1,"body":1}"#);
        assert_eq!(reply["code"], "bad_request", "{reply}");
        assert!(reply["error"].as_str().unwrap().contains("in a circle"), "{reply}");
    }
}

#[test]
fn a_peer_over_rings_is_neither_reset_nor_stopped_and_its_jobs_are_waited_for() {
    let names = Names::new();
    let behind = names.behind(&["-j1"]);
    let workers = behind.ready();
    let mut front = names.front(&[]);
    all_linked(&front);
    assert!(front.run("reset", &[]).status.success());
    let mut client = front.client();
    let gate = front.gate();
    client.send(&format!(r#"{{"op":"call","id":1,"body":{}}}"#, gate.job("\"waited for\"")));
    behind.status_when("it runs there", |status| status["in_flight"] == 1);
    assert!(front.run("stop", &[]).status.success());
    gate.open();
    assert_eq!(client.reply()["data"]["body"], "waited for");
    assert_eq!(front.wait_end().code(), Some(0));
    assert_eq!(pids(&behind.status()), workers, "its workers are the same");
    behind.status_when("the rings are given back", |_| memories(behind.pid()) == 0);
    calls(&mut behind.client());
}

/// One that listens at `shm:behind`, is no pool, and has taken a handshake.
fn stranger(names: &Names) -> SpscFace {
    let face = SpscFace::create_in(&names.runtime_dir(), "behind", &Options::default()).unwrap();
    let (told, greeted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let line = face.recv_blocking().expect("a handshake");
        let greeting: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(greeting["op"], "handshake");
        told.send(face).unwrap();
    });
    greeted.recv_timeout(serve::PATIENCE).expect("somebody who connects")
}

#[test]
fn one_over_rings_that_leaves_at_once_is_tried_again_and_one_of_another_version_is_not() {
    let names = Names::new();
    let front = names.front(&["-j1", "--builtin=echo"]);
    // Each of them sees a handshake, and goes.
    (0..3).for_each(|_| drop(stranger(&names)));
    let stranger = stranger(&names);
    let answer = r#"{"ok":true,"data":{"kind":"handshake","version":"77"}}"#;
    stranger.send_blocking(format!("{answer}\n").as_bytes()).unwrap();
    assert!(front.wait_line("not tried again").contains("77"));
    assert!(stranger.recv_blocking().is_none(), "the rings are left");
    calls(&mut front.client());
}
