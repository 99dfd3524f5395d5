//! Pools that start and stop under load, over and over, without a hang.
//!
//! 300 cycles in an ordinary run, 10,000 with `REMUDA_SOAK=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod guard;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use guard::{Alive, within};
use remuda_threads::{DownMsg, WorkerPool, WorkerReceiver, WorkerSender, try_recv_break};

/// How many of a cycle's kinds there are; each cycle is another one.
const KINDS: usize = 6;
/// No cycle takes a thousandth of this on an idle machine.
const PATIENCE: Duration = Duration::from_secs(if cfg!(miri) { 1800 } else { 120 });

/// A worker that sends as fast as it can, answers what it's told, and at some point panics, drops
/// its receiver or returns, as the seed says.
fn worker(seed: usize, tx: WorkerSender<usize>, rx: WorkerReceiver<usize>) {
    for count in 0.. {
        if let Some(number) = try_recv_break!(rx) {
            tx.send(number).unwrap();
        }
        tx.send(count).unwrap();
        match seed % 7 {
            0 if count == seed % 50 => resume_unwind(Box::new(seed)),
            1 if count == seed % 50 => return,
            2 if count == seed % 50 => {
                drop(rx);
                (0..seed % 90).for_each(|number| tx.send(number).unwrap());
                return;
            }
            _ => {}
        }
    }
}

fn cycle(seed: usize) {
    let alive = Alive::default();
    let mut pool: WorkerPool<usize, usize> = WorkerPool::new([0, 1, 2, 64][seed % 4]);
    for number in 0..1 + seed % 3 {
        let token = alive.token();
        pool.execute(move |tx, rx| {
            let _token = token;
            worker(seed.wrapping_mul(31) + number, tx, rx);
        })
        .unwrap();
    }
    for step in 0..seed % 20 {
        match step % 5 {
            0 => drop(pool.broadcast_one(DownMsg::Other(step))),
            1 => assert!(pool.recv_burst().count() <= 64 * 3),
            2 => assert!(pool.broadcast(DownMsg::Pause) <= 3),
            3 => assert!(pool.broadcast(DownMsg::Continue) <= 3),
            _ => drop(pool.recv()),
        }
    }
    // A panic of the worker's own is part of it.
    let _ = catch_unwind(AssertUnwindSafe(|| match seed % KINDS {
        0 => drop(pool),
        1 => drop(pool.stop()),
        2 => drop(pool.stop().next()),
        3 => drop(pool.stop().take(seed % 40).collect::<Vec<_>>()),
        4 => drop(pool.stop_and_join()),
        _ => pool.stop().for_each(drop),
    }));
    assert_eq!(alive.count(), 0, "cycle {seed} left a thread");
}

#[test]
fn pools_start_and_stop_under_load_without_a_hang() {
    let is_soak = std::env::var_os("REMUDA_SOAK").is_some_and(|value| value == "1");
    let cycles = match (cfg!(miri), is_soak) {
        (true, _) => 6,
        (_, true) => 10_000,
        _ => 300,
    };
    for first in (0..cycles).step_by(100) {
        let last = cycles.min(first + 100);
        within(PATIENCE, move || (first..last).for_each(cycle));
    }
}
