//! `remuda call` and its kin against peers that shake hands, and then answer something else or read
//! nothing more.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use remuda::shm::{Options, SpscFace};
use serve::{remuda, text};

const HELLO: &[u8] = b"{\"ok\":true,\"data\":{\"kind\":\"handshake\",\"version\":\"1\"}}\n";

#[test]
fn an_answer_to_another_request_is_never_taken() {
    let result = r#""ok":true,"data":{"kind":"result","body":"wrong"}"#;
    let failure = r#""ok":false,"code":"bad_request","error":"no such thing""#;
    let status = r#""ok":true,"data":{"kind":"status","phase":"running"}"#;
    let other = "the pool answered request 7 instead of 1";
    for (command, answer, code, wanted) in [
        ("call", format!("{{\"id\":7,{result}}}\n"), 255, other),
        ("call", format!("{{\"id\":7,{failure}}}\n"), 255, other),
        ("call", format!("{{{result}}}\n"), 255, "the pool's answer has no id"),
        ("call", format!("{{{failure}}}\n"), 1, "bad_request: no such thing"),
        ("call", format!("{{\"id\":1,{failure}}}\n"), 1, "bad_request: no such thing"),
        ("status", format!("{{\"id\":7,{status}}}\n"), 255, other),
        ("stop", format!("{{\"id\":\"1\",{status}}}\n"), 255, "answered request \"1\" instead"),
    ] {
        // Each has its own: a call that takes its time connects once more, to ask why.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut asking = remuda();
        asking.arg(command).arg("--to").arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
        if command == "call" {
            asking.arg("abc");
        }
        let asking = asking.spawn().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(peer.try_clone().unwrap()).lines();
        lines.next().unwrap().unwrap();
        peer.write_all(HELLO).unwrap();
        lines.next().unwrap().unwrap();
        peer.write_all(answer.as_bytes()).unwrap();
        let output = asking.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command} {answer}{said}");
        assert!(said.contains(wanted), "{command} {answer}{said}");
        assert_eq!(text(&output.stdout), "");
    }
}

/// Waits until the process is in this state, as the system tells it by a letter.
fn until_state(pid: u32, state: char) {
    let since = std::time::Instant::now();
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    while !stat().contains(&format!(") {state} ")) {
        let is_hopeless = since.elapsed() > serve::PATIENCE || stat().contains(") Z ");
        assert!(!is_hopeless, "it never was {state}: {}", stat());
        std::thread::yield_now();
    }
}

#[test]
fn one_that_is_stopped_and_goes_on_still_waits_for_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut calling = remuda();
    calling.args(["call", "--timeout=60s", "abc", "--to"]).arg(&path);
    let calling = calling.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(peer.try_clone().unwrap()).lines();
    let answer = b"{\"id\":1,\"ok\":true,\"data\":{\"kind\":\"result\",\"body\":\"ABC\"}}\n";
    // While it waits for the handshake's answer, and for that of its job.
    for says in [HELLO, answer] {
        lines.next().unwrap().unwrap();
        until_state(calling.id(), 'S');
        serve::signal(calling.id(), "STOP");
        until_state(calling.id(), 'T');
        serve::signal(calling.id(), "CONT");
        until_state(calling.id(), 'S');
        peer.write_all(says).unwrap();
    }
    let output = calling.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "ABC\n", "{}", text(&output.stderr));
}

/// Calls the pool at `to` with a job that no buffers hold, and little time.
fn call_with_much(dir: &tempfile::TempDir, to: &str) -> Child {
    let job = dir.path().join("job");
    std::fs::write(&job, vec![b'x'; 24 << 20]).unwrap();
    let mut command = remuda();
    command.args(["call", "--timeout=200ms", "--to", to, "-"]);
    command.env("REMUDA_RUNTIME_DIR", dir.path().join("run"));
    command.stdin(File::open(job).unwrap()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for its end, for as long as a test may take.
fn gives_up(calling: Child) {
    let (ended, end) = mpsc::channel();
    let id = calling.id();
    std::thread::spawn(move || ended.send(calling.wait_with_output().unwrap()));
    let Ok(output) = end.recv_timeout(serve::PATIENCE) else {
        serve::signal(id, "KILL");
        panic!("it still tries to send");
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    let wanted = "the pool read no more of the request for 1.2s: it is stopped or hangs, and did \
                  nothing of what was asked";
    assert!(said.contains(wanted), "{said}");
}

fn shake_hands(peer: &mut (impl Read + Write)) {
    BufReader::with_capacity(1, &mut *peer).read_until(b'\n', &mut Vec::new()).unwrap();
    peer.write_all(HELLO).unwrap();
}

#[test]
fn a_job_that_is_not_read_is_given_up_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let calling = call_with_much(&dir, &format!("unix:{}", path.display()));
    let (mut peer, _) = listener.accept().unwrap();
    shake_hands(&mut peer);
    gives_up(calling);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let calling = call_with_much(&dir, &format!("tcp:{}", listener.local_addr().unwrap()));
    let (mut peer, _) = listener.accept().unwrap();
    shake_hands(&mut peer);
    gives_up(calling);
}

#[test]
fn nor_is_one_over_rings_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let peer = SpscFace::create_in(&run, "stopped", &Options::default()).unwrap();
    let calling = call_with_much(&dir, "shm:stopped");
    peer.recv_blocking().expect("a handshake");
    peer.send_blocking(HELLO).unwrap();
    gives_up(calling);
}
