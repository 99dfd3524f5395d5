//! How often the kernel is asked for events: once a turn, and not at all while nothing happens.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use remuda_net::{ConnCtx, ParseResult, enters, listen_unix, sleep, spawn, spawn_blocking};

use crate::drivers::{half_pair, pair};

async fn echo(conn: ConnCtx) {
    let echo = |data: &[u8]| {
        conn.send_nowait(data).unwrap();
        ParseResult::Consumed(data.len())
    };
    while conn.with_data(echo).await > 0 {}
}

async fn a_request_and_its_answer_are_one_turn() {
    const REQUESTS: u64 = 500;
    // The end of the client's work, and the turns in which things begin.
    const OTHERS: u64 = 20;
    let (conn, mut client) = half_pair();
    spawn(echo(conn));
    let before = enters();
    let exchanges = spawn_blocking(move || {
        let mut answer = [0; 64];
        for request in 0..REQUESTS {
            client.write_all(&[request as u8; 64]).unwrap();
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [request as u8; 64]);
        }
    });
    exchanges.await.unwrap();
    let count = enters() - before;
    assert!(count <= REQUESTS + OTHERS, "{count} for {REQUESTS} requests");
}

async fn nothing_happens_while_nothing_comes() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let listening = listen_unix(listener, echo).unwrap();
    for _ in 0..10 {
        let (left, right) = pair();
        spawn(echo(left));
        spawn(echo(right));
    }
    spawn(sleep(Duration::from_secs(3_600)));
    // What has begun is over.
    sleep(Duration::from_millis(20)).await;
    let before = enters();
    sleep(Duration::from_millis(300)).await;
    // The one wait for the timer; a timer may be found a moment too early.
    let count = enters() - before;
    assert!(count <= 2, "{count} in a time in which nothing came");
    listening.close();
}

on_both_drivers!(a_request_and_its_answer_are_one_turn, nothing_happens_while_nothing_comes);
