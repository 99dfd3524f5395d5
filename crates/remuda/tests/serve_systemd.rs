//! What a service manager hands over and is told: sockets, readiness, reloading, stopping.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use serve::{Client, Serve, handler, remuda};

/// Opens a Unix socket and becomes the pool, as systemd does it.
const LAUNCHER: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(64)
t = socket.socket()
t.bind(("127.0.0.1", 0))
t.listen(64)
fds = [os.dup(s.fileno()), os.dup(t.fileno())]
s.close(); t.close()
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
os.closerange(5, 200)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="a:b")
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn notified(command: &mut Command, dir: &Path) -> UnixDatagram {
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(serve::PATIENCE)).unwrap();
    command.env("NOTIFY_SOCKET", &path);
    socket
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let count = loop {
        match socket.recv(&mut bytes) {
            // The process was stopped, and goes on.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            count => break count.unwrap(),
        }
    };
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn sockets_that_were_handed_over_are_served_and_not_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", LAUNCHER]).arg(&path).arg(env!("CARGO_BIN_EXE_remuda"));
    command.args(["serve", "-j1", "--python", &handler(dir.path())]);
    command.env("REMUDA_PYTHON_BIN", "/usr/bin/python3").env("XDG_RUNTIME_DIR", dir.path());
    let mut serve = Serve::spawn(command);
    serve.dir = Some(dir);
    assert_eq!(serve.address(0), format!("unix:{}", path.display()));
    let tcp = serve.address(1);

    let mut client = Client::tcp(&tcp);
    client.greet();
    let names = r#"["LISTEN_FDS","LISTEN_PID","LISTEN_FDNAMES","REMUDA_WORKER_SLOT"]"#;
    let env = client.ask(&format!(r#"{{"op":"call","id":1,"body":{{"env":{names}}}}}"#));
    let env = &env["data"]["body"];
    assert_eq!(env["REMUDA_WORKER_SLOT"], "0", "{env}");
    assert!(env["LISTEN_FDS"].is_null() && env["LISTEN_PID"].is_null(), "{env}");
    assert!(env["LISTEN_FDNAMES"].is_null(), "{env}");

    // The worker holds its own socket, and neither of the two.
    let fds = client.ask(r#"{"op":"call","id":2,"body":{"fds":1}}"#)["data"]["body"].clone();
    let held = fds.as_object().unwrap().values();
    let sockets = held.filter(|name| name.as_str().unwrap().starts_with("socket:")).count();
    assert_eq!(sockets, 1, "{fds}");

    // Its socket takes the default one's place, and is the one that administers.
    assert!(!serve.file("remuda").exists(), "the default socket is not opened as well");
    assert_eq!(client.ask(r#"{"op":"shutdown","id":3}"#)["code"], "unauthorized");
    assert_eq!(serve.client().ask(r#"{"op":"shutdown","id":3}"#)["ok"], true);
    assert_eq!(serve.wait_end().code(), Some(0));
    assert!(path.exists(), "the file of a socket that systemd opened is systemd's");
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = remuda();
    let told = notified(&mut command, dir.path());
    command.args(["serve", "-j1", "--python", &handler(dir.path())]);
    command.arg(format!("--listen=unix:{}/s,role=admin", dir.path().display()));
    let mut serve = Serve::spawn(command);
    serve.dir = Some(dir);
    assert!(next(&told).contains("STATUS=waiting for the first worker"));
    assert!(next(&told).contains("READY=1"));
    assert_eq!(serve.ready().len(), 1, "it is ready when its first worker is");
    let pool = r#"{"op":"call","id":1,"body":{"env":["NOTIFY_SOCKET"]}}"#;
    assert!(serve.client().ask(pool)["data"]["body"]["NOTIFY_SOCKET"].is_null());

    serve.signal("HUP");
    let reloading = next(&told);
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="));
    assert!(next(&told).contains("READY=1"), "once the reset is over");
    assert_eq!(serve.status()["restarts"]["reset"], 1);

    serve.signal("TERM");
    assert!(next(&told).contains("STOPPING=1"));
    assert_eq!(serve.wait_end().code(), Some(0));
}

#[test]
fn a_pool_whose_workers_cannot_start_keeps_trying_and_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("work.py");
    std::fs::write(&broken, "def handle(:\n").unwrap();
    let mut command = remuda();
    let told = notified(&mut command, dir.path());
    command.args(["serve", "-j1", "--python"]).arg(format!("{}:handle", broken.display()));
    command.arg(format!("--listen=unix:{}/s,role=admin", dir.path().display()));
    let mut serve = Serve::spawn(command);
    serve.dir = Some(dir);
    serve.listening();
    assert!(next(&told).contains("STATUS=waiting"));
    let status =
        serve.status_when("several starts failed", |s| s["starts_failed"].as_u64().unwrap() >= 3);
    assert_eq!(status["ready"], false);
    let events = serve.run("status", &["--events"]);
    assert!(serve::text(&events.stdout).contains("SyntaxError"), "{}", serve::text(&events.stdout));
    // Mended, it serves without a restart.
    handler(serve.dir.as_ref().unwrap().path());
    assert!(next(&told).contains("READY=1"));
    assert_eq!(serve.client().ask(r#"{"op":"call","id":1,"body":5}"#)["data"]["body"], 5);
}
