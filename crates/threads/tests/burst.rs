//! A burst gives what was sent before it, in order, and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod guard;

use std::collections::HashMap;
use std::sync::mpsc;

use guard::within_a_minute;
use remuda_threads::{DownMsg, WorkerId, WorkerPool, recv_break, try_recv_break};

#[test]
fn what_was_sent_before_comes_and_what_was_sent_after_waits_for_the_next() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(16);
        let (said, word) = mpsc::channel();
        pool.execute(move |tx, rx| {
            loop {
                let number = recv_break!(rx);
                tx.send(number).unwrap();
                said.send(()).unwrap();
            }
        })
        .unwrap();
        let send = |pool: &mut WorkerPool<u32, u32>, number| {
            pool.broadcast_one(DownMsg::Other(number)).unwrap();
            word.recv().unwrap();
        };
        (0..5).for_each(|number| send(&mut pool, number));
        let mut burst = pool.recv_burst();
        assert_eq!(burst.next(), Some(0));
        burst.broadcast_one(DownMsg::Other(5)).unwrap();
        word.recv().unwrap();
        assert_eq!(burst.by_ref().collect::<Vec<_>>(), [1, 2, 3, 4], "5 is there, and waits");
        assert_eq!(burst.next(), None);
        assert_eq!(pool.recv_burst().collect::<Vec<_>>(), [5]);
        assert_eq!(pool.recv_burst().next(), None);
    });
}

#[test]
fn a_burst_that_is_dropped_half_read_loses_nothing() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(16);
        pool.execute(|tx, _rx| (0..10).for_each(|number| tx.send(number).unwrap())).unwrap();
        let mut all = vec![pool.recv().unwrap()];
        all.extend(pool.recv_burst().take(3));
        all.extend(pool.recv_burst().take(2));
        all.extend(pool.stop());
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn bursts_end_though_each_message_is_answered_with_work_that_makes_two_more() {
    const ROUNDS: usize = if cfg!(miri) { 2 } else { 200 };
    for length in [0, 1, 64] {
        within_a_minute(move || {
            let mut pool: WorkerPool<u64, u64> = WorkerPool::new(length);
            pool.execute_many(2, |tx, rx| {
                loop {
                    let number = recv_break!(rx);
                    tx.send(number + 1).unwrap();
                    tx.send(number + 1).unwrap();
                }
            })
            .unwrap();
            pool.broadcast(DownMsg::Other(0));
            for _ in 0..ROUNDS {
                // However many answers there will be: this burst gives what the queues hold.
                let first = pool.recv().unwrap();
                pool.broadcast_one(DownMsg::Other(first)).unwrap();
                let mut read = 0;
                let mut burst = pool.recv_burst();
                while let Some(number) = burst.next() {
                    burst.broadcast_one(DownMsg::Other(number)).unwrap();
                    read += 1;
                }
                assert!(read <= 2 * length.max(1), "a burst of {read}");
            }
        });
    }
}

#[test]
fn a_burst_ends_though_workers_send_without_a_pause() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u64, ()> = WorkerPool::new(8);
        pool.execute_many(2, |tx, rx| {
            let mut count = 0;
            loop {
                let _ = try_recv_break!(rx);
                tx.send(count).unwrap();
                count += 1;
            }
        })
        .unwrap();
        for _ in 0..if cfg!(miri) { 4 } else { 100 } {
            pool.recv().unwrap();
            assert!(pool.recv_burst().count() <= 16);
        }
    });
}

#[test]
fn messages_of_one_worker_stay_in_order_across_bursts_and_single_reads() {
    const EACH: u64 = if cfg!(miri) { 8 } else { 20_000 };
    within_a_minute(|| {
        for length in [0, 1, 5, 256] {
            let mut pool: WorkerPool<u64, ()> = WorkerPool::new(length);
            pool.execute_many(3, |tx, _rx| (0..EACH).for_each(|n| tx.send(n).unwrap())).unwrap();
            let mut next: HashMap<WorkerId, u64> = HashMap::new();
            let mut check = |worker, number| {
                let expected = next.entry(worker).or_default();
                assert_eq!(number, *expected, "{worker}");
                *expected += 1;
            };
            while let Ok(message) = pool.recv_msg() {
                check(message.worker, message.body);
                let mut burst = pool.recv_burst();
                while let Some(message) = burst.next_msg() {
                    check(message.worker, message.body);
                }
                if let Ok(message) = pool.try_recv_msg() {
                    check(message.worker, message.body);
                }
            }
            assert_eq!(next.values().copied().collect::<Vec<_>>(), [EACH; 3]);
        }
    });
}

#[test]
fn a_burst_never_waits() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u64, ()> = WorkerPool::new(8);
        assert_eq!(pool.recv_burst().next(), None, "no workers");
        pool.execute(|_tx, rx| while rx.recv() != Ok(DownMsg::Stop) {}).unwrap();
        assert_eq!(pool.recv_burst().next(), None, "a worker that is silent");
    });
}
