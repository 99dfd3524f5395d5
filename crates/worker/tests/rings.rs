//! The example worker as a process of its own, told by the pool's side to go on over rings.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

use remuda_protocol::{Framer, SHM_LINE};
use remuda_shm::{Options, Receiver, Sender, SpscFace};

use support::{Peer, start, upper};

/// So long a test waits for an answer before it fails; nothing depends on how long it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pool's side: the rings, and the socket that stays open.
struct Rings {
    sender: Option<Sender>,
    receiver: Receiver,
    socket: UnixStream,
    framer: Framer,
}

/// Starts the worker, shakes hands, and goes on over rings of `options`.
fn over_rings(options: &Options) -> (Child, Rings) {
    let (child, mut peer) = start(&upper(), &[]);
    let hello = peer.shake();
    assert!(hello.contains(r#""capabilities":["shm"]"#), "{hello}");
    peer.send(std::str::from_utf8(SHM_LINE).unwrap());
    let face = SpscFace::over(&peer.stream, options).unwrap();
    let (sender, receiver) = face.into_split();
    let framer = Framer::new(64 << 20);
    (child, Rings { sender: Some(sender), receiver, socket: peer.stream, framer })
}

impl Rings {
    fn send(&mut self, text: &str) {
        let sender = self.sender.as_mut().unwrap();
        let parts: Vec<&[u8]> = text.as_bytes().chunks(sender.slot_size()).collect();
        sender.send_batch_blocking(&parts).unwrap();
    }

    /// The next line, or `None` at the end.
    fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.framer.next_line().unwrap() {
                return Some(String::from_utf8(line.to_vec()).unwrap());
            }
            let message = self.receiver.recv_timeout(PATIENCE).ok()?;
            let mut message = &message.expect("the worker is silent")[..];
            while !message.is_empty() {
                let count = message.read(self.framer.spare()).unwrap();
                self.framer.filled(count);
            }
        }
    }

    fn call(&mut self, id: usize, body: &str) {
        self.send(&format!("{{\"op\":\"call\",\"id\":{id},\"body\":\"{body}\"}}\n"));
    }
}

fn result(id: usize, body: &str) -> String {
    format!(r#"{{"id":{id},"ok":true,"data":{{"kind":"result","body":"{body}"}}}}"#)
}

#[test]
fn calls_go_by_the_rings_and_the_socket_carries_nothing_more() {
    let (mut child, mut rings) = over_rings(&Options::default());
    for id in 0..100 {
        rings.call(id, "abc");
    }
    for id in 0..100 {
        assert_eq!(rings.receive().unwrap(), result(id, "ABC"));
    }
    rings.sender = None;
    assert_eq!(rings.receive(), None);
    assert!(child.wait().unwrap().success());
    let mut rest = Vec::new();
    rings.socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn lines_longer_than_the_whole_ring_come_and_go_whole() {
    let (mut child, mut rings) = over_rings(&Options::new(4, 100).unwrap());
    for bytes in [10, 99, 100, 101, 1_000, 100_000] {
        rings.call(bytes, &"x".repeat(bytes));
        // Several small ones behind it, in one message.
        rings.send("{\"op\":\"call\",\"id\":1,\"body\":\"a\"}\n{\"op\":\"call\",\"id\":2,\"body\":\"b\"}\n");
        assert_eq!(rings.receive().unwrap(), result(bytes, &"X".repeat(bytes)));
        assert_eq!(rings.receive().unwrap(), result(1, "A"));
        assert_eq!(rings.receive().unwrap(), result(2, "B"));
    }
    drop(rings);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_was_sent_before_the_end_is_still_answered() {
    let (mut child, mut rings) = over_rings(&Options::default());
    for id in 0..50 {
        rings.call(id, "a");
    }
    rings.sender = None;
    for id in 0..50 {
        assert_eq!(rings.receive().unwrap(), result(id, "A"));
    }
    assert_eq!(rings.receive(), None);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_a_killed_worker_published_is_read_and_its_socket_ends() {
    let (mut child, mut rings) = over_rings(&Options::default());
    rings.call(1, "before");
    // It is in the ring, and not read yet.
    while !rings.receiver.sees_message() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(rings.receive().unwrap(), result(1, "BEFORE"));
    assert_eq!(rings.receive(), None);
    assert_eq!(rings.socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_end_of_the_pool_ends_a_worker_that_waits_for_room() {
    let (mut child, mut rings) = over_rings(&Options::new(2, 64).unwrap());
    // The answer doesn't fit into the ring, and nobody reads it.
    rings.call(1, &"x".repeat(1_000));
    while !rings.receiver.sees_message() {
        std::thread::yield_now();
    }
    drop(rings);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_pool_that_wants_no_rings_goes_on_by_the_socket() {
    let (mut child, mut peer) = start(&upper(), &[]);
    peer.shake();
    let answer = peer.ask(r#"{"op":"call","id":7,"body":"abc"}"#);
    assert_eq!(answer, result(7, "ABC"));
    // Later than the first line it is no request.
    let answer = peer.ask(std::str::from_utf8(SHM_LINE).unwrap().trim_end());
    assert!(answer.contains("unknown_op"), "{answer}");
    peer.stream.shutdown(Shutdown::Both).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_offer_that_never_comes_whole_ends_the_worker() {
    let (mut child, mut peer): (Child, Peer) = start(&upper(), &[]);
    peer.shake();
    peer.send(std::str::from_utf8(SHM_LINE).unwrap());
    peer.send("no offer");
    peer.stream.shutdown(Shutdown::Both).unwrap();
    assert!(!child.wait().unwrap().success());
}
