//! Two pools attached to a third, one of them killed and restarted each second under load.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod serve;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serve::{Serve, handler, remuda};

/// Jobs that are under way at any time: more than all workers together can take.
const WINDOW: u64 = 24;
/// How long a job takes, in seconds.
const JOB: f64 = 0.004;

/// How long it may take until a pool that was restarted is taken up: the longest delay is 10 s, the
/// rest is for a slow machine.
const TAKEN_UP: Duration = Duration::from_secs(30);

/// How the pools are reached.
#[derive(Clone, Copy)]
enum Over {
    Sockets,
    Rings,
}

impl Over {
    /// The address of the pool of that name.
    fn address(self, dir: &Path, name: &str) -> String {
        match self {
            Self::Sockets => format!("unix:{}", dir.join(name).display()),
            Self::Rings => format!("shm:{name}"),
        }
    }
}

/// `remuda serve`, with a directory of its own for names in shared memory.
fn serve_in(dir: &Path) -> Command {
    let mut command = remuda();
    command.arg("serve").env("REMUDA_RUNTIME_DIR", dir.join("names"));
    command
}

/// A pool with two workers, at an address where one was killed before.
fn pool(dir: &Path, address: &str) -> Serve {
    let mut command = serve_in(dir);
    command.args(["-j2", "--python", &handler(dir), "--listen", address]);
    let mut serve = Serve::spawn(command);
    serve.listening();
    serve
}

/// A pool that is attached to both, with a socket of its own.
fn front(dir: &Path, addresses: &[String], args: &[&str]) -> Serve {
    let own = tempfile::tempdir().unwrap();
    let mut command = serve_in(dir);
    command.arg(format!("--listen=unix:{}/s,role=admin", own.path().display()));
    command.args(addresses.iter().map(|address| format!("--attach={address}"))).args(args);
    let mut serve = Serve::spawn(command);
    serve.dir = Some(own);
    serve.listening();
    serve
}

/// What became of the jobs.
#[derive(Debug, Default)]
struct Outcomes {
    done: u64,
    codes: BTreeMap<String, u64>,
    /// The jobs that failed.
    failed: Vec<u64>,
    submitted: u64,
    kills: u32,
    /// How often each job ran.
    runs: BTreeMap<u64, u32>,
}

/// Submits jobs for that long while one of the two pools is killed each second.
fn storm(over: Over, args: &[&str]) -> (Outcomes, serde_json::Value) {
    let run = Duration::from_secs(if serve::is_soak() { 60 } else { 5 });
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ran = dir.join("ran");
    let addresses = ["first", "second"].map(|name| over.address(dir, name));
    let _steady = pool(dir, &addresses[0]);
    let mut shaken = pool(dir, &addresses[1]);
    let front = front(dir, &addresses, args);
    let busy = || {
        front.status_when("both have jobs", |status| {
            status["workers"].as_array().unwrap().iter().all(|peer| peer["state"] == "busy")
        })
    };

    let mut outcomes = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let load = scope.spawn(|| {
            let stopped = stopped;
            let mut outcomes = Outcomes::default();
            let mut client = front.client();
            let submit = |client: &mut serve::Client, outcomes: &mut Outcomes| {
                let id = outcomes.submitted;
                outcomes.submitted += 1;
                client.send(&format!(
                    r#"{{"op":"call","id":{id},"body":{{"touch":"{}","mark":{id},"sleep":{JOB},"back":{id}}}}}"#,
                    ran.display()
                ));
            };
            (0..WINDOW).for_each(|_| submit(&mut client, &mut outcomes));
            let mut answered = vec![false; WINDOW as usize];
            while outcomes.done + outcomes.failed.len() as u64 != outcomes.submitted {
                let reply = client.reply();
                let id = reply["id"].as_u64().unwrap();
                assert!(!std::mem::replace(&mut answered[id as usize], true), "{id} twice");
                if reply["ok"] == true {
                    assert_eq!(reply["data"]["body"], id, "{reply}");
                    outcomes.done += 1;
                } else {
                    let code = reply["code"].as_str().unwrap().to_owned();
                    *outcomes.codes.entry(code).or_default() += 1;
                    outcomes.failed.push(id);
                }
                if let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
                    submit(&mut client, &mut outcomes);
                    answered.push(false);
                }
            }
            outcomes
        });
        busy();
        let since = Instant::now();
        let mut kills = 0;
        let has_hit = || {
            let jobs = &front.status()["jobs"];
            jobs["retried"] != 0 || jobs["failed"] != serde_json::json!({})
        };
        while since.elapsed() < run || !has_hit() {
            if since.elapsed() >= run {
                busy();
            }
            assert!(since.elapsed() < serve::PATIENCE, "{kills} kills hit nothing");
            shaken.signal("KILL");
            shaken.wait_end();
            kills += 1;
            shaken = pool(dir, &addresses[1]);
            // Whether the link is back by then is up to its delays, which grow.
            let next = run.min(Duration::from_secs(1) * kills);
            std::thread::sleep(next.saturating_sub(since.elapsed()));
        }
        drop(stop);
        let mut outcomes = load.join().expect("the load");
        outcomes.kills = kills;
        outcomes
    });
    let since = Instant::now();
    front.status_when("both are linked", |status| {
        status["workers"].as_array().unwrap().iter().all(|peer| peer["state"] != "away")
    });
    let taken_up = since.elapsed();
    assert!(taken_up < TAKEN_UP, "only after {taken_up:.1?}");
    for line in std::fs::read_to_string(&ran).unwrap().lines() {
        *outcomes.runs.entry(line.parse().unwrap()).or_default() += 1;
    }
    println!(
        "{} jobs, {} kills: {} done, {:?}; {} ran more than once; linked after {taken_up:.1?}",
        outcomes.submitted,
        outcomes.kills,
        outcomes.done,
        outcomes.codes,
        outcomes.runs.values().filter(|runs| **runs > 1).count()
    );
    (outcomes, front.status())
}

fn no_job_is_lost(over: Over) {
    let (outcomes, status) = storm(over, &["--retries=1000"]);
    assert_eq!(outcomes.done, outcomes.submitted, "{:?}", outcomes.codes);
    assert_eq!(status["jobs"]["done"], outcomes.submitted);
    assert!(status["jobs"]["retried"].as_u64().unwrap() > 0, "a kill hit nothing: {status:#}");
}

fn each_loss_is_accounted_for(over: Over) {
    let (outcomes, status) = storm(over, &[]);
    let lost = outcomes.codes.get("worker_lost").copied().unwrap_or_default();
    assert!(lost > 0, "a kill hit nothing");
    assert_eq!(outcomes.codes.len(), 1, "{:?}", outcomes.codes);
    assert_eq!(outcomes.done + lost, outcomes.submitted);
    assert_eq!(status["jobs"]["done"], outcomes.done);
    assert_eq!(status["jobs"]["failed"]["worker_lost"], lost);
    for id in 0..outcomes.submitted {
        let runs = outcomes.runs.get(&id).copied().unwrap_or_default();
        match outcomes.failed.contains(&id) {
            true => assert!(runs <= 1, "{id} ran {runs} times"),
            false => assert_eq!(runs, 1, "{id}"),
        }
    }
    // What a peer had in its hands, and not what waited here.
    assert!(lost <= u64::from(outcomes.kills) * 2, "{lost} at {} kills", outcomes.kills);
}

#[test]
fn with_retries_no_job_is_lost() {
    no_job_is_lost(Over::Sockets);
}

#[test]
fn without_retries_each_loss_is_accounted_for_and_no_job_runs_twice() {
    each_loss_is_accounted_for(Over::Sockets);
}

#[cfg(target_os = "linux")]
#[test]
fn with_retries_no_job_is_lost_over_rings() {
    no_job_is_lost(Over::Rings);
}

#[cfg(target_os = "linux")]
#[test]
fn without_retries_each_loss_over_rings_is_accounted_for_and_no_job_runs_twice() {
    each_loss_is_accounted_for(Over::Rings);
}
