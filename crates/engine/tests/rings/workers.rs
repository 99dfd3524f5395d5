//! Workers over rings.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use remuda_engine::Code;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::clients::make_fifo;
use crate::programs;
use crate::support::{LONG, Peer, Running, config, listened, name, result, wait};

pub const TESTS: &[(&str, fn())] = &[
    ("workers::a_worker_that_declares_it_goes_on_over_rings", over_rings),
    ("workers::one_that_doesnt_and_a_pool_that_wont_stay_with_the_socket", by_socket),
    ("workers::bodies_of_many_slots_come_and_go_whole", large_bodies),
    ("workers::what_a_killed_worker_had_answered_counts_and_the_rest_goes_back", killed),
    ("workers::a_worker_that_dies_under_a_job_costs_that_job_alone", dies),
    ("workers::a_stopped_worker_gets_its_jobs_when_it_goes_on", stopped),
    ("workers::a_stopped_worker_over_its_time_is_replaced", replaced),
    ("workers::a_job_is_cancelled_over_rings", cancelled),
    ("workers::a_drain_ends_the_worker_after_its_last_answer", drained),
    ("workers::a_worker_ends_with_a_killed_pool_and_leaves_no_memory", pool_killed),
];

fn is_over_rings(status: &serde_json::Value) -> bool {
    status["workers"][0]["shm"].as_bool().unwrap()
}

fn over_rings() {
    for program in ["worker", "cancellable"] {
        let pool = Running::start(config(program));
        assert!(is_over_rings(&pool.status()), "{program}");
        for number in 0..100 {
            let reply = pool.remote.call(Bytes::from(number.to_string()), None);
            assert_eq!(reply.wait().unwrap(), number.to_string());
        }
    }
}

fn by_socket() {
    let mut refusing = config("worker");
    refusing.shm = false;
    for config in [config("socket"), refusing] {
        let pool = Running::start(config);
        assert!(!is_over_rings(&pool.status()));
        assert_eq!(pool.remote.call(Bytes::from("1"), None).wait().unwrap(), "1");
    }
}

fn large_bodies() {
    for program in ["worker", "cancellable"] {
        let pool = Running::start(config(program));
        for bytes in [8 << 10, 1 << 20, 5 << 20] {
            let body = Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
            // Two at once: the second waits behind the first for room.
            let replies = [(); 2].map(|()| pool.remote.call(body.clone(), None));
            for reply in replies {
                assert!(reply.wait().unwrap() == body, "{bytes} bytes");
            }
        }
        assert!(is_over_rings(&pool.status()));
    }
}

fn killed() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let pool = Running::start(config("worker"));
    let worker = pool.worker();
    let call = |body: String| pool.remote.call(Bytes::from(body), None);
    let before: Vec<_> = (0..20).map(|number| call(number.to_string())).collect();
    for (number, reply) in before.into_iter().enumerate() {
        assert_eq!(reply.wait().unwrap(), number.to_string());
    }
    // It runs the one; those behind it were handed ahead, or wait.
    let running = call(format!("\"fifo:{}\"", fifo.display()));
    let behind: Vec<_> = (0..20).map(|number| call(number.to_string())).collect();
    pool.until("the jobs are in", |status| status["jobs"]["accepted"] == 41);
    kill(worker, Signal::KILL);
    let lost = running.wait().unwrap_err();
    assert_eq!(lost.code, Code::WorkerLost, "{lost:?}");
    for (number, reply) in behind.into_iter().enumerate() {
        assert_eq!(reply.wait().unwrap(), number.to_string());
    }
    assert_ne!(pool.worker(), worker);
    assert!(is_over_rings(&pool.status()));
}

fn dies() {
    let pool = Running::start(config("worker"));
    // Answered in the moment before the death: what was published is read after it.
    for _ in 0..5 {
        let bodies = ["1", "2", "3", "\"die\"", "4", "5"];
        let replies = bodies.map(|body| pool.remote.call(Bytes::from(body), None));
        for (body, reply) in bodies.into_iter().zip(replies) {
            match reply.wait() {
                Ok(result) => assert_eq!(result, body),
                Err(error) => {
                    assert_eq!(body, "\"die\"");
                    assert!(matches!(error.code, Code::WorkerLost | Code::Poisoned), "{error:?}");
                }
            }
        }
    }
}

fn stopped() {
    let pool = Running::start(config("worker"));
    let worker = pool.worker();
    kill(worker, Signal::STOP);
    // More than the ring holds: the rest waits at the pool.
    let body = Bytes::from(format!("\"{}\"", "s".repeat(3 << 20)));
    let replies: Vec<_> = (0..8).map(|_| pool.remote.call(body.clone(), None)).collect();
    pool.until("the jobs are in", |status| status["jobs"]["accepted"] == 8);
    kill(worker, Signal::CONT);
    for reply in replies {
        assert!(reply.wait().unwrap() == body);
    }
    assert_eq!(pool.worker(), worker);
}

fn replaced() {
    let mut config = config("worker");
    config.dispatch.supervisor.exec_ttl = Some(Duration::from_secs(2));
    let pool = Running::start(config);
    let worker = pool.worker();
    let stopped = pool.remote.call(Bytes::from("\"stop\""), None).wait().unwrap_err();
    assert_eq!(stopped.code, Code::Timeout, "{stopped:?}");
    assert_eq!(pool.remote.call(Bytes::from("1"), None).wait().unwrap(), "1");
    assert_ne!(pool.worker(), worker);
}

fn cancelled() {
    let mut config = config("cancellable");
    let lines = listened(&mut config);
    let pool = Running::start(config);
    let worker = pool.worker();
    let mut client = pool.client();
    client.call(1, "\"until cancelled\"");
    assert_eq!(lines.recv().unwrap(), "begun");
    let answer = client.ask(r#"{"op":"cancel","id":1}"#);
    assert!(answer.contains("\"code\":\"cancelled\""), "{answer}");
    client.call(2, "2");
    assert_eq!(client.receive().unwrap(), result(2, "2"));
    assert_eq!(pool.worker(), worker, "it was asked, not killed");
}

fn drained() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let pool = Running::start(config("worker"));
    let pidfd = pidfd(pool.worker());
    let body = format!("\"fifo:{}\"", fifo.display());
    let reply = pool.remote.call(Bytes::from(body.clone()), None);
    pool.until("it runs", |status| status["in_flight"] == 1);
    pool.shut_down();
    pool.until("it drains", |status| status["phase"] == "draining");
    assert!(!wait(&pidfd, Duration::ZERO));
    std::fs::write(&fifo, "").unwrap();
    assert_eq!(reply.wait().unwrap(), body);
    drop(pool);
    assert!(wait(&pidfd, LONG), "the worker lives on");
}

fn pool_killed() {
    let name = name("killed");
    let mut pool = Command::new(std::env::current_exe().unwrap())
        .args([programs::ARGUMENT, "pool", &name, "worker"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(pool.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    let mut client = Peer::connect(&name);
    client.shake();
    let status = client.ask(r#"{"op":"status","id":1}"#);
    let mut status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(is_over_rings(&status["data"]));
    let worker = loop {
        // It may have shaken hands before the keeper told of its start.
        if let Some(pid) = status["data"]["workers"][0]["pid"].as_u64() {
            break pidfd(pid as u32);
        }
        status = serde_json::from_str(&client.ask(r#"{"op":"status","id":1}"#)).unwrap();
    };
    pool.kill().unwrap();
    pool.wait().unwrap();
    assert_eq!(client.receive(), None);
    assert!(wait(&worker, LONG), "the worker lives on");
    // The name is there as a stale file at most; the next one takes it.
    drop(remuda_shm::SpscListener::bind(&name, remuda_shm::Options::default()).unwrap());
    assert!(!remuda_shm::runtime_dir().join(format!("{name}.shm")).exists());
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn pidfd(pid: u32) -> std::os::fd::OwnedFd {
    pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap()
}
