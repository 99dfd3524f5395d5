//! A pool that attaches to others, and how its links to them are.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a program of its own and uses a part of it"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::serve::Serve;

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
