//! Resets and the end of a pool under load: nobody notices the one, and nothing that was accepted
//! is lost by the other.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serve::{Client, Serve, text};

const CALLERS: usize = 64;

/// What one caller saw.
#[derive(Default)]
struct Seen {
    done: u64,
    draining: u64,
    times: Vec<Duration>,
}

/// Calls one after the other until the pool drains or the run is over; every failure but
/// `draining` after `stopping` fails the test. Lets go of `begun` once it has its first answer.
fn caller(
    path: &std::path::Path,
    number: usize,
    begun: mpsc::Sender<()>,
    stopping: &AtomicBool,
    over: &AtomicBool,
) -> Seen {
    let mut client = Client::unix(path);
    client.greet();
    let (mut seen, mut begun) = (Seen::default(), Some(begun));
    for n in 0u64.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let since = Instant::now();
        let call = format!("{{\"op\":\"call\",\"id\":{n},\"body\":[{number},{n}]}}\n");
        if client.try_send(call.as_bytes()).is_err() {
            assert!(stopping.load(Ordering::SeqCst), "the pool closed before it was stopped");
            break;
        }
        let Ok(Some(line)) = client.try_line() else {
            assert!(stopping.load(Ordering::SeqCst), "the pool closed before it was stopped");
            break;
        };
        let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(reply["id"], n, "an answer that nobody waits for: {reply}");
        if reply["code"] == "draining" {
            assert!(stopping.load(Ordering::SeqCst), "draining before it was stopped");
            seen.draining += 1;
            break;
        }
        assert_eq!(reply["data"]["body"], serde_json::json!([number, n]), "{reply}");
        seen.done += 1;
        seen.times.push(since.elapsed());
        drop(begun.take());
    }
    seen
}

/// Runs `during` while the callers call; gives what they saw.
fn under_load(serve: &mut Serve, during: impl FnOnce(&mut Serve, &AtomicBool)) -> Vec<Seen> {
    let stopping = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let (begun, all_have_begun) = mpsc::channel();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (path, stopping, over) = (serve.path(), Arc::clone(&stopping), Arc::clone(&over));
            let begun = begun.clone();
            std::thread::spawn(move || caller(&path, number, begun, &stopping, &over))
        })
        .collect();
    drop(begun);
    assert!(all_have_begun.recv().is_err(), "nothing is sent");
    during(serve, &stopping);
    over.store(true, Ordering::SeqCst);
    callers.into_iter().map(|caller| caller.join().unwrap()).collect()
}

fn report(what: &str, seen: &[Seen]) {
    let mut times: Vec<Duration> = seen.iter().flat_map(|seen| seen.times.clone()).collect();
    times.sort();
    let done: u64 = seen.iter().map(|seen| seen.done).sum();
    let draining: u64 = seen.iter().map(|seen| seen.draining).sum();
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    println!(
        "{what}: {done} answered, {draining} draining; p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        at(500),
        at(990),
        at(999),
        times[times.len() - 1]
    );
}

#[test]
fn ten_resets_and_then_sigterm_lose_nothing() {
    let mut serve = Serve::python(&["-j2"]);
    serve.ready();
    let pause = Duration::from_millis(if serve::is_soak() { 3000 } else { 50 });
    let mut ended = Duration::ZERO;
    let seen = under_load(&mut serve, |serve, stopping| {
        for _ in 0..10 {
            let before = serve.ready();
            let output = serve.run("reset", &[]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let after = serve.ready();
            assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
            std::thread::sleep(pause);
        }
        stopping.store(true, Ordering::SeqCst);
        let since = Instant::now();
        serve.signal("TERM");
        assert_eq!(serve.wait_end().code(), Some(0));
        ended = since.elapsed();
    });
    report("ten resets, then SIGTERM", &seen);
    println!("it ended {ended:?} after SIGTERM");
    assert!(seen.iter().all(|seen| seen.done > 0), "every caller was served");
    assert!(ended < Duration::from_secs(20), "{ended:?}");
}

#[test]
fn a_reset_onto_a_broken_file_is_noticed_by_who_typed_it_alone() {
    let mut serve = Serve::python(&["-j2"]);
    let before = serve.ready();
    let seen = under_load(&mut serve, |serve, _| {
        std::fs::write(serve.file("work.py"), "def handle(body:\n    return body\n").unwrap();
        let output = serve.run("reset", &[]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("SyntaxError"), "the stderr of the worker is printed: {said}");
        assert!(said.contains("the old workers stay"), "{said}");
        assert_eq!(serve.ready(), before, "the old workers stay");
    });
    report("a reset that failed", &seen);
    assert!(seen.iter().all(|seen| seen.done > 0 && seen.draining == 0));
    // Mended, the next reset does it.
    serve::handler(serve.dir.as_ref().unwrap().path());
    assert_eq!(serve.run("reset", &[]).status.code(), Some(0));
    assert!(serve.ready().iter().all(|pid| !before.contains(pid)));
}

#[test]
fn resets_that_are_asked_for_at_the_same_time_are_all_done() {
    let serve = Serve::start(&["-j1", "--builtin=echo"]);
    serve.ready();
    let commands: Vec<_> = (0..3).map(|_| serve.command("reset").spawn().unwrap()).collect();
    for mut command in commands {
        assert_eq!(serve::wait_end(&mut command).code(), Some(0));
    }
}

#[test]
fn a_stop_lets_accepted_jobs_finish_and_refuses_new_ones() {
    let mut serve = Serve::python(&["-j1"]);
    serve.ready();
    let (mut client, gate) = (serve.client(), serve.gate());
    client.send(&format!(r#"{{"op":"call","id":1,"body":{}}}"#, gate.job("\"late\"")));
    client.send(r#"{"op":"call","id":2,"body":"queued"}"#);
    serve.status_when("both accepted", |status| status["jobs"]["accepted"] == 2);
    let mut other = serve.client();
    assert_eq!(serve.run("stop", &[]).status.code(), Some(0));
    assert_eq!(other.ask(r#"{"op":"call","id":1,"body":1}"#)["code"], "draining");
    assert_eq!(other.ask(r#"{"op":"reset","id":2}"#)["ok"], false);
    gate.open();
    assert_eq!(client.reply()["data"]["body"], "late");
    assert_eq!(client.reply()["data"]["body"], "queued");
    assert_eq!(serve.wait_end().code(), Some(0));
}

#[test]
fn a_job_over_destroy_timeout_does_not_hold_up_the_end() {
    let mut serve = Serve::python(&["-j1", "--destroy-timeout", "300ms"]);
    serve.ready();
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":1,"body":{"sleep":600}}"#);
    serve.status_when("it runs", |status| status["in_flight"] == 1);
    serve.signal("TERM");
    let reply = client.reply();
    assert_eq!(reply["ok"], false, "a client that waits is never left waiting: {reply}");
    println!("a job over destroy_timeout: {reply}");
    assert_eq!(serve.wait_end().code(), Some(0));
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let mut serve = Serve::python(&["-j1"]);
    serve.ready();
    let mut client = serve.client();
    client.send(r#"{"op":"call","id":1,"body":{"sleep":600}}"#);
    serve.status_when("it runs", |status| status["in_flight"] == 1);
    serve.signal("TERM");
    serve.wait_line("stopping");
    serve.signal("TERM");
    assert_eq!(client.reply()["ok"], false);
    assert_eq!(serve.wait_end().code(), Some(0));
}
