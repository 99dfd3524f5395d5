//! A stop comes to its end, whatever the workers are doing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod guard;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use guard::{Alive, within_a_minute};
use remuda_threads::{DownMsg, WorkerPool, recv_break, try_recv_break};

const LENGTHS: [usize; 4] = [0, 1, 3, 1024];
/// More than a block of the downward queue holds.
const COUNT: usize = if cfg!(miri) { 7 } else { 1000 };

/// Sends numbers until it's told to stop.
fn flood(pool: &mut WorkerPool<usize, ()>, alive: &Alive, workers: usize) {
    for _ in 0..workers {
        let token = alive.token();
        pool.execute(move |tx, rx| {
            let _token = token;
            let mut count = 0;
            loop {
                let _ = try_recv_break!(rx);
                tx.send(count).unwrap();
                count += 1;
            }
        })
        .unwrap();
    }
}

#[test]
fn stop_and_join_gives_what_is_left_of_workers_that_wait_for_room() {
    within_a_minute(|| {
        for length in LENGTHS {
            let alive = Alive::default();
            let mut pool = WorkerPool::new(length);
            flood(&mut pool, &alive, 3);
            assert_eq!(pool.recv(), Ok(0));
            let rest = pool.stop_and_join();
            assert_eq!(alive.count(), 0, "buffer length {length}");
            // Three count from 0, and one 0 was taken: each number was sent by all who sent the next.
            let mut times = vec![1];
            for number in rest {
                times.resize(times.len().max(number + 1), 0);
                times[number] += 1;
            }
            assert!(times[0] <= 3 && times.is_sorted_by(|a, b| a >= b), "{length}: {times:?}");
        }
    });
}

#[test]
fn every_message_that_was_sent_comes_in_its_order() {
    within_a_minute(|| {
        for length in LENGTHS {
            let mut pool: WorkerPool<usize, ()> = WorkerPool::new(length);
            pool.execute(|tx, _rx| (0..COUNT).for_each(|number| tx.send(number).unwrap())).unwrap();
            assert_eq!(pool.stop_and_join(), (0..COUNT).collect::<Vec<_>>());
        }
    });
}

#[test]
fn stop_joins_at_the_end_of_its_iterator() {
    within_a_minute(|| {
        let alive = Alive::default();
        let mut pool: WorkerPool<usize, ()> = WorkerPool::new(2);
        flood(&mut pool, &alive, 2);
        let mut rest = pool.stop();
        while rest.next().is_some() {}
        assert_eq!(alive.count(), 0);
        assert_eq!(rest.next(), None, "the end is the end");
    });
}

#[test]
fn dropping_the_pool_stops_and_joins() {
    within_a_minute(|| {
        for length in LENGTHS {
            let alive = Alive::default();
            let mut pool = WorkerPool::new(length);
            flood(&mut pool, &alive, 3);
            drop(pool);
            assert_eq!(alive.count(), 0);
        }
    });
}

#[test]
fn dropping_a_half_read_stop_iterator_stops_and_joins() {
    within_a_minute(|| {
        for length in LENGTHS {
            let alive = Alive::default();
            let mut pool = WorkerPool::new(length);
            flood(&mut pool, &alive, 3);
            pool.recv().unwrap();
            let mut rest = pool.stop();
            rest.next();
            drop(rest);
            assert_eq!(alive.count(), 0);
        }
    });
}

#[test]
fn a_manager_that_panics_stops_and_joins_its_workers() {
    within_a_minute(|| {
        let alive = Alive::default();
        let panicking = catch_unwind(AssertUnwindSafe(|| {
            let mut pool = WorkerPool::new(1);
            flood(&mut pool, &alive, 2);
            panic!("the manager's own");
        }));
        assert!(panicking.is_err());
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn paused_workers_stop() {
    within_a_minute(|| {
        for length in LENGTHS {
            let mut pool: WorkerPool<usize, usize> = WorkerPool::new(length);
            pool.execute_many(3, |tx, rx| {
                loop {
                    tx.send(recv_break!(rx)).unwrap();
                }
            })
            .unwrap();
            assert_eq!(pool.broadcast(DownMsg::Pause), 3);
            assert_eq!(pool.broadcast(DownMsg::Other(1)), 3);
            assert_eq!(pool.stop_and_join(), [0; 0], "what waits behind a pause isn't begun");
        }
    });
}

#[test]
fn workers_that_dropped_their_receiver_stop() {
    within_a_minute(|| {
        for length in LENGTHS {
            let mut pool: WorkerPool<usize, ()> = WorkerPool::new(length);
            pool.execute_many(2, |tx, rx| {
                drop(rx);
                (0..COUNT).for_each(|number| tx.send(number).unwrap());
            })
            .unwrap();
            let mut heard = HashSet::new();
            let mut read = 0;
            while heard.len() < 2 {
                heard.insert(pool.recv_msg().unwrap().worker);
                read += 1;
            }
            assert_eq!(pool.broadcast(DownMsg::Other(())), 0);
            assert_eq!(read + pool.stop_and_join().len(), 2 * COUNT);
        }
    });
}

#[test]
fn workers_that_dropped_their_sender_are_joined() {
    within_a_minute(|| {
        let alive = Alive::default();
        let token = alive.token();
        let mut pool: WorkerPool<(), ()> = WorkerPool::new(1);
        pool.execute(move |tx, rx| {
            let _token = token;
            drop(tx);
            loop {
                recv_break!(rx);
            }
        })
        .unwrap();
        assert!(pool.recv().is_err(), "nobody is left who could send");
        pool.stop_and_join();
        assert_eq!(alive.count(), 0);
    });
}

#[test]
#[cfg_attr(miri, ignore = "miri reports the leak")]
fn a_leaked_sender_does_not_keep_the_pool_waiting() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u8, ()> = WorkerPool::new(1);
        pool.execute(|tx, rx| {
            tx.send(7).unwrap();
            std::mem::forget(tx);
            std::mem::forget(rx);
        })
        .unwrap();
        assert_eq!(pool.recv(), Ok(7));
        assert!(pool.recv().is_err());
        assert!(pool.stop_and_join().is_empty());
    });
}

#[test]
fn what_was_sent_down_before_the_stop_is_read_before_it() {
    within_a_minute(|| {
        let mut pool: WorkerPool<usize, usize> = WorkerPool::new(1);
        pool.execute(|tx, rx| {
            loop {
                tx.send(recv_break!(rx)).unwrap();
            }
        })
        .unwrap();
        for number in 0..COUNT {
            pool.broadcast_one(DownMsg::Other(number)).unwrap();
        }
        assert_eq!(pool.stop_and_join(), (0..COUNT).collect::<Vec<_>>());
    });
}

#[test]
fn a_stop_is_the_last_message_and_nothing_waits_behind_it() {
    within_a_minute(|| {
        let mut pool: WorkerPool<bool, u8> = WorkerPool::new(4);
        let worker = pool
            .execute(|tx, rx| {
                tx.send(rx.recv() == Ok(DownMsg::Stop)).unwrap();
                tx.send(rx.recv().is_err()).unwrap();
                tx.send(rx.try_recv() == Err(mpsc::TryRecvError::Disconnected)).unwrap();
            })
            .unwrap();
        pool.get(worker).unwrap().send(DownMsg::Stop).unwrap();
        assert!(pool.get(worker).unwrap().send(DownMsg::Other(1)).is_err());
        assert_eq!(pool.stop_and_join(), [true; 3]);
    });
}

#[test]
fn a_pool_without_workers_stops_at_once() {
    let pool: WorkerPool<u8, u8> = WorkerPool::new(0);
    assert!(pool.stop_and_join().is_empty());
}

#[test]
fn messages_are_dropped_exactly_once() {
    within_a_minute(|| {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut pool: WorkerPool<Counted, Counted> = WorkerPool::new(3);
        let counter = Arc::clone(&dropped);
        pool.execute(move |tx, rx| {
            // Reads one of five messages, then sends ten.
            drop(rx.recv().unwrap());
            drop(rx);
            for _ in 0..10 {
                tx.send(Counted(Arc::clone(&counter))).unwrap();
            }
        })
        .unwrap();
        let mut refused = 0;
        for _ in 0..5 {
            let message = DownMsg::Other(Counted(Arc::clone(&dropped)));
            refused += usize::from(pool.broadcast_one(message).is_err());
        }
        assert!(refused < 5);
        drop(pool.recv());
        drop(pool);
        assert_eq!(dropped.load(Ordering::SeqCst), 15);
    });
}
