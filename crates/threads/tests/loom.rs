//! Every interleaving of small pools: parking, bursts, stops and panics, by loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p remuda-threads --release --test loom`
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use remuda_threads::{
    DownMsg, RestartIntensity, TryRecvError, WorkerOptions, WorkerPool, recv_break,
};

/// Explores a model. Bounded by preemptions (loom's authors found that two or three show nearly
/// all faults), which `LOOM_MAX_PREEMPTIONS` overrides.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_within(2, model);
}

/// As [`explore`], for models of three threads, which take minutes with two preemptions.
fn explore_three(model: impl Fn() + Send + Sync + 'static) {
    explore_within(1, model);
}

fn explore_within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// A payload that no panic hook prints.
struct Silent;

fn panic_silently() -> ! {
    std::panic::resume_unwind(Box::new(Silent))
}

#[test]
fn a_round_trip_never_loses_a_wake_up() {
    explore(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(1);
        pool.execute(|tx, rx| {
            loop {
                tx.send(recv_break!(rx) + 1).unwrap();
            }
        })
        .unwrap();
        pool.broadcast_one(DownMsg::Other(1)).unwrap();
        assert_eq!(pool.recv(), Ok(2));
        pool.broadcast_one(DownMsg::Other(2)).unwrap();
        assert_eq!(pool.recv(), Ok(3));
        assert!(pool.stop_and_join().is_empty());
    });
}

#[test]
fn a_stop_meets_a_worker_that_waits_for_room() {
    for length in [0, 1, 2] {
        explore(move || {
            let mut pool: WorkerPool<u32, ()> = WorkerPool::new(length);
            pool.execute(|tx, _rx| (0..4).for_each(|number| tx.send(number).unwrap())).unwrap();
            assert_eq!(pool.stop_and_join(), [0, 1, 2, 3]);
        });
    }
}

#[test]
fn a_stop_meets_two_workers_that_wait_for_room() {
    for (length, each) in [(0, 1), (1, 2)] {
        explore_three(move || {
            let mut pool: WorkerPool<u32, ()> = WorkerPool::new(length);
            for first in [0, 10] {
                pool.execute(move |tx, _rx| {
                    (0..each).for_each(|number| tx.send(first + number).unwrap());
                })
                .unwrap();
            }
            let mut all = pool.stop_and_join();
            all.sort_unstable();
            assert_eq!(all, (0..each).chain((0..each).map(|n| 10 + n)).collect::<Vec<_>>());
        });
    }
}

#[test]
fn a_stop_arrives_at_every_point_of_a_loop() {
    for length in [0, 1] {
        explore(move || {
            let mut pool: WorkerPool<u32, u32> = WorkerPool::new(length);
            pool.execute(|tx, rx| {
                loop {
                    tx.send(recv_break!(rx)).unwrap();
                }
            })
            .unwrap();
            for number in 0..3 {
                pool.broadcast_one(DownMsg::Other(number)).unwrap();
            }
            assert_eq!(pool.stop_and_join(), [0, 1, 2]);
        });
    }
}

#[test]
fn a_stop_arrives_in_a_pause() {
    explore(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(1);
        pool.execute(|tx, rx| {
            loop {
                tx.send(recv_break!(rx)).unwrap();
            }
        })
        .unwrap();
        pool.broadcast(DownMsg::Pause);
        pool.broadcast(DownMsg::Other(1));
        pool.broadcast(DownMsg::Continue);
        assert_eq!(pool.recv(), Ok(1));
        pool.broadcast(DownMsg::Pause);
        drop(pool);
    });
}

#[test]
fn a_panic_at_every_point_surfaces_after_all_were_joined() {
    for (length, sent_before) in [(0, 0), (0, 1), (1, 1), (1, 2)] {
        explore_three(move || {
            let alive = Arc::new(AtomicUsize::new(2));
            let mut pool: WorkerPool<u32, ()> = WorkerPool::new(length);
            let token = Arc::clone(&alive);
            pool.execute(move |tx, _rx| {
                (0..sent_before).for_each(|number| tx.send(number).unwrap());
                token.fetch_sub(1, Ordering::SeqCst);
                panic_silently();
            })
            .unwrap();
            let token = Arc::clone(&alive);
            pool.execute(move |_tx, rx| {
                while rx.recv() != Ok(DownMsg::Stop) {}
                token.fetch_sub(1, Ordering::SeqCst);
            })
            .unwrap();
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.stop_and_join()));
            assert!(outcome.err().unwrap().is::<Silent>());
            assert_eq!(alive.load(Ordering::SeqCst), 0);
        });
    }
}

#[test]
fn a_restarted_worker_reads_on() {
    explore(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(1);
        let intensity = RestartIntensity::new(1, Duration::from_secs(1));
        pool.execute_restarting(WorkerOptions::new(), intensity, |tx, rx| {
            loop {
                match recv_break!(rx) {
                    0 => panic_silently(),
                    number => tx.send(number).unwrap(),
                }
            }
        })
        .unwrap();
        pool.broadcast_one(DownMsg::Other(0)).unwrap();
        pool.broadcast_one(DownMsg::Other(5)).unwrap();
        assert_eq!(pool.recv(), Ok(5));
        assert!(pool.take_panic().unwrap().restarted);
        drop(pool);
    });
}

#[test]
fn recv_sees_the_end_of_the_last_worker() {
    explore(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(1);
        pool.execute(|tx, _rx| tx.send(1).unwrap()).unwrap();
        pool.execute(|_tx, _rx| panic_silently()).unwrap();
        assert_eq!(pool.recv(), Ok(1));
        assert!(pool.recv().is_err());
        assert_eq!(pool.take_panic().unwrap().worker.index(), 1);
        assert!(pool.stop_and_join().is_empty());
    });
}

#[test]
fn a_burst_gives_what_was_there_and_keeps_the_order() {
    explore(|| {
        let mut pool: WorkerPool<usize, ()> = WorkerPool::new(2);
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        pool.execute(move |tx, _rx| {
            for number in 0..3 {
                tx.send(number).unwrap();
                counter.store(number + 1, Ordering::Release);
            }
        })
        .unwrap();
        let mut all = vec![];
        for _ in 0..2 {
            let before = sent.load(Ordering::Acquire);
            let mut burst = pool.recv_burst();
            thread::yield_now();
            all.extend(&mut burst);
            assert!(burst.next().is_none());
            assert!(all.len() >= before, "what was sent before the burst is in it");
        }
        all.extend(pool.stop());
        assert_eq!(all, [0, 1, 2]);
    });
}

#[test]
fn a_detached_worker_is_woken_and_refused() {
    for length in [0, 1] {
        explore(move || {
            let refused = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&refused);
            let mut pool: WorkerPool<u32, ()> = WorkerPool::new(length);
            let worker = pool
                .execute(move |tx, rx| {
                    let sent = (0..3).filter(|&number| tx.send(number).is_ok()).count();
                    count.store(3 - sent, Ordering::SeqCst);
                    while rx.recv().is_ok() {}
                })
                .unwrap();
            let unread = pool.detach(worker).unwrap();
            assert!(unread.len() <= 3);
            assert!(pool.recv().is_err());
            drop(pool);
        });
    }
}

#[test]
fn the_hook_is_called_for_what_comes_after_empty() {
    explore(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(2);
        let calls = Arc::new(AtomicUsize::new(0));
        let manager = thread::current();
        let counter = Arc::clone(&calls);
        pool.set_wake_hook(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            manager.unpark();
        });
        pool.execute(|tx, _rx| {
            tx.send(1).unwrap();
            tx.send(2).unwrap();
        })
        .unwrap();
        let mut got = vec![];
        let mut seen = 0;
        loop {
            match pool.try_recv() {
                Ok(number) => got.push(number),
                Err(TryRecvError::Disconnected) => break,
                // Parks for ever, and loom says so, if a call is missing.
                Err(TryRecvError::Empty) => {
                    while calls.load(Ordering::SeqCst) == seen {
                        thread::park();
                    }
                    seen = calls.load(Ordering::SeqCst);
                }
            }
        }
        assert_eq!(got, [1, 2]);
        pool.clear_wake_hook();
    });
}

#[test]
fn a_receiver_is_dropped_while_messages_come() {
    explore(|| {
        let mut pool: WorkerPool<(), Arc<()>> = WorkerPool::new(1);
        pool.execute(|_tx, rx| {
            drop(rx.try_recv());
            drop(rx);
        })
        .unwrap();
        // loom reports the messages that are never dropped.
        (0..4).for_each(|_| drop(pool.broadcast_one(DownMsg::Other(Arc::new(())))));
        drop(pool);
    });
}
