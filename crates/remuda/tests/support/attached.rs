//! A pool that attaches to others, and how its links to them are.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a program of its own and uses a part of it"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::serve::{Client, Serve};

/// The state of each peer, in the order of `--attach`.
pub fn peers(status: &Value) -> Vec<(String, u64)> {
    let workers = status["workers"].as_array().unwrap().iter();
    let attached = workers.filter(|worker| worker["attached"].is_string());
    attached
        .map(|peer| {
            (peer["state"].as_str().unwrap().to_owned(), peer["in_flight"].as_u64().unwrap())
        })
        .collect()
}

pub fn all_linked(serve: &Serve) {
    serve.status_when("linked to all peers", |status| {
        let peers = peers(status);
        !peers.is_empty() && peers.iter().all(|(state, _)| state == "idle" || state == "busy")
    });
}

/// Calls of a client go to the peer `behind`, and what comes of them comes back as it is told there.
pub fn passes_calls_on(client: &mut Client, behind: &Serve) {
    let reply = client.ask(r#"{"op":"call","id":1,"body":{"back":[1,"ü"]}}"#);
    assert_eq!(reply["data"]["body"], json!([1, "ü"]), "{reply}");
    // A failure has its code, its message and its traceback.
    let reply = client.ask(r#"{"op":"call","id":2,"body":{"sleep":"x"}}"#);
    assert_eq!(reply["code"], "handler_error", "{reply}");
    assert!(reply["traceback"].as_str().unwrap().contains("work.py"), "{reply}");
    // What is cancelled here is cancelled there.
    client.send(r#"{"op":"call","id":3,"body":{"sleep":600}}"#);
    behind.status_when("it runs there", |status| status["in_flight"] == 1);
    client.send(r#"{"op":"cancel","id":3}"#);
    assert_eq!(client.reply()["code"], "cancelled");
    behind
        .status_when("it was cancelled there", |status| status["jobs"]["failed"]["cancelled"] == 1);
}

pub fn attach(to: &[&Serve], more: &[&str]) -> Serve {
    let to: Vec<_> =
        to.iter().map(|one| format!("--attach=unix:{}", one.path().display())).collect();
    let mut args: Vec<&str> = to.iter().map(String::as_str).collect();
    args.extend(more);
    Serve::start(&args)
}

/// A Python worker that somebody started by hand. Killed when dropped.
pub struct Worker(pub Child);

impl Worker {
    pub fn start(path: &Path) -> Self {
        let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/python");
        let program = "import sys; sys.path.insert(0, sys.argv[1]); import remuda; \
                       remuda.serve(lambda text: text.upper(), listen=sys.argv[2])";
        let mut command = Command::new("python3");
        command.args(["-c", program, sdk]).arg(path).stdin(Stdio::null());
        Self(command.spawn().expect("python3 runs the worker"))
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
