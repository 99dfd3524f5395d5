//! The example worker as a process of its own, started as a pool starts it and by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Peer, start, upper};

#[test]
fn a_pool_finds_its_worker_at_descriptor_three_and_ends_it_by_closing() {
    let (mut child, mut peer) = start(&upper(), &[]);
    let hello = peer.shake();
    assert!(hello.contains(r#""kind":"handshake","version":"1""#), "{hello}");
    assert!(hello.contains(&format!("\"pid\":{}", child.id())), "{hello}");
    assert!(hello.contains(r#""capacity":1,"ordered":true,"batch":256"#), "{hello}");
    assert_eq!(
        peer.ask(r#"{"op":"call","id":7,"body":"abc"}"#),
        r#"{"id":7,"ok":true,"data":{"kind":"result","body":"ABC"}}"#
    );
    peer.stream.shutdown(Shutdown::Both).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_was_sent_before_the_end_is_still_answered() {
    let (mut child, mut peer) = start(&upper(), &[]);
    peer.shake();
    peer.send(
        "{\"op\":\"call\",\"id\":1,\"body\":\"a\"}\n{\"op\":\"call\",\"id\":2,\"body\":\"b\"}\n",
    );
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert!(peer.receive().unwrap().contains("\"A\""));
    assert!(peer.receive().unwrap().contains("\"B\""));
    assert_eq!(peer.receive(), None);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_the_handler_starts_does_not_inherit_the_socket() {
    let (mut child, mut peer) = start(&upper(), &[]);
    peer.shake();
    let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/3", child.id())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    let close_on_exec = 0o2000000;
    assert_ne!(u32::from_str_radix(flags, 8).unwrap() & close_on_exec, 0, "{info}");
    drop(peer);
    child.wait().unwrap();
}

fn failed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_worker_that_no_pool_started_says_how_to_start_it() {
    let error = failed(Command::new(upper()).env_remove("REMUDA_FD"));
    assert!(error.contains("remuda map -- WORKER"), "{error}");
}

#[test]
fn a_wrong_descriptor_is_an_error_and_not_a_crash() {
    for (value, words) in [
        ("three", "not the number of a descriptor"),
        ("0", "not the number of a descriptor"),
        ("-1", "not the number of a descriptor"),
        ("777", "no connected socket"),
    ] {
        let error = failed(Command::new(upper()).env("REMUDA_FD", value));
        assert!(error.contains(words), "{value}: {error}");
    }
    let mut file_at_three = Command::new("sh");
    file_at_three.args(["-c", "exec \"$0\" 3</dev/null"]).arg(upper()).env("REMUDA_FD", "3");
    let error = failed(&mut file_at_three);
    assert!(error.contains("no connected socket"), "{error}");
}

/// Starts the worker with `--listen`, and connects as soon as it says that it listens.
fn listen(path: &Path) -> (Child, Peer) {
    let mut child = Command::new(upper())
        .arg("--listen")
        .arg(path)
        .env_remove("REMUDA_FD")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("listening at"), "{said}");
    (child, Peer::new(UnixStream::connect(path).unwrap()))
}

#[test]
fn a_worker_started_by_hand_serves_all_who_connect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upper.sock");
    let (mut child, mut first) = listen(&path);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut second = Peer::new(UnixStream::connect(&path).unwrap());
    first.shake();
    second.shake();
    for peer in [&mut second, &mut first] {
        assert!(peer.ask(r#"{"op":"call","id":1,"body":"x"}"#).contains("\"X\""));
    }

    let taken = failed(Command::new(upper()).arg("--listen").arg(&path).env_remove("REMUDA_FD"));
    assert!(taken.contains("another process listens there"), "{taken}");
    assert_eq!(taken.matches("upper.sock").count(), 1, "{taken}");

    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, mut peer) = listen(&path);
    peer.shake();
    assert!(peer.ask(r#"{"op":"call","id":1,"body":"again"}"#).contains("\"AGAIN\""));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = failed(Command::new(upper()).arg("--listen").arg(&path).env_remove("REMUDA_FD"));
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn killing_the_worker_ends_the_socket() {
    let (mut child, mut peer) = start(&upper(), &[]);
    peer.shake();
    child.kill().unwrap();
    assert_eq!(peer.receive(), None);
    child.wait().unwrap();
}

#[test]
fn half_a_line_at_the_end_is_dropped() {
    let (mut child, mut peer) = start(&upper(), &[]);
    peer.shake();
    peer.send("{\"op\":\"call\",\"id\":1,");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    BufReader::new(&peer.stream).read_line(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(child.wait().unwrap().success());
}
