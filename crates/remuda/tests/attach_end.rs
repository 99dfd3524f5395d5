//! The end of a pool in order, as a pool sees it that is attached to it: no call is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::Value;
use serve::{Serve, signal};

const HELLO: &str = r#"{"ok":true,"data":{"kind":"handshake","version":"1","capacity":4}}"#;
const FAREWELL: &str = r#"{"ok":false,"code":"draining","error":"it has ended"}"#;

/// A peer's end of a link.
struct Link(BufReader<UnixStream>);

impl Link {
    /// Accepts, and shakes hands.
    fn accept(listener: &UnixListener) -> Self {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(serve::PATIENCE)).unwrap();
        let mut link = Self(BufReader::new(socket));
        assert_eq!(link.next().unwrap()["op"], "handshake");
        link.send(HELLO);
        link
    }

    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line).unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    fn send(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    fn answer(&mut self, call: &Value) {
        let (id, body) = (&call["id"], &call["body"]);
        self.send(&format!(r#"{{"id":{id},"ok":true,"data":{{"kind":"result","body":{body}}}}}"#));
    }
}

#[test]
fn what_a_pool_that_ended_has_not_begun_runs_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let front = Serve::start(&[&format!("--attach=unix:{}", path.display())]);
    let mut link = Link::accept(&listener);
    let mut client = front.client();
    for id in 0..4 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
    }
    let calls: Vec<Value> = (0..4).map(|_| link.next().unwrap()).collect();
    link.answer(&calls[1]);
    link.send(FAREWELL);
    assert_eq!(client.reply()["id"], 1);
    while link.next().is_some() {}
    let mut link = Link::accept(&listener);
    for wanted in [0, 2, 3] {
        let call = link.next().unwrap();
        assert_eq!(call["body"], wanted, "in their order");
        link.answer(&call);
        let reply = client.reply();
        assert_eq!((&reply["id"], &reply["ok"]), (&wanted.into(), &true.into()), "{reply}");
    }
    assert_eq!(front.status()["jobs"]["retried"], 0, "none was begun twice");
}

#[test]
fn a_pool_that_ends_says_so_to_those_that_pass_calls_on_and_to_nobody_else() {
    let mut pool = Serve::start(&["-j1", "--builtin=echo"]);
    pool.ready();
    let (mut relay, mut client) = (pool.client(), pool.client());
    assert_eq!(relay.ask(r#"{"op":"call","id":1,"body":1,"hops":1}"#)["ok"], true);
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":1}"#)["ok"], true);
    signal(pool.pid(), "TERM");
    let farewell = relay.reply();
    assert_eq!((&farewell["id"], &farewell["code"]), (&Value::Null, &"draining".into()));
    // From here on nothing is looked at, and nothing comes.
    // It waits a second for whom it told, which may be over.
    let _ = relay.try_send(b"{\"op\":\"call\",\"id\":2,\"body\":2,\"hops\":1}\n");
    assert_eq!(client.line(), None);
    assert_eq!(relay.try_line().ok().flatten(), None);
    assert_eq!(pool.wait_end().code(), Some(0));
}

#[test]
fn a_pool_that_is_restarted_in_order_under_load_costs_no_call() {
    // A link that never stands for long is made anew after ever longer pauses.
    let rounds = if serve::is_soak() { 10 } else { 5 };
    let dir = tempfile::tempdir().unwrap();
    // A pool makes it as it has to be.
    let runtime = dir.path().join("run");
    let behind_path = dir.path().join("behind");
    for address in ["unix", "shm"] {
        let start = || {
            let mut command = serve::remuda();
            command.env("REMUDA_RUNTIME_DIR", &runtime).arg("serve").args([
                "-j2",
                "--builtin=echo",
                "--threads",
                &format!("--listen=unix:{}", behind_path.display()),
                "--listen=shm:behind",
            ]);
            let mut behind = Serve::spawn(command);
            behind.listening();
            behind.address(1);
            behind
        };
        let mut behind = start();
        let front_dir = tempfile::tempdir().unwrap();
        let mut command = serve::remuda();
        command.env("REMUDA_RUNTIME_DIR", &runtime).arg("serve");
        command.arg(format!("--listen=unix:{}/s,role=admin", front_dir.path().display()));
        command.arg(match address {
            "shm" => "--attach=shm:behind".to_owned(),
            _ => format!("--attach=unix:{}", behind_path.display()),
        });
        let mut front = Serve::spawn(command);
        front.dir = Some(front_dir);
        front.listening();
        let load = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| {
                let mut client = front.client();
                let mut sent: u64 = 0;
                while load.load(std::sync::atomic::Ordering::Relaxed) {
                    for _ in 0..64 {
                        client.send(&format!(r#"{{"op":"call","id":{sent},"body":{sent}}}"#));
                        sent += 1;
                    }
                    for _ in 0..64 {
                        let reply = client.reply();
                        assert_eq!(reply["ok"], true, "{address}, of {sent}: {reply}");
                    }
                }
            });
            for _ in 0..rounds {
                let done = front.status()["jobs"]["done"].as_u64().unwrap();
                front.status_when("calls pass", |status| {
                    status["jobs"]["done"].as_u64().unwrap() > done + 200
                });
                signal(behind.pid(), "TERM");
                assert_eq!(behind.wait_end().code(), Some(0));
                behind = start();
            }
            load.store(false, std::sync::atomic::Ordering::Relaxed);
            calling.join().unwrap();
        });
    }
}
