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

async fn a_request_and_its_answers_to_several_are_one_turn() {
    const REQUESTS: u64 = 500;
    // The end of the client's work, and the turns in which things begin.
    const OTHERS: u64 = 20;
    let (conn, mut client) = half_pair();
    let (others, mut peers): (Vec<_>, Vec<_>) = (0..3).map(|_| half_pair()).unzip();
    spawn(async move {
        let answer = |data: &[u8]| {
            others.iter().for_each(|other| other.send_nowait(data).unwrap());
            ParseResult::Consumed(data.len())
        };
        while conn.with_data(answer).await > 0 {}
    });
    let before = enters();
    let exchanges = spawn_blocking(move || {
        let mut answer = [0; 64];
        for request in 0..REQUESTS {
            client.write_all(&[request as u8; 64]).unwrap();
            for peer in &mut peers {
                peer.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [request as u8; 64]);
            }
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

/// Tasks run on until this turn ends, whose flush comes before timers.
async fn next_turn() {
    sleep(Duration::from_micros(1)).await;
}

/// What a connection is to send in a round: never the same as its neighbours or before.
fn piece(conn: usize, round: usize) -> Vec<u8> {
    let len = 1 + (conn * 611 + round * 1_013) % 9_000;
    (0..len).map(|at| (at * 7 + conn * 31 + round) as u8).collect()
}

async fn what_several_connections_send_in_one_turn_comes_whole_and_in_order() {
    comes_whole_and_in_order::<24>().await;
}

async fn what_one_connection_sends_in_each_turn_comes_whole_and_in_order() {
    comes_whole_and_in_order::<1>().await;
}

async fn comes_whole_and_in_order<const CONNS: usize>() {
    // More than a socket holds, so that sends are short, refused, and go on later.
    const ROUNDS: usize = 200;
    let (mut conns, mut readers) = (Vec::new(), Vec::new());
    for index in 0..CONNS {
        let (conn, mut peer) = half_pair();
        conns.push(conn);
        readers.push(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            let expected: Vec<u8> = (0..ROUNDS).flat_map(|round| piece(index, round)).collect();
            assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
        });
    }
    let mut threads = Vec::new();
    for round in 0..ROUNDS {
        for (index, conn) in conns.iter().enumerate() {
            conn.send_nowait(&piece(index, round)).unwrap();
            if round == ROUNDS - 1 && index % 3 == 0 {
                conn.shutdown_write();
            } else if round == ROUNDS - 1 {
                conn.close();
            }
        }
        if round == ROUNDS / 2 {
            // Until here nobody read.
            assert!(conns.iter().all(|conn| conn.unsent() > 0));
            threads.extend(readers.drain(..).map(std::thread::spawn));
        }
        next_turn().await;
        if round % 10 == 0 && round > ROUNDS / 2 {
            conns[round % CONNS].flushed(0).await.unwrap();
        }
    }
    for thread in threads {
        spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
}

async fn what_a_turn_sends_counts_as_sent_in_the_next() {
    let mut pairs: Vec<_> = (0..10).map(|_| half_pair()).collect();
    for round in 0..100_u8 {
        let sends: Vec<_> =
            pairs.iter().map(|(conn, _)| conn.send(&[round; 50]).unwrap()).collect();
        next_turn().await;
        assert!(pairs.iter().all(|(conn, _)| conn.unsent() == 0));
        for send in sends {
            assert_eq!(send.await.unwrap(), 50);
        }
        // Awaited at once: nothing but the send can end this wait.
        let (first, second) =
            (pairs[0].0.send(&[round]).unwrap(), pairs[1].0.send(&[round]).unwrap());
        let (first, second) = remuda_net::join(first, second).await;
        assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
        for (index, (_, peer)) in pairs.iter_mut().enumerate() {
            let mut got = vec![0; if index < 2 { 51 } else { 50 }];
            peer.read_exact(&mut got).unwrap();
            assert!(got.iter().all(|byte| *byte == round));
        }
    }
    // To a peer that is gone: each connection is told by itself.
    let conns: Vec<_> = pairs.into_iter().map(|(conn, _)| conn).collect();
    for conn in &conns {
        conn.send_nowait(b"to nobody").unwrap();
    }
    next_turn().await;
    for conn in &conns {
        conn.peer_gone().await;
        assert!(conn.send_nowait(b"more").is_err());
    }
}

async fn what_a_turn_sends_to_one_alone_is_told_of_in_the_next() {
    let (conn, mut peer) = half_pair();
    let mut got = [0; 50];
    for round in 0..100_u8 {
        conn.send_nowait(&[round; 50]).unwrap();
        conn.cancel().unwrap();
        next_turn().await;
        assert_eq!(conn.unsent(), 0);
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, [round; 50]);
    }
    // A full socket: what it didn't take goes out once there is room, and not before.
    let mut sent = 0;
    while conn.unsent() == 0 {
        conn.send_nowait(&[7; 5_000]).unwrap();
        sent += 5_000;
        next_turn().await;
    }
    peer.read_exact(&mut vec![0; sent - conn.unsent()]).unwrap();
    let unsent = conn.unsent();
    conn.flushed(0).await.unwrap();
    peer.read_exact(&mut vec![0; unsent]).unwrap();
    // Nothing but the failure ends this wait.
    drop(peer);
    conn.send_nowait(b"to nobody").unwrap();
    conn.peer_gone().await;
    assert!(conn.send_nowait(b"more").is_err());
    conn.close();
}

on_both_drivers!(
    a_request_and_its_answer_are_one_turn,
    a_request_and_its_answers_to_several_are_one_turn,
    nothing_happens_while_nothing_comes,
    what_a_turn_sends_counts_as_sent_in_the_next,
    what_a_turn_sends_to_one_alone_is_told_of_in_the_next,
    what_one_connection_sends_in_each_turn_comes_whole_and_in_order,
    what_several_connections_send_in_one_turn_comes_whole_and_in_order,
);
