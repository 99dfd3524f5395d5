//! What this binary is besides the test: workers, and a pool or a client to be killed.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use remuda_worker::{Job, Raw, Worker};

use crate::support::{self, Peer};

pub const ARGUMENT: &str = "__program";

pub fn main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["worker"] => Worker::raw(run).batch(0).run(),
        // It hardly ever sleeps while there are jobs.
        ["awake"] => Worker::raw(run).batch(0).spin(Duration::from_millis(200)).run(),
        ["cancellable"] => Worker::raw(run).cancellable().run(),
        ["socket"] => Worker::raw(run).shm(false).run(),
        ["pool", name, worker] => support::serve_until_killed(name, worker),
        ["client", name] => client(name),
        _ => panic!("no such program: {words:?}"),
    }
}

/// Echoes; some bodies have it do something before.
fn run(body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    match body.as_str() {
        "\"die\"" => std::process::abort(),
        "\"stop\"" => {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::STOP).unwrap();
        }
        "\"until cancelled\"" => {
            println!("begun");
            while !Job::current().is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Err("as it was asked to".to_owned());
        }
        // Blocks until the file that it names can be read to its end.
        text if text.starts_with("\"fifo:") => {
            std::fs::read(text.trim_matches('"').trim_start_matches("fifo:")).unwrap();
        }
        _ => {}
    }
    out.extend_from_slice(body.as_bytes());
    Ok(())
}

/// Sends a call that lasts, and waits to be killed.
fn client(name: &str) -> ExitCode {
    let mut peer = Peer::connect(name);
    peer.shake();
    peer.send("{\"op\":\"call\",\"id\":1,\"body\":\"until cancelled\"}\n");
    println!("sent");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}
