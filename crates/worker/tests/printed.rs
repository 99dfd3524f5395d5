//! What `docs/protocol.md` prints: its lines are read, its worker and its client are run.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use remuda_protocol::{Code, Reply, Request};
use support::{Peer, start};

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The text of each block that is fenced with these words.
fn blocks(fence: &str) -> Vec<String> {
    let open = format!("```{fence}\n");
    PAGE.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Writes the program of this name into `folder`.
fn program(name: &str, folder: &Path) -> String {
    let blocks = blocks(&format!("python {name}"));
    assert_eq!(blocks.len(), 1, "docs/protocol.md prints {name} once");
    let path = folder.join(name);
    std::fs::write(&path, &blocks[0]).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whether there is a Python to run the page's programs with.
fn python() -> bool {
    let found =
        Command::new("python3").arg("--version").output().is_ok_and(|it| it.status.success());
    if !found {
        assert!(std::env::var_os("REMUDA_CI").is_none_or(|ci| ci != "1"), "python3 is missing");
        eprintln!("SKIPPED: python3 is missing, so the programs in docs/protocol.md were not run");
    }
    found
}

#[test]
fn every_printed_line_is_what_it_claims_to_be() {
    let wire = blocks("wire").concat();
    let (mut requests, mut replies) = (0, 0);
    for line in wire.lines() {
        if let Some(request) = line.strip_prefix("-> ") {
            Request::parse(request.as_bytes()).unwrap_or_else(|bad| panic!("{request}: {bad}"));
            requests += 1;
        } else if let Some(reply) = line.strip_prefix("<- ") {
            Reply::parse(reply.as_bytes()).unwrap_or_else(|bad| panic!("{reply}: {bad}"));
            replies += 1;
        } else {
            panic!("neither a request nor a reply: {line}");
        }
    }
    assert!(requests >= 9 && replies >= 8, "{requests} requests, {replies} replies");
}

#[test]
fn every_code_stands_in_the_table_with_the_answer_that_the_crate_gives() {
    let table = PAGE.split("## Codes").nth(1).unwrap().split("## Reserved").next().unwrap();
    let mut rows = table.lines().filter(|line| line.starts_with("| `"));
    for code in Code::ALL {
        let row = rows.next().unwrap_or_else(|| panic!("no row for {code}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[1], format!("`{code}`"));
        let says = cells[3] != "no";
        assert_eq!(says, code.may_have_run(), "{row}");
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn the_limits_are_those_of_the_crate() {
    for (limit, text) in [
        (remuda_protocol::MAX_BODY_BYTES_DEFAULT, "`max_body_bytes` (default 16 MiB) and 64 KiB"),
        (remuda_protocol::HANDSHAKE_BYTES_MAX, "| the first line of a connection | 16 KiB |"),
        (remuda_protocol::DEPTH_MAX, "in a body | 128 |"),
        (remuda_protocol::ID_BYTES_MAX, "| 64 bytes as written, quotes not counted |"),
        (remuda_protocol::HOPS_MAX as usize, "| pools that a call passes through | 8 |"),
    ] {
        assert!(PAGE.contains(text), "{text} ({limit})");
    }
    assert_eq!(remuda_protocol::MAX_BODY_BYTES_DEFAULT, 16 << 20);
    assert_eq!(remuda_protocol::ENVELOPE_BYTES_MAX, 64 << 10);
    assert_eq!(remuda_protocol::HANDSHAKE_BYTES_MAX, 16 << 10);
    assert_eq!(remuda_protocol::DEPTH_MAX, 128);
    assert_eq!(remuda_protocol::ID_BYTES_MAX, 64);
    assert_eq!(remuda_protocol::HOPS_MAX, 8);
}

#[test]
fn the_printed_worker_works() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let worker = program("worker.py", folder.path());
    let (mut child, mut peer) = start(Path::new("python3"), &[&worker]);
    let hello = peer.shake();
    let reply = Reply::parse(hello.as_bytes()).unwrap();
    let remuda_protocol::Answer::Handshake(offer) = reply.answer else { panic!("{hello}") };
    assert_eq!((offer.version.as_str(), offer.ordered, offer.batch), ("1", true, 0));
    assert_eq!(offer.pid, child.id());

    for (call, words) in [
        (r#"{"op":"call","id":7,"body":"abc"}"#, r#""body": "ABC""#),
        (r#"{"op":"call","id":"x y","body":"é"}"#, r#""id": "x y""#),
        (
            r#"{"op":"call","id":8,"body":5}"#,
            r#""code": "handler_error", "error": "AttributeError"#,
        ),
        (r#"{"op":"call","id":9,"body":null}"#, r#""code": "handler_error""#),
        (r#"{"op":"fly","id":10}"#, r#""code": "unknown_op""#),
        (r#"{"op":"call","body":"still here"}"#, r#""body": "STILL HERE""#),
    ] {
        let answer = peer.ask(call);
        assert!(answer.contains(words), "{call}: {answer}");
        Reply::parse(answer.as_bytes()).unwrap();
    }
    peer.stream.shutdown(Shutdown::Both).unwrap();
    assert!(child.wait().unwrap().success());
}

fn start_client(client: &str, socket: &Path, bodies: &[&str]) -> Child {
    Command::new("python3")
        .arg(client)
        .arg(socket)
        .args(bodies)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_printed_client_calls_the_printed_worker() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (worker, client) =
        (program("worker.py", folder.path()), program("client.py", folder.path()));
    let path = folder.path().join("worker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = start_client(&client, &path, &["abc", "é", "three words here"]);
    let (stream, _) = listener.accept().unwrap();
    // The worker gets the very connection of the client, as a pool would be in between.
    let mut worker = Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh", "python3", &worker])
        .env("REMUDA_FD", "3")
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .spawn()
        .unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ABC\nÉ\nTHREE WORDS HERE\n");
    assert!(output.status.success());
    assert!(worker.wait().unwrap().success());
}

/// Runs the printed client against a server that answers each line it gets with the next of these.
fn client_against(answers: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let client = program("client.py", folder.path());
    let path = folder.path().join("pool.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = start_client(&client, &path, &["a", "b"]);
    let (stream, _) = listener.accept().unwrap();
    let mut peer = Peer::new(stream);
    for answer in answers {
        peer.receive().expect("a request");
        peer.stream.write_all(answer.as_bytes()).unwrap();
    }
    peer.stream.shutdown(Shutdown::Write).unwrap();
    // What the client still sends is read, so that its end comes from it and not from a reset.
    peer.stream.read_to_end(&mut Vec::new()).unwrap();
    let output = client.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_printed_client_says_what_went_wrong() {
    if !python() {
        return;
    }
    let hello = "{\"ok\":true,\"data\":{\"kind\":\"handshake\",\"version\":\"1\"}}\n";
    let refusal = "{\"id\":1,\"ok\":false,\"code\":\"queue_full\",\"error\":\"try later\"}\n";
    let result = "{\"id\":0,\"ok\":true,\"data\":{\"kind\":\"result\",\"body\":\"A\"}}\n";
    for (answers, words) in [
        (&[&*hello.replace("\"1\"", "\"2\"")][..], "speaks version 2"),
        (
            &["{\"ok\":false,\"code\":\"unauthorized\",\"error\":\"no token\"}\n"],
            "unauthorized: no token",
        ),
        (&["{\"ok\":tr"], "closed the connection"),
        (&[hello, refusal, result], "queue_full: try later"),
    ] {
        let (status, error) = client_against(answers);
        assert_eq!(status, Some(1), "{error}");
        assert!(error.contains(words), "{error}");
    }
}
