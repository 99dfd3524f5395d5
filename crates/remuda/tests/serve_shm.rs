//! Pools behind `shm:` listeners: every command and the client over rings in shared memory, and
//! what is left when one side is killed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/serve.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use remuda::client::{Client, ClientOptions};
use serde_json::Value;
use support::{Serve, handler, pids, remuda, text, wait_end};

/// A directory for sockets, and the commands that look for pools there.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The file of the pool's name.
    fn socket(&self) -> PathBuf {
        self.runtime_dir().join("pool.shm")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = remuda();
        command.arg(name).env("REMUDA_RUNTIME_DIR", self.runtime_dir());
        command
    }

    /// A command that asks the pool by rings.
    fn asking(&self, name: &str) -> Command {
        let mut command = self.command(name);
        command.arg("--to=shm:pool");
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Output {
        self.asking(name).args(args).output().unwrap()
    }

    /// A pool that listens at `shm:pool` with these options, and at an admin socket besides.
    fn serve(&self, options: &str, args: &[&str]) -> Serve {
        let mut command = self.command("serve");
        command.arg(format!("--listen=shm:pool{options}"));
        let unix = self.dir.path().join("s");
        command.arg(format!("--listen=unix:{},role=admin", unix.display())).args(args);
        let mut serve = Serve::spawn(command);
        serve.listening();
        serve.address(1);
        serve
    }

    fn python(&self, options: &str, args: &[&str]) -> Serve {
        let handler = handler(self.dir.path());
        let mut all = vec!["--python", &handler];
        all.extend(args);
        self.serve(options, &all)
    }

    fn status(&self) -> Value {
        let output = self.run("status", &["--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks until the status is so: nothing else tells of it.
    fn status_when(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let since = std::time::Instant::now();
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            assert!(since.elapsed() < support::PATIENCE, "never {what}: {status:#}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What the descriptors of a process are, by kind: `socket`, `pipe`, `anon_inode:[eventfd]`.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        // One that was closed meanwhile is none.
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.display().to_string();
        let kind = target.split(":[").next().unwrap_or_default();
        let kind = if kind == "anon_inode" { &target } else { kind };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// The files of shared memory that a process has mapped.
fn memories(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("memfd:")).count()
}

/// Jobs in the pool: a worker may be handed one ahead of its turn.
fn jobs(status: &Value) -> usize {
    let count = |name: &str| status[name].as_u64().unwrap() as usize;
    count("in_flight") + count("queued")
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn every_command_speaks_by_rings() {
    let place = Place::new();
    let mut serve = place.python(",role=admin", &["-j2"]);
    let output = place.run("call", &["--json", r#"{"back":[1,"two"]}"#]);
    assert_eq!(text(&output.stdout), "[1,\"two\"]\n", "{}", text(&output.stderr));
    let status = place.status_when("two workers", |status| pids(status).len() == 2);
    let before = pids(&status);
    let output = place.run("reset", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(pids(&place.status()).iter().all(|pid| !before.contains(pid)));
    let failed = place.run("call", &["--json", r#"{"exit":3}"#]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("worker_lost"), "{}", text(&failed.stderr));
    let output = place.run("stop", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(serve.wait_end().success(), "{}", serve.stderr());
    assert!(!place.socket().exists(), "the name outlived the pool");
}

#[test]
fn a_body_of_sixteen_mebibytes_goes_there_and_back() {
    let place = Place::new();
    let _serve = place.serve("", &["--builtin", "echo", "-j1"]);
    let body: Vec<u8> = (b'a'..=b'z').cycle().take((16 << 20) - 2).collect();
    let mut call = place.asking("call");
    let mut call = call.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = call.stdin.take().unwrap();
    let sent = body.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = call.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), body.len() + 1);
    assert!(output.stdout.starts_with(&body), "another body came back");
}

#[test]
fn the_load_is_counted_as_the_pool_counts_it() {
    let place = Place::new();
    let _serve = place.serve("", &["--builtin", "echo", "-j2"]);
    let args = ["-n", "3000", "-i", "100", "-c", "3", "--warmup=0", "--json"];
    let output = place.run("bench", &args);
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{measured}");
    assert_eq!((&measured["done"], &measured["connections"]), (&3000.into(), &3.into()));
    assert_eq!(place.status()["jobs"]["done"], 3000);

    // The open loop, and bodies of which one fills many slots, more than the ring has.
    let body = "x".repeat(60_000);
    let output =
        place.run("bench", &["-n", "200", "-r", "100000", "--body", &body, "--warmup=0", "--json"]);
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{measured}");
    assert_eq!(measured["done"], 200);
    assert_eq!(place.status()["jobs"]["done"], 3200);
}

#[test]
fn a_pool_that_is_killed_is_told_of_by_the_load() {
    let place = Place::new();
    let serve = place.python("", &["-j1"]);
    let args = ["-d600s", "-i2", "--warmup=0", "--json", "--body-json", r#"{"sleep":100}"#];
    let bench = place.asking("bench").args(args).stdout(Stdio::piped()).spawn().unwrap();
    place.status_when("both calls are there", |status| jobs(status) == 2);
    serve.signal("KILL");
    let output = bench.wait_with_output().unwrap();
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{measured}");
    assert_eq!(measured["failed"], serde_json::json!({"connection_lost": 2}));
}

#[test]
fn administration_needs_the_role() {
    let place = Place::new();
    let _serve = place.serve("", &["--builtin", "echo", "-j1"]);
    for command in ["reset", "stop"] {
        let output = place.run(command, &[]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(text(&output.stderr).contains("unauthorized"), "{}", text(&output.stderr));
    }
    assert_eq!(place.status()["phase"], "running");
}

#[test]
fn wrong_names_and_those_that_nobody_has_or_somebody_has_are_told() {
    let place = Place::new();
    let refused = |args: &[&str], parts: &[&str]| {
        let output = place.command(args[0]).args(&args[1..]).output().unwrap();
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{args:?}: {words}");
        for part in parts {
            assert!(words.contains(part), "{args:?}: no `{part}` in {words}");
        }
    };
    for command in ["status", "reset", "stop", "bench"] {
        refused(&[command, "--to=shm:pool"], &["shm:pool", "nobody waits", "`remuda serve`"]);
    }
    refused(&["call", "--to=shm:pool", "x"], &["shm:pool", "nobody waits", "`remuda serve`"]);
    refused(&["call", "--to=shm:.pool", "x"], &[".pool", "no dot at its beginning"]);
    refused(&["call", "--to=shm:a/b", "x"], &["a/b"]);
    let serve = ["serve", "--builtin=echo", "-j1"];
    refused(&[&serve[..], &["-l", "shm:a/b"]].concat(), &["a/b"]);
    refused(&[&serve[..], &["-l", "shm:.pool"]].concat(), &[".pool", "no dot at its beginning"]);
    let _serve = place.serve("", &serve[1..]);
    refused(&[&serve[..], &["-l", "shm:pool"]].concat(), &["shm:pool", "is taken", "another name"]);
    assert_eq!(text(&place.run("call", &["still here"]).stdout), "still here\n");
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    std::fs::create_dir(place.runtime_dir()).unwrap();
    std::fs::set_permissions(place.runtime_dir(), PermissionsExt::from_mode(0o755)).unwrap();
    for args in
        [&["serve", "--builtin=echo", "-l", "shm:pool"][..], &["call", "--to=shm:pool", "x"]]
    {
        let output = place.command(args[0]).args(&args[1..]).output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        let words = text(&output.stderr);
        assert!(words.contains(&place.runtime_dir().display().to_string()), "{words}");
    }
}

/// A client that is killed while it waits for a job.
fn waiting_call(place: &Place) -> Child {
    let args = ["--json", r#"{"sleep":600}"#];
    place.asking("call").args(args).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_client_that_is_killed_leaves_nothing_in_the_pool() {
    let place = Place::new();
    let serve = place.python("", &["-j1"]);
    // The first call pays for what the pool keeps; the last connection may still be counted.
    assert!(place.run("call", &["--json", "1"]).status.success());
    // A worker's pidfd may come after its first answer.
    place.status_when("the worker is known", |status| pids(status).len() == 1);
    let fds = descriptors(serve.pid());
    let count = 5_usize;
    let mut clients: Vec<Child> = (0..count).map(|_| waiting_call(&place)).collect();
    place.status_when("all are waiting", |status| jobs(status) == count);
    assert!(memories(serve.pid()) >= count);
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    let status = place.status_when("those that wait are cancelled", |status| status["queued"] == 0);
    // The worker sleeps on: nobody can take its job away from it.
    pids(&status).into_iter().for_each(|pid| support::signal(pid, "KILL"));
    place.status_when("no job runs", |status| status["in_flight"] == 0);
    assert_eq!(text(&place.run("call", &["--json", "[2]"]).stdout), "[2]\n");
    // What the last of them had goes once the pool has looked.
    let since = std::time::Instant::now();
    let is_more = |now: &BTreeMap<String, usize>| {
        now.iter().any(|(kind, count)| fds.get(kind).is_none_or(|before| count > before))
    };
    while is_more(&descriptors(serve.pid())) || memories(serve.pid()) > 0 {
        let now = descriptors(serve.pid());
        assert!(since.elapsed() < support::PATIENCE, "{fds:?}, then {now:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_pool_that_is_killed_leaves_a_stale_file_at_most() {
    let place = Place::new();
    let mut serve = place.python("", &["-j2"]);
    let status = place.status_when("two workers", |status| pids(status).len() == 2);
    let workers = pids(&status);
    let waiting = waiting_call(&place);
    place.status_when("the job runs", |status| status["in_flight"] == 1);
    serve.signal("KILL");
    serve.wait_end();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let words = text(&output.stderr);
    assert!(words.contains("without an answer") && words.contains("remuda status"), "{words}");
    let since = std::time::Instant::now();
    while workers.iter().any(|pid| is_alive(*pid)) {
        assert!(since.elapsed() < support::PATIENCE, "a worker outlived its pool");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let files = |dir: &Path| -> Vec<_> {
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name()).collect()
    };
    assert_eq!(files(&place.runtime_dir()), ["pool.shm"]);
    // Nobody answers there, and the next one takes it.
    let words = text(&place.run("call", &["x"]).stderr);
    assert!(words.contains("nobody waits"), "{words}");
    let mut serve = place.serve(",role=admin", &["--builtin", "echo", "-j1"]);
    assert_eq!(text(&place.run("call", &["again"]).stdout), "again\n");
    assert!(place.run("stop", &[]).status.success());
    wait_end(&mut serve.child);
    assert!(files(&place.runtime_dir()).is_empty());
}

/// A name in this user's own directory, where the client of this process looks too.
fn own_pool(name: &str, args: &[&str]) -> Serve {
    let mut command = remuda();
    command.arg("serve").env("REMUDA_RUNTIME_DIR", remuda::shm::runtime_dir());
    command.arg(format!("--listen=shm:{name},role=admin")).args(args);
    let mut serve = Serve::spawn(command);
    serve.listening();
    serve
}

fn in_runtime(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_client_calls_rust_and_python_workers_and_finds_the_pool_again() {
    let name = format!("serve-shm-{}", std::process::id());
    let dir = tempfile::tempdir().unwrap();
    let python = handler(dir.path());
    let rust = ["--builtin", "echo", "-j2"];
    let mut serve = own_pool(&name, &rust);
    in_runtime(async {
        let options = ClientOptions::new().address(format!("shm:{name}").parse().unwrap());
        let client = options.connect().await.unwrap();
        many_calls(&client).await;
        for args in [&["--python", &python, "-j2"][..], &rust] {
            client.shutdown().await.unwrap();
            assert!(serve.wait_end().success());
            serve = own_pool(&name, args);
            many_calls(&client).await;
        }
        client.shutdown().await.unwrap();
        assert!(serve.wait_end().success());
    });
}

/// Pipelined, small and large; each gets its own answer.
async fn many_calls(client: &Client) {
    let calls: Vec<_> = (0..200)
        .map(|n: usize| {
            let client = client.clone();
            tokio::spawn(async move {
                let body = format!("{n} {}", "z".repeat(n * 300));
                let answer: String = client.call(&body).await.unwrap();
                assert!(answer == body, "call {n}");
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}
