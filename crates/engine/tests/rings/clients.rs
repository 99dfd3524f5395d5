//! Clients over rings.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use remuda_shm::{Refusal, ShmError};

use crate::programs;
use crate::support::{Peer, Running, config, listened, result};

pub const TESTS: &[(&str, fn())] = &[
    ("clients::a_client_calls_over_rings_and_is_in_the_status", calls),
    ("clients::bodies_of_many_slots_come_and_go_whole", large_bodies),
    ("clients::a_client_that_doesnt_read_loses_nothing_once_it_does", full_ring),
    ("clients::one_held_back_for_a_reply_without_an_id_holds_up_nobody_else", held_back),
    ("clients::one_that_ended_its_sending_half_still_gets_its_answers", half_closed),
    ("clients::one_that_ends_its_sending_half_later_is_let_go", half_closed_later),
    ("clients::what_a_killed_client_waited_for_is_cancelled", killed),
    ("clients::a_first_line_that_is_no_handshake_is_refused_and_the_rings_end", no_handshake),
    ("clients::a_line_over_the_limit_is_refused_and_the_next_one_served", too_long),
    ("clients::a_closed_listener_gives_its_name_back_and_its_clients_stay", closed),
    ("clients::one_more_than_the_limit_is_refused_until_another_leaves", limit),
    ("clients::a_drain_answers_what_was_accepted", drained),
];

fn calls() {
    let pool = Running::start(config("worker"));
    let mut first = pool.client();
    let mut second = pool.client();
    first.call(7, "\"abc\"");
    second.call(7, "{\"a\":[1,2]}");
    assert_eq!(second.receive().unwrap(), result(7, "{\"a\":[1,2]}"));
    assert_eq!(first.receive().unwrap(), result(7, "\"abc\""));
    let status = pool.status();
    assert_eq!(status["listeners"][0], format!("shm:{}", pool.name));
    assert_eq!(status["connections"], 2);
    drop(first);
    pool.until("one client is gone", |status| status["connections"] == 1);
}

fn large_bodies() {
    let pool = Running::start(config("worker"));
    let mut client = pool.client();
    for bytes in [8 << 10, 1 << 20, 15 << 20] {
        let body = format!("\"{}\"", "x".repeat(bytes));
        client.call(bytes as u64, &body);
        assert!(client.receive().unwrap() == result(bytes as u64, &body), "{bytes} bytes");
    }
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":1}"#), result(1, "1"));
}

fn full_ring() {
    const CALLS: u64 = 3_000;
    let pool = Running::start(config("worker"));
    let mut client = pool.client();
    let body = format!("\"{}\"", "y".repeat(3_000));
    // Far more than both rings hold: the answers wait at the pool until they are taken.
    for id in 0..CALLS {
        client.call(id, &body);
    }
    let mut answered = vec![false; CALLS as usize];
    for _ in 0..CALLS {
        let line = client.receive().unwrap();
        let id: u64 = line[6..line.find(',').unwrap()].parse().unwrap();
        assert_eq!(line, result(id, &body));
        assert!(!std::mem::replace(&mut answered[id as usize], true), "{id} came twice");
    }
}

fn held_back() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let mut config = config("worker");
    config.dispatch.num_workers = 2;
    let pool = Running::start(config);
    let mut client = pool.client();
    let mut bodies = vec![format!("\"fifo:{}\"", fifo.display())];
    bodies.extend((0..200).map(|number| format!("\"{}{number}\"", "y".repeat(100_000))));
    let mut sender = client.sender.take().unwrap();
    let calls: String =
        bodies.iter().map(|body| format!("{{\"op\":\"call\",\"body\":{body}}}\n")).collect();
    let sending = std::thread::spawn(move || {
        let parts: Vec<_> = calls.as_bytes().chunks(sender.slot_size()).collect();
        sender.send_batch_blocking(&parts).unwrap();
    });
    // More answers than are kept for one client wait behind the first, which isn't there.
    pool.until("much is done", |status| status["jobs"]["done"].as_u64() >= Some(20));
    let mut other = pool.client();
    assert_eq!(other.ask(r#"{"op":"call","id":1,"body":1}"#), result(1, "1"));
    std::fs::write(&fifo, "").unwrap();
    for body in bodies {
        let reply = client.receive().unwrap();
        let expected = format!("{{\"ok\":true,\"data\":{{\"kind\":\"result\",\"body\":{body}}}}}");
        assert!(reply == expected, "{}", &reply[..100]);
    }
    sending.join().unwrap();
}

fn half_closed() {
    let pool = Running::start(config("worker"));
    let mut client = pool.client();
    for id in 0..100 {
        client.call(id, "\"a\"");
    }
    client.sender = None;
    for _ in 0..100 {
        assert!(client.receive().unwrap().contains("\"ok\":true"));
    }
    assert_eq!(client.receive(), None);
    pool.until("the client is gone", |status| status["connections"] == 0);
}

fn half_closed_later() {
    let pool = Running::start(config("worker"));
    let mut clients: Vec<_> = (0..8).map(|_| pool.client()).collect();
    for client in &mut clients {
        client.call(1, "\"a\"");
        assert_eq!(client.receive().unwrap(), result(1, "\"a\""));
    }
    // The pool sleeps over some of them by now.
    for client in &mut clients {
        client.sender = None;
        assert_eq!(client.receive(), None);
    }
    pool.until("the clients are gone", |status| status["connections"] == 0);
}

fn killed() {
    let mut config = config("cancellable");
    let lines = listened(&mut config);
    let pool = Running::start(config);
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args([programs::ARGUMENT, "client", &pool.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(lines.recv().unwrap(), "begun");
    client.kill().unwrap();
    client.wait().unwrap();
    pool.until("the job is cancelled", |status| status["jobs"]["failed"]["cancelled"] == 1);
    pool.until("the client is gone", |status| status["connections"] == 0);
}

fn no_handshake() {
    let pool = Running::start(config("worker"));
    for first in ["GET / HTTP/1.1\r\n\r\n", "{\"op\":\"status\"}\n", &"x".repeat(20_000)] {
        let mut client = Peer::connect(&pool.name);
        client.send(first);
        let answer = client.receive().unwrap();
        assert!(answer.contains("handshake_required"), "{answer}");
        assert_eq!(client.receive(), None);
    }
}

fn too_long() {
    let mut config = config("worker");
    config.max_body_bytes = 100_000;
    let pool = Running::start(config);
    let mut client = pool.client();
    let answer =
        client.ask(&format!("{{\"op\":\"call\",\"id\":3,\"body\":\"{}\"}}", "z".repeat(300_000)));
    assert!(answer.contains("\"id\":3,\"ok\":false,\"code\":\"body_too_large\""), "{answer}");
    assert_eq!(client.ask(r#"{"op":"call","id":4,"body":4}"#), result(4, "4"));
}

fn closed() {
    let pool = Running::start(config("worker"));
    let other = Running::start(config("worker"));
    let mut client = pool.client();
    let taken = remuda_shm::SpscListener::bind(&pool.name, remuda_shm::Options::default());
    assert!(matches!(taken, Err(ShmError::NameTaken { .. })), "{taken:?}");
    let name = pool.name.clone();
    client.call(1, "1");
    assert_eq!(client.receive().unwrap(), result(1, "1"));
    drop(pool);
    assert_eq!(client.receive(), None);
    let gone = Peer::try_connect(&name).err();
    assert!(matches!(gone, Some(ShmError::NotFound { .. })), "{gone:?}");
    other.client();
}

fn limit() {
    const LIMIT: usize = 256;
    let wanted = 20 * LIMIT as u64;
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    if limits.maximum.is_some_and(|most| most < wanted) {
        let ci = std::env::var("REMUDA_CI").is_ok_and(|ci| ci == "1");
        assert!(!ci, "the limit of open files is below {wanted}");
        eprintln!("SKIPPED: the limit of open files is below {wanted}");
        return;
    }
    let pool = Running::start(config("worker"));
    let mut clients: Vec<Peer> = (0..LIMIT).map(|_| pool.client()).collect();
    let refused = Peer::try_connect(&pool.name).err();
    let exhausted = Refusal::Exhausted;
    assert!(
        matches!(refused, Some(ShmError::Refused { reason }) if reason == exhausted),
        "{refused:?}"
    );
    clients.pop();
    pool.until("one has left", |status| status["connections"] == LIMIT - 1);
    clients.push(pool.client());
    for client in &mut clients {
        assert_eq!(client.ask(r#"{"op":"call","id":1,"body":1}"#), result(1, "1"));
    }
}

fn drained() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let pool = Running::start(config("worker"));
    let mut client = pool.client();
    let body = format!("\"fifo:{}\"", fifo.display());
    client.call(1, &body);
    client.call(2, "2");
    pool.until("the jobs are accepted", |status| status["jobs"]["accepted"] == 2);
    pool.shut_down();
    pool.until("it drains", |status| status["phase"] == "draining");
    let refused = client.ask(r#"{"op":"call","id":3,"body":3}"#);
    assert!(refused.contains("\"draining\""), "{refused}");
    std::fs::write(&fifo, "").unwrap();
    assert_eq!(client.receive().unwrap(), result(1, &body));
    assert_eq!(client.receive().unwrap(), result(2, "2"));
    drop(pool);
    assert_eq!(client.receive(), None);
}

/// A pipe by name: whoever reads it waits until somebody has written.
pub fn make_fifo(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}
