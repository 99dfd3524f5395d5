//! `serve --attach`: workers and pools that run already, as workers of this pool.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/attached.rs"]
mod attached;
#[path = "support/serve.rs"]
mod serve;

use std::process::{Command, Output, Stdio};

use attached::{Worker, all_linked, attach, passes_calls_on, peers};
use serve::{Serve, pids, remuda, signal, text, wait_end};

fn ended(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_end(&mut child);
    child.wait_with_output().unwrap()
}

#[test]
fn a_worker_that_was_started_by_hand_is_attached_and_attached_again_after_its_death() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker");
    let mut worker = Worker::start(&path);
    let serve = Serve::start(&[&format!("--attach=unix:{}", path.display())]);
    all_linked(&serve);
    let shout = |id: u32| {
        let reply = serve.client().ask(&format!(r#"{{"op":"call","id":{id},"body":"abc"}}"#));
        assert_eq!(reply["data"]["body"], "ABC", "{reply}");
    };
    shout(1);
    worker.kill();
    serve.status_when("the worker is away", |status| peers(status)[0].0 == "away");
    let status = serve.status_when("it is told why", |status| {
        let why = status["workers"][0]["link"]["because"].as_str();
        why.is_some_and(|why| why.contains("could not connect"))
    });
    let link = &status["workers"][0]["link"];
    assert!(link["state"] == "waiting" && link["due_ms"].as_u64().unwrap() <= 10_000, "{link}");
    let table = text(&serve.run("status", &[]).stdout);
    assert!(table.contains("away") && table.contains(path.to_str().unwrap()), "{table}");
    // A job waits until the next one is there.
    let mut early = serve.client();
    early.send(r#"{"op":"call","id":2,"body":"early"}"#);
    serve.status_when("it waits", |status| status["queued"] == 1);
    let _worker = Worker::start(&path);
    assert_eq!(early.reply()["data"]["body"], "EARLY");
    assert_eq!(serve.status()["workers"][0]["link"]["state"], "connected");
    shout(3);
}

#[test]
fn a_pool_is_attached_over_tcp_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "open-sesame\n").unwrap();
    let listen = format!("-ltcp:127.0.0.1:0,token_file={}", token.display());
    let behind = Serve::python(&["-j2", &listen]);
    let address = behind.address(1);
    let front = Serve::start(&[&format!("--attach={address},token_file={}", token.display())]);
    all_linked(&front);
    passes_calls_on(&mut front.client(), &behind);

    std::fs::write(&token, "not-this-one\n").unwrap();
    let front = Serve::start(&[&format!("--attach={address},token_file={}", token.display())]);
    let line = front.wait_line("cannot attach to");
    assert!(line.contains("token") && line.contains("tried again"), "{line}");
    assert!(!front.stderr().contains("not-this-one"), "no log holds the token");
}

#[test]
fn jobs_are_balanced_by_free_capacity() {
    let pools = [1, 2, 4].map(|workers| Serve::python(&[&format!("-j{workers}")]));
    pools.iter().for_each(|pool| drop(pool.ready()));
    let front = attach(&pools.each_ref(), &[]);
    all_linked(&front);
    // As many jobs as there are workers in all: each worker has one, and nobody two.
    let mut client = front.client();
    for id in 0..7 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{{"sleep":600}}}}"#));
    }
    for (pool, workers) in pools.iter().zip([1, 2, 4]) {
        pool.status_when("all of its workers are busy", |status| status["in_flight"] == workers);
    }
    // What comes then waits here, where any of them may take it.
    client.send(r#"{"op":"call","id":"late","body":1}"#);
    front.status_when("one waits", |status| status["queued"] == 1 && status["in_flight"] == 7);
    for pool in &pools {
        assert_eq!(pool.status()["queued"], 0);
    }
    // A place becomes free in one of them, and it goes there.
    signal(pids(&pools[1].status())[0], "KILL");
    assert_eq!(client.reply()["code"], "worker_lost");
    assert_eq!(client.reply()["id"], "late");
}

#[test]
fn a_pool_offers_what_its_peers_can_do() {
    let behind = Serve::start(&["-j3", "--builtin=echo"]);
    behind.ready();
    let front = attach(&[&behind], &["-j2", "--builtin=echo"]);
    all_linked(&front);
    let mut client = serve::Client::unix(&front.path());
    assert_eq!(client.ask(serve::HANDSHAKE)["data"]["capacity"], 5);
}

#[test]
fn a_peer_that_grows_or_shrinks_is_noticed_while_its_link_stands() {
    let dir = tempfile::tempdir().unwrap();
    let python = serve::handler(dir.path());
    let file = dir.path().join("remuda.toml");
    let workers = |count: u32| {
        let text = format!("[worker]\npython = {python:?}\n[pool]\nnum_workers = {count}\n");
        std::fs::write(&file, text).unwrap();
    };
    workers(1);
    let leaf = Serve::start(&["-c", file.to_str().unwrap()]);
    leaf.ready();
    // One that has nothing but a peer offers what that offers, and its own client learns it, too.
    let middle = attach(&[&leaf], &[]);
    all_linked(&middle);
    let front = attach(&[&middle], &[]);
    all_linked(&front);
    let mut client = front.client();
    for id in 0..4 {
        client.send(&format!(r#"{{"op":"call","id":{id},"body":{{"sleep":600}}}}"#));
    }
    front.status_when("one runs", |status| status["in_flight"] == 1 && status["queued"] == 3);
    workers(3);
    leaf.signal("HUP");
    front.status_when("three run", |status| status["in_flight"] == 3 && status["queued"] == 1);
    leaf.status_when("three run there", |status| status["in_flight"] == 3);
    let links = |pool: &Serve| pool.stderr().matches("attached to").count();
    assert_eq!([links(&front), links(&middle)], [1, 1], "no link was made anew");
}

#[test]
fn one_that_is_away_costs_nothing() {
    let there = Serve::start(&["-j1", "--builtin=echo"]);
    there.ready();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let away = format!("--attach=unix:{}", path.display());
    // And one that takes the connection, and never answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf_at = format!("--attach=tcp:{}", deaf.local_addr().unwrap());
    let front = attach(&[&there], &[&away, &deaf_at]);
    front.status_when("one is there", |status| status["ready"] == true);
    let mut client = front.client();
    let calls = |client: &mut serve::Client| {
        for id in 0..200 {
            let reply = client.ask(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
            assert_eq!(reply["data"]["body"], id, "{reply}");
        }
    };
    calls(&mut client);
    assert_eq!(there.status()["jobs"]["done"], 200);
    assert!(front.wait_line("cannot attach to").contains(path.to_str().unwrap()));
    // It comes, and goes again.
    let mut late = Serve::start_in(dir, &["-j1", "--builtin=echo"]);
    front.status_when("the other is there, too", |status| {
        peers(status).iter().filter(|(state, _)| state == "idle").count() == 2
    });
    late.signal("KILL");
    late.wait_end();
    front.status_when("it is away again", |status| {
        peers(status).iter().filter(|(state, _)| state == "idle").count() == 1
    });
    calls(&mut client);
    let failed = &front.status()["jobs"]["failed"];
    assert_eq!(failed.as_object().unwrap().len(), 0, "{failed}");
}

#[test]
fn a_pool_is_not_its_own_worker() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/s", dir.path().display());
    let mut command = remuda();
    command.args(["serve", "-j1", "--builtin=echo", "-l", &address, "--attach", &address]);
    let output = ended(command);
    assert_eq!(output.status.code(), Some(255));
    let told = text(&output.stderr);
    assert!(told.contains(&address) && told.contains("is this pool itself"), "{told}");
}

/// Two pools that have nothing but each other.
fn circle() -> (Serve, Serve) {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |dir: &tempfile::TempDir| format!("--attach=unix:{}/s", dir.path().display());
    let (to_one, to_two) = (at(&one), at(&two));
    let one = Serve::start_in(one, &[&to_two]);
    let two = Serve::start_in(two, &[&to_one]);
    all_linked(&one);
    all_linked(&two);
    (one, two)
}

#[test]
fn a_circle_is_ended_by_hops_even_when_it_is_full() {
    let (one, two) = circle();
    let mut clients = [one.client(), two.client()];
    for client in &mut clients {
        for id in 0..20 {
            client.send(&format!(r#"{{"op":"call","id":{id},"body":{id}}}"#));
        }
    }
    for client in &mut clients {
        for _ in 0..20 {
            let reply = client.reply();
            assert_eq!(reply["code"], "bad_request", "{reply}");
            assert!(reply["error"].as_str().unwrap().contains("in a circle"), "{reply}");
        }
    }
}

#[test]
fn pools_in_a_circle_that_have_workers_answer_all() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |dir: &tempfile::TempDir| format!("--attach=unix:{}/s", dir.path().display());
    let (to_one, to_two) = (at(&one), at(&two));
    let one = Serve::start_in(one, &["-j1", "--builtin=echo", &to_two]);
    let two = Serve::start_in(two, &["-j1", "--builtin=echo", &to_one]);
    all_linked(&one);
    all_linked(&two);
    let mut clients = [one.client(), two.client()];
    for client in &mut clients {
        let calls: String =
            (0..300).map(|id| format!("{{\"op\":\"call\",\"id\":{id},\"body\":{id}}}\n")).collect();
        client.send_bytes(calls.as_bytes());
    }
    for client in &mut clients {
        let mut seen = vec![false; 300];
        for _ in 0..300 {
            let reply = client.reply();
            let id = reply["id"].as_u64().unwrap();
            assert_eq!(reply["data"]["body"], id, "{reply}");
            assert!(!std::mem::replace(&mut seen[id as usize], true), "{id} twice");
        }
    }
}
