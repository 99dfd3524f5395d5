//! `Client` over `shm:` addresses: a real listener, rings between tasks and between processes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod ring_peer;
mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use remuda_client::{Backoff, CallError, CallOptions, Client, ClientOptions, ConnectError, Json};
use remuda_protocol::{Access, Address};
use remuda_shm::SpscListener;
use ring_peer::{RingPeer, listen};
use support::id_of;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long anything may take on a loaded machine before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A name that no other test has.
fn name(of: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("client-{of}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn options(name: &str) -> ClientOptions {
    ClientOptions::new()
        .address(format!("shm:{name}").parse().unwrap())
        .backoff(|| Backoff::new(1).base(Duration::from_millis(1)))
}

async fn connected(name: &str, listener: &SpscListener) -> (Client, RingPeer) {
    let (client, peer) = tokio::join!(options(name).connect(), RingPeer::greet(listener));
    (client.unwrap(), peer)
}

#[tokio::test]
async fn many_calls_are_under_way_and_each_gets_its_own_answer() {
    let name = name("many");
    let listener = listen(&name);
    let (client, mut peer) = connected(&name, &listener).await;
    let calls = (0..300).map(|n: u64| {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, u64>(&n).await.unwrap() == n })
    });
    let calls: Vec<_> = calls.collect();
    let mut lines = Vec::new();
    for _ in 0..300 {
        lines.push(peer.line().await);
    }
    // The last asked is the first answered.
    for line in lines.iter().rev() {
        peer.echo(line).await;
    }
    for call in calls {
        assert!(call.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_larger_than_all_slots_together_travels_both_ways() {
    let name = name("large");
    let listener = listen(&name);
    let (client, peer) = connected(&name, &listener).await;
    tokio::spawn(peer.echo_all());
    let small = client.call::<_, u64>(&7);
    // As large as a body may be; its quotes count.
    let mut text = "abcdefghijklmnopqrstuvwxyz".repeat((16 << 20) / 26 + 1);
    text.truncate((16 << 20) - 2);
    let large = client.call::<_, String>(&text);
    let (small, large) = tokio::join!(small, large);
    assert_eq!(small.unwrap(), 7);
    assert!(large.unwrap() == text, "another text came back");
    // One byte more is refused here, and leaves the link as it is.
    let over = format!("{text}x");
    assert!(matches!(client.call::<_, String>(&over).await, Err(CallError::TooLarge { .. })));
    assert_eq!(client.call::<_, u64>(&8).await.unwrap(), 8);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_and_no_other_notices() {
    let name = name("drop");
    let listener = listen(&name);
    let (client, mut peer) = connected(&name, &listener).await;
    let left = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, u64>(&1).await }
    });
    let first = peer.line().await;
    left.abort();
    let cancel = peer.line().await;
    assert_eq!(cancel, format!(r#"{{"op":"cancel","id":{}}}"#, id_of(&first)));
    // What was large and is left half way is still sent as a whole.
    let text = "z".repeat(8 << 20);
    let left = tokio::spawn({
        let (client, text) = (client.clone(), text.clone());
        async move { client.call::<_, String>(&text).await }
    });
    peer.some_of_a_line().await;
    left.abort();
    let large = peer.line().await;
    assert!(large.contains(&text));
    assert!(peer.line().await.contains("cancel"));
    peer.echo(&first).await;
    peer.echo(&large).await;
    let (answer, ()) = tokio::join!(client.call::<_, u64>(&2), async {
        let line = peer.line().await;
        peer.echo(&line).await;
    });
    assert_eq!(answer.unwrap(), 2);
}

#[tokio::test]
async fn a_pool_that_comes_again_is_found_again() {
    let name = name("again");
    let listener = listen(&name);
    let (client, mut peer) = connected(&name, &listener).await;
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, u64>(&1).await }
    });
    peer.line().await;
    drop((peer, listener));
    let lost = under_way.await.unwrap().unwrap_err();
    assert!(matches!(lost, CallError::LinkLost { .. }) && lost.may_have_run(), "{lost}");

    // Not sent before there is a link, and then once.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, u64>(&2).await }
    });
    let listener = listen(&name);
    let peer = RingPeer::greet(&listener).await;
    tokio::spawn(peer.echo_all());
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn what_was_answered_before_the_end_counts() {
    let name = name("end");
    let listener = listen(&name);
    let (client, mut peer) = connected(&name, &listener).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, u64>(&1).await }
    });
    let line = peer.line().await;
    peer.echo(&line).await;
    drop((peer, listener));
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_ring_that_stays_full_for_long_breaks_no_link() {
    let name = name("full");
    let listener = listen(&name);
    let (client, peer) = connected(&name, &listener).await;
    let text = "w".repeat(8 << 20);
    let call = client.call::<_, String>(&text);
    let answered = async {
        // Longer than a ring by itself waits for room.
        tokio::time::sleep(remuda_shm::FULL_LIMIT_DEFAULT + Duration::from_millis(700)).await;
        peer.echo_all().await;
    };
    tokio::select! {
        answer = call => assert!(answer.unwrap() == text),
        () = answered => panic!("the client left"),
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_loses_the_link_and_no_more() {
    let name = name("wrong");
    let listener = listen(&name);
    let (client, mut peer) = connected(&name, &listener).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call::<_, u64>(&1).await }
    });
    peer.line().await;
    peer.bytes(b"").await;
    peer.bytes(b"neither a reply\nnor anything else").await;
    let lost = call.await.unwrap().unwrap_err();
    assert!(lost.to_string().contains("no reply"), "{lost}");
    let peer = RingPeer::greet(&listener).await;
    tokio::spawn(peer.echo_all());
    assert_eq!(client.call::<_, u64>(&2).await.unwrap(), 2);
}

#[tokio::test]
async fn who_is_not_there_is_named() {
    let name = name("nobody");
    let error = options(&name).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Io { .. }) && error.may_pass(), "{error:?}");
    let words = error.to_string();
    assert!(words.contains(&name) && words.contains("see that a pool listens there"), "{words}");

    // An address that nobody read: the name has a dot in front, which no listener takes.
    let address = Address::Shm { name: format!(".{name}"), access: Access::default() };
    let error = ClientOptions::new().address(address).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("no valid name"), "{error}");
}

#[tokio::test]
async fn the_last_clone_closes_the_rings() {
    let name = name("close");
    let listener = listen(&name);
    let (client, mut peer) = connected(&name, &listener).await;
    drop(client);
    assert_eq!(timeout(PATIENCE, peer.next()).await.unwrap(), None);
}

/// What the other process of the test below is told by its environment.
const ROLE: &str = "REMUDA_CLIENT_TEST_SHM_NAME";

/// A pool in a process of its own, which echoes until it is killed.
async fn other_process(test: &str, name: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("it listens").contains("listening") {}
    child
}

#[tokio::test]
async fn a_pool_that_is_killed_under_load_ends_every_call_and_is_found_again() {
    const TEST: &str = "a_pool_that_is_killed_under_load_ends_every_call_and_is_found_again";
    if let Ok(name) = std::env::var(ROLE) {
        let listener = listen(&name);
        println!("listening");
        loop {
            let peer = RingPeer::greet(&listener).await;
            tokio::spawn(peer.echo_all());
        }
    }
    let name = name("killed");
    let mut pool = other_process(TEST, &name).await;
    let client = options(&name).connect().await.unwrap();
    let body = Json::of(&"k".repeat(20_000)).unwrap();
    for _ in 0..3 {
        let was_killed = Arc::new(AtomicBool::new(false));
        let calls: Vec<_> = (0..64)
            .map(|_| {
                let (client, body) = (client.clone(), body.clone());
                let was_killed = Arc::clone(&was_killed);
                tokio::spawn(async move {
                    loop {
                        match client.call_raw(body.as_str(), CallOptions::new()).await {
                            Ok(result) => assert_eq!(result.as_str(), body.as_str()),
                            Err(CallError::LinkLost { .. }) => return,
                            Err(other) => panic!("{other}"),
                        }
                        if was_killed.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                })
            })
            .collect();
        client.call_raw(body.as_str(), CallOptions::new()).await.unwrap();
        pool.kill().await.unwrap();
        was_killed.store(true, Ordering::Relaxed);
        // What was not sent yet goes to the next one.
        pool = other_process(TEST, &name).await;
        for call in calls {
            timeout(PATIENCE, call).await.expect("no call is left waiting").unwrap();
        }
        assert_eq!(client.call::<_, u64>(&5).await.unwrap(), 5);
    }
    pool.kill().await.unwrap();
    // What the killed one left is taken away by whoever listens next.
    drop(listen(&name));
}
