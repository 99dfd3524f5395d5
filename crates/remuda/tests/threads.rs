//! `--threads`: built-in workers on threads of the pool's own process, behind the same map and
//! service as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use support::{Serve, remuda, text};

/// Runs `command` with `input` on its stdin.
fn fed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

fn map(args: &[&str], input: &[u8]) -> Output {
    let mut command = remuda();
    command.arg("map").args(args);
    fed(command, input)
}

#[test]
fn map_on_threads_prints_what_sha256sum_prints() {
    let dir = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for n in 0..300 {
        let path = dir.path().join(format!("file {n}"));
        std::fs::write(&path, vec![n as u8; n * 37]).unwrap();
        names.extend_from_slice(path.to_str().unwrap().as_bytes());
        names.push(0);
    }
    let ours = map(&["-0", "-k", "-j2", "--builtin", "sha256", "--threads"], &names);
    assert!(ours.status.success(), "{}", text(&ours.stderr));
    let mut theirs = Command::new("xargs");
    theirs.args(["-0", "sha256sum"]);
    assert_eq!(text(&ours.stdout), text(&fed(theirs, &names).stdout));
}

#[test]
fn bodies_arrive_as_they_were_sent_in_batches_too() {
    let input: String = (0..20_000).map(|n| format!("line {n} \"quoted\" \\ é\n")).collect();
    let output = map(&["-k", "-j2", "--builtin", "echo", "--threads"], input.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), input);
}

#[test]
fn a_failed_job_says_why_and_costs_no_other() {
    let output = map(
        &["-k", "-j1", "--builtin", "sha256", "--threads"],
        b"/dev/null\n/no/such\n/dev/null\n",
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert!(text(&output.stderr).contains("/no/such"), "{}", text(&output.stderr));
}

#[test]
fn a_job_over_its_time_leaves_its_thread_behind_and_others_go_on() {
    let output =
        map(&["-k", "-j1", "--timeout", "2", "--builtin", "sleep", "--threads"], b"3600\n0\n0\n");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "0\n0\n");
}

#[test]
fn serve_counts_the_threads_left_behind_and_replaces_so_many_and_no_more() {
    let serve = Serve::start(&["-j1", "--exec-ttl", "2", "--builtin", "sleep", "--threads"]);
    let mut client = serve.client();
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":0}"#)["data"]["body"], json!(0));
    assert_eq!(serve.status()["threads_left_behind"], 0);

    // The first is left behind and replaced.
    assert_eq!(client.ask(r#"{"op":"call","id":2,"body":3600}"#)["code"], "timeout");
    assert_eq!(client.ask(r#"{"op":"call","id":3,"body":0}"#)["data"]["body"], json!(0));
    assert_eq!(serve.status()["threads_left_behind"], 1);

    // The second is one too many: its replacement waits until it ends.
    assert_eq!(client.ask(r#"{"op":"call","id":4,"body":6}"#)["code"], "timeout");
    let status = serve.status_when("two left behind", |s| s["threads_left_behind"] == 2);
    assert_eq!(status["workers"][0]["state"], "starting", "{status:#}");
    assert_eq!(client.ask(r#"{"op":"call","id":5,"body":0}"#)["data"]["body"], json!(0));
    assert_eq!(serve.status()["threads_left_behind"], 1);
}

#[test]
fn serve_on_threads_answers_resets_and_stops() {
    let mut serve = Serve::start(&["-j2", "--builtin", "echo", "--threads"]);
    let mut client = serve.client();
    for n in 0..100 {
        let reply = client.ask(&format!(r#"{{"op":"call","id":{n},"body":{{"n":{n}}}}}"#));
        assert_eq!(reply["data"]["body"]["n"], n);
    }
    assert_eq!(client.ask(r#"{"op":"reset","id":"r"}"#)["ok"], true);
    assert_eq!(client.ask(r#"{"op":"call","id":1,"body":null}"#)["ok"], true);
    let status = serve.status();
    assert_eq!(status["workers_started"], 4, "{status:#}");
    assert_eq!(status["threads_left_behind"], 0);
    drop(client);
    serve.signal("TERM");
    assert!(serve.wait_end().success());
}
