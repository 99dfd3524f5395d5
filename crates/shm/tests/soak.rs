//! Two processes talk for long, on one processor and on two: no hang, no loss. Ten million round
//! trips and a hundred million messages one way with `REMUDA_SOAK=1`; some thousands otherwise.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use remuda_shm::{Options, SpscFace, SpscHandle};
use support::amount;

/// Two slots: both sides sleep, and wait for room, as often as can be.
const CAPACITY: u32 = 2;

fn options(spin_micros: u64) -> Options {
    Options::new(CAPACITY, 64).unwrap().spin(Duration::from_micros(spin_micros))
}

/// The other process: echoes, or checks the order of what comes and answers at the end.
fn play(role: &str) {
    let mut words = role.split(' ');
    let (what, spin, processor) = (
        words.next().unwrap(),
        words.next().unwrap().parse().unwrap(),
        words.next().unwrap().parse().unwrap(),
    );
    let handle = SpscHandle::over(support::socket(), &options(spin)).unwrap();
    support::pin(processor);
    let mut next = 0_u64;
    while let Some(message) = handle.recv_blocking() {
        if what == "echo" {
            handle.send_blocking(&message).unwrap();
            continue;
        }
        assert_eq!(message[..8], next.to_le_bytes());
        next += 1;
        if message.len() == 16 {
            handle.send_blocking(&next.to_le_bytes()).unwrap();
        }
    }
}

fn with_other(
    test: &str,
    what: &str,
    spin: u64,
    processors: [usize; 2],
    f: impl FnOnce(&SpscFace),
) {
    let (own, peer) = UnixStream::pair().unwrap();
    let face = SpscFace::over(&own, &options(spin)).unwrap();
    let role = format!("{what} {spin} {}", processors[1]);
    let mut child = support::start(test, &role, peer);
    support::pin(processors[0]);
    f(&face);
    drop(face);
    assert!(child.wait().unwrap().success());
}

fn round_trips(test: &str, spin: u64, processors: [usize; 2], count: u64) {
    with_other(test, "echo", spin, processors, |face| {
        for i in 0..count {
            face.send_blocking(&i.to_le_bytes()).unwrap();
            assert_eq!(face.recv_blocking().as_deref(), Some(&i.to_le_bytes()[..]));
        }
    });
}

fn one_way(test: &str, spin: u64, processors: [usize; 2], count: u64) {
    with_other(test, "check", spin, processors, |face| {
        let mut sent = 0;
        while sent < count {
            // One by one, and in batches larger than the ring.
            let run = if sent % 3 == 0 { 1 } else { 5.min(count - sent) };
            let batch: Vec<_> = (sent..sent + run).map(u64::to_le_bytes).collect();
            face.send_batch_blocking(&batch).unwrap();
            sent += run;
        }
        face.send_blocking(&[count.to_le_bytes(), count.to_le_bytes()].concat()).unwrap();
        assert_eq!(face.recv_blocking().as_deref(), Some(&(count + 1).to_le_bytes()[..]));
    });
}

/// Runs on a thread of its own, whose processor is its own to choose.
fn on_thread(f: impl FnOnce() + Send + 'static) {
    std::thread::spawn(f).join().unwrap();
}

#[test]
fn round_trips_on_two_processors() {
    const TEST: &str = "round_trips_on_two_processors";
    if let Some(role) = support::role() {
        return play(&role);
    }
    let two = support::two_processors();
    on_thread(move || round_trips(TEST, 0, two, amount(5_000, 2_500_000)));
    on_thread(move || round_trips(TEST, 10, two, amount(5_000, 2_500_000)));
}

#[test]
fn round_trips_on_one_processor() {
    const TEST: &str = "round_trips_on_one_processor";
    if let Some(role) = support::role() {
        return play(&role);
    }
    let [one, _] = support::two_processors();
    on_thread(move || round_trips(TEST, 0, [one; 2], amount(5_000, 2_500_000)));
    on_thread(move || round_trips(TEST, 10, [one; 2], amount(5_000, 2_500_000)));
}

#[test]
fn one_way_on_two_processors() {
    const TEST: &str = "one_way_on_two_processors";
    if let Some(role) = support::role() {
        return play(&role);
    }
    let two = support::two_processors();
    on_thread(move || one_way(TEST, 0, two, amount(10_000, 25_000_000)));
    on_thread(move || one_way(TEST, 10, two, amount(10_000, 25_000_000)));
}

#[test]
fn one_way_on_one_processor() {
    const TEST: &str = "one_way_on_one_processor";
    if let Some(role) = support::role() {
        return play(&role);
    }
    let [one, _] = support::two_processors();
    on_thread(move || one_way(TEST, 0, [one; 2], amount(10_000, 25_000_000)));
    on_thread(move || one_way(TEST, 10, [one; 2], amount(10_000, 25_000_000)));
}
