//! Passing on between two connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use remuda_net::{
    Config, ConnCtx, Forwarded, JoinHandle, NetError, Result, forward_both, spawn_blocking,
    spawn_with_handle, yield_now,
};

use crate::drivers::{half_pair, run_beside, same_driver, take, tcp_pair};

const LARGE: usize = 2 << 20;

/// Two outer sockets, and what passes on between their peers.
struct Between {
    left: TcpStream,
    right: TcpStream,
    conns: (ConnCtx, ConnCtx),
    passing: JoinHandle<Result<Forwarded>>,
}

fn between() -> Between {
    let ((first, left), (second, right)) = (tcp_pair(), tcp_pair());
    let passing = spawn_with_handle(forward_both(first, second));
    Between { left, right, conns: (first, second), passing }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 16) as u8 ^ seed).collect()
}

/// Writes a pattern on one side, and finds it on the other.
async fn through(from: &TcpStream, to: &TcpStream, len: usize, seed: u8) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let writer = thread::spawn(move || from.write_all(&pattern(len, seed)).unwrap());
    let read = spawn_blocking(move || {
        let mut read = vec![0; len];
        to.read_exact(&mut read).unwrap();
        read
    });
    assert!(read.await.unwrap() == pattern(len, seed), "the bytes differ");
    writer.join().unwrap();
}

/// Small messages there and back.
async fn ping_pong(one: &TcpStream, other: &TcpStream, rounds: u8) {
    let (mut one, mut other) = (one.try_clone().unwrap(), other.try_clone().unwrap());
    let played = spawn_blocking(move || {
        let mut buffer = [0; 64];
        for round in 0..rounds {
            one.write_all(&[round; 64]).unwrap();
            other.read_exact(&mut buffer).unwrap();
            other.write_all(&buffer).unwrap();
            one.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [round; 64]);
        }
    });
    played.await.unwrap();
}

async fn ends(between: Between) -> Forwarded {
    between.left.shutdown(Shutdown::Write).unwrap();
    let mut right = between.right;
    let rest = spawn_blocking(move || {
        let mut rest = Vec::new();
        right.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        right.shutdown(Shutdown::Write).unwrap();
        right
    });
    let _right = rest.await.unwrap();
    between.passing.await.unwrap().unwrap()
}

/// Large pieces until the kernel has both connections, and nothing goes any more. Returns how
/// many bytes that took.
async fn idle_while_spliced(between: &Between) -> u64 {
    let mut count = 0;
    loop {
        through(&between.left, &between.right, LARGE, 9).await;
        count += LARGE as u64;
        match between.conns.1.send_nowait(b"") {
            Err(NetError::Forwarding) => return count,
            other => other.unwrap(),
        }
    }
}

async fn large_pieces_are_spliced_and_arrive_whole_both_ways() {
    let between = between();
    let before = idle_while_spliced(&between).await;
    let one = through(&between.left, &between.right, LARGE, 1);
    let other = through(&between.right, &between.left, LARGE, 2);
    remuda_net::join(one, other).await;
    let forwarded = ends(between).await;
    let each = LARGE as u64;
    assert_eq!((forwarded.there, forwarded.back), (before + each, each));
    assert!(forwarded.spliced > 0, "nothing was spliced");
}

async fn small_pieces_go_through_memory() {
    let between = between();
    ping_pong(&between.left, &between.right, 200).await;
    let forwarded = ends(between).await;
    assert_eq!(forwarded, Forwarded { there: 200 * 64, back: 200 * 64, spliced: 0 });
}

async fn it_changes_between_the_two_and_loses_nothing() {
    let between = between();
    let mut there = 0;
    for round in 0..4 {
        there += idle_while_spliced(&between).await;
        through(&between.left, &between.right, LARGE / 4, round).await;
        ping_pong(&between.left, &between.right, 50).await;
        through(&between.right, &between.left, LARGE / 4, round).await;
        ping_pong(&between.right, &between.left, 50).await;
    }
    let forwarded = ends(between).await;
    let each = LARGE as u64 + 400 * 64;
    assert_eq!((forwarded.there, forwarded.back), (there + each, each));
    assert!(forwarded.spliced > 0, "nothing was spliced");
}

async fn who_does_not_read_holds_up_one_way_only() {
    let between = between();
    idle_while_spliced(&between).await;
    let mut left = between.left.try_clone().unwrap();
    let writer = thread::spawn(move || left.write_all(&pattern(6 * LARGE, 4)).unwrap());
    // One way is full, or will be; the other goes on.
    through(&between.right, &between.left, LARGE, 5).await;
    let mut right = between.right.try_clone().unwrap();
    let read = spawn_blocking(move || {
        let mut read = vec![0; 6 * LARGE];
        right.read_exact(&mut read).unwrap();
        read
    });
    assert!(read.await.unwrap() == pattern(6 * LARGE, 4));
    writer.join().unwrap();
    ends(between).await;
}

async fn after_one_end_the_other_way_goes_on() {
    let between = between();
    let there = idle_while_spliced(&between).await;
    between.left.shutdown(Shutdown::Write).unwrap();
    through(&between.right, &between.left, LARGE, 7).await;
    let forwarded = ends(between).await;
    assert_eq!((forwarded.there, forwarded.back), (there, LARGE as u64));
}

async fn a_reset_is_told_and_raises_no_signal() {
    let between = between();
    idle_while_spliced(&between).await;
    let Between { left, right, passing, .. } = between;
    socket2::SockRef::from(&right).set_linger(Some(Duration::ZERO)).unwrap();
    drop(right);
    let mut writing = left.try_clone().unwrap();
    // It ends when the other side is told, or has been forwarded enough.
    let writer = thread::spawn(move || drop(writing.write_all(&[1; 1 << 20])));
    let error = passing.await.unwrap().unwrap_err();
    assert!(matches!(error, NetError::PeerGone(_)), "{error}");
    left.shutdown(Shutdown::Both).unwrap();
    writer.join().unwrap();
}

async fn it_ends_by_close_and_by_cancel() {
    let one = between();
    idle_while_spliced(&one).await;
    one.conns.1.close();
    let error = one.passing.await.unwrap().unwrap_err();
    assert!(matches!(error, NetError::Closed), "{error}");
    let mut right = one.right;
    let end = spawn_blocking(move || right.read(&mut [0]).unwrap());
    assert_eq!(end.await.unwrap(), 0);

    let other = between();
    idle_while_spliced(&other).await;
    other.conns.0.cancel().unwrap();
    let error = other.passing.await.unwrap().unwrap_err();
    assert!(matches!(error, NetError::Cancelled), "{error}");
}

async fn dropped_it_leaves_both_as_they_were() {
    let mut between = between();
    idle_while_spliced(&between).await;
    between.passing.abort();
    let _ = between.passing.await;
    between.left.write_all(b"as before").unwrap();
    assert_eq!(take(between.conns.0, 9).await, b"as before");
    between.conns.0.send_nowait(&pattern(LARGE, 1)[..LARGE / 2]).unwrap();
    let mut left = between.left;
    let read = spawn_blocking(move || {
        let mut read = vec![0; LARGE / 2];
        left.read_exact(&mut read).unwrap();
        read
    });
    assert!(read.await.unwrap() == pattern(LARGE, 1)[..LARGE / 2]);
    yield_now().await;
    assert_eq!(between.conns.0.unsent(), 0);
}

async fn what_was_buffered_goes_first_and_a_small_limit_is_kept() {
    let config = Config { send_limit: 1 << 10, ..same_driver() };
    run_beside(config, || async {
        let ((first, mut left), (second, mut right)) = (half_pair(), half_pair());
        left.write_all(b"before").unwrap();
        first.recv_ready().await;
        let passing = spawn_with_handle(forward_both(first, second));
        let writer = thread::spawn(move || {
            left.write_all(&[7; 300_000]).unwrap();
            left.shutdown(Shutdown::Write).unwrap();
            left
        });
        let read = spawn_blocking(move || {
            let mut all = Vec::new();
            right.read_to_end(&mut all).unwrap();
            all
        });
        let all = read.await.unwrap();
        assert!(all.starts_with(b"before") && all[6..] == [7; 300_000]);
        let forwarded = passing.await.unwrap().unwrap();
        assert_eq!((forwarded.there, forwarded.back), (300_006, 0));
        drop(writer.join().unwrap());
    });
}

on_both_drivers!(
    large_pieces_are_spliced_and_arrive_whole_both_ways,
    small_pieces_go_through_memory,
    it_changes_between_the_two_and_loses_nothing,
    who_does_not_read_holds_up_one_way_only,
    after_one_end_the_other_way_goes_on,
    a_reset_is_told_and_raises_no_signal,
    it_ends_by_close_and_by_cancel,
    dropped_it_leaves_both_as_they_were,
    what_was_buffered_goes_first_and_a_small_limit_is_kept,
);
