//! A worker's panic: it surfaces with its payload, ends that worker alone, or restarts it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod guard;

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use guard::{Alive, within_a_minute};
use remuda_threads::{
    DownMsg, RESTART_REPORTS_MAX, RestartIntensity, WorkerOptions, WorkerPool, recv_break,
};

/// An hour, so that the test machine's slowness changes nothing.
const PERIOD: Duration = Duration::from_secs(3600);

/// Panics without a word on stderr.
fn panic_with(payload: &'static str) -> ! {
    resume_unwind(Box::new(payload))
}

#[test]
fn stop_and_join_panics_with_the_payload_after_all_were_joined() {
    within_a_minute(|| {
        for length in [0, 1, 64] {
            let alive = Alive::default();
            let mut pool: WorkerPool<u32, ()> = WorkerPool::new(length);
            for number in 0..3 {
                let token = alive.token();
                pool.execute(move |tx, rx| {
                    let _token = token;
                    tx.send(number).unwrap();
                    if number == 1 {
                        panic_any(vec![number]);
                    }
                    while rx.recv() != Ok(DownMsg::Stop) {}
                })
                .unwrap();
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.stop_and_join()));
            assert_eq!(outcome.unwrap_err().downcast_ref::<Vec<u32>>(), Some(&vec![1]));
            assert_eq!(alive.count(), 0, "all were joined before");
        }
    });
}

#[test]
fn the_stop_iterator_gives_everything_before_it_panics() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(8);
        pool.execute(|tx, _rx| {
            (0..3).for_each(|number| tx.send(number).unwrap());
            panic_with("after three");
        })
        .unwrap();
        let mut rest = pool.stop();
        assert_eq!(rest.by_ref().take(3).collect::<Vec<_>>(), [0, 1, 2]);
        let outcome = catch_unwind(AssertUnwindSafe(|| rest.next()));
        assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"after three"));
        assert_eq!(rest.next(), None, "once");
    });
}

#[test]
fn the_manager_learns_which_worker_panicked_and_with_what() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(8);
        assert!(pool.take_panic().is_none());
        let options = WorkerOptions::new().name("reader");
        let worker = pool
            .execute_with(options, |tx, rx| {
                let number = rx.next_other().unwrap();
                tx.send(number).unwrap();
                panic_with("cannot read this");
            })
            .unwrap();
        pool.broadcast_one(DownMsg::Other(4)).unwrap();
        assert_eq!(pool.recv(), Ok(4), "what it sent before is read");
        assert!(pool.recv().is_err());
        let panic = pool.take_panic().unwrap();
        assert_eq!((panic.worker, panic.name.as_str()), (worker, "reader"));
        assert_eq!(panic.message(), Some("cannot read this"));
        assert_eq!(panic.to_string(), "worker 0 (reader) panicked: cannot read this");
        assert!(!panic.restarted);
        let resumed = catch_unwind(AssertUnwindSafe(|| panic.resume()));
        assert_eq!(resumed.unwrap_err().downcast_ref::<&str>(), Some(&"cannot read this"));
        assert!(pool.stop_and_join().is_empty(), "what was taken isn't resumed");
    });
}

#[test]
fn a_panic_ends_its_worker_alone() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(8);
        let workers = pool
            .execute_many(2, |tx, rx| {
                loop {
                    match recv_break!(rx) {
                        0 => panic_with("zero"),
                        number => tx.send(number).unwrap(),
                    }
                }
            })
            .unwrap();
        pool.get(workers[0]).unwrap().send(DownMsg::Other(0)).unwrap();
        for number in 1..if cfg!(miri) { 5 } else { 50 } {
            pool.get(workers[1]).unwrap().send(DownMsg::Other(number)).unwrap();
            assert_eq!(pool.recv(), Ok(number));
        }
        pool.get(workers[1]).unwrap().send(DownMsg::Stop).unwrap();
        assert!(pool.recv().is_err());
        assert_eq!(pool.take_panic().unwrap().worker, workers[0]);
    });
}

#[test]
fn dropping_a_pool_with_a_panicked_worker_does_not_panic() {
    within_a_minute(|| {
        let mut pool: WorkerPool<(), ()> = WorkerPool::new(1);
        pool.execute_many(2, |_tx, _rx| panic_with("dropped")).unwrap();
        drop(pool);
        let mut pool: WorkerPool<(), ()> = WorkerPool::new(1);
        pool.execute_many(2, |_tx, _rx| panic_with("dropped")).unwrap();
        drop(pool.stop());
    });
}

#[test]
fn a_panic_in_the_drop_of_what_the_job_captured_surfaces_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic_with("bomb");
        }
    }
    within_a_minute(|| {
        let mut pool: WorkerPool<(), ()> = WorkerPool::new(1);
        let bomb = Bomb;
        let intensity = RestartIntensity::default();
        pool.execute_restarting(WorkerOptions::new(), intensity, move |_tx, _rx| {
            let _ = &bomb;
        })
        .unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.stop_and_join()));
        assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"bomb"));
    });
}

/// Doubles numbers, and panics at each 0.
fn restarting(pool: &mut WorkerPool<u32, u32>, max: u32) -> Arc<AtomicUsize> {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let intensity = RestartIntensity::new(max, PERIOD);
    pool.execute_restarting(WorkerOptions::new(), intensity, move |tx, rx| {
        counter.fetch_add(1, Ordering::SeqCst);
        loop {
            match recv_break!(rx) {
                0 => panic_with("zero"),
                number => tx.send(number * 2).unwrap(),
            }
        }
    })
    .unwrap();
    runs
}

#[test]
fn a_restarted_worker_goes_on_with_what_was_sent_to_it() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(1);
        let runs = restarting(&mut pool, 10);
        for number in [1, 0, 2, 0, 0, 3] {
            pool.broadcast_one(DownMsg::Other(number)).unwrap();
        }
        assert_eq!([pool.recv(), pool.recv(), pool.recv()], [Ok(2), Ok(4), Ok(6)]);
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        let panics = std::iter::from_fn(|| pool.take_panic()).collect::<Vec<_>>();
        assert_eq!(panics.len(), 3);
        assert!(panics.iter().all(|panic| panic.restarted && panic.message() == Some("zero")));
        assert!(pool.stop_and_join().is_empty(), "restarts aren't resumed");
    });
}

#[test]
fn a_worker_that_panics_too_often_ends() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(1);
        let runs = restarting(&mut pool, 2);
        (0..5).for_each(|_| assert_eq!(pool.broadcast(DownMsg::Other(0)), 1));
        assert!(pool.recv().is_err());
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        let restarted = std::iter::from_fn(|| pool.take_panic()).map(|panic| panic.restarted);
        assert_eq!(restarted.collect::<Vec<_>>(), [true, true, false]);
        assert!(pool.broadcast_one(DownMsg::Other(1)).is_err(), "it's gone");
    });
}

#[test]
fn a_restarted_panic_that_nobody_took_does_not_hide_the_fatal_one() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(1);
        restarting(&mut pool, 1);
        (0..2).for_each(|_| assert_eq!(pool.broadcast(DownMsg::Other(0)), 1));
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.stop_and_join()));
        assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"zero"));
    });
}

#[test]
#[cfg_attr(miri, ignore = "miri takes minutes for a hundred panics")]
fn reports_of_restarts_are_bounded() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(1);
        restarting(&mut pool, u32::MAX);
        for _ in 0..RESTART_REPORTS_MAX + 20 {
            pool.broadcast_one(DownMsg::Other(0)).unwrap();
        }
        pool.broadcast_one(DownMsg::Other(1)).unwrap();
        assert_eq!(pool.recv(), Ok(2));
        assert_eq!(std::iter::from_fn(|| pool.take_panic()).count(), RESTART_REPORTS_MAX);
    });
}

#[test]
fn a_stop_ends_a_worker_that_panics_at_it() {
    within_a_minute(|| {
        for length in [0, 1] {
            let mut pool: WorkerPool<u32, ()> = WorkerPool::new(length);
            let intensity = RestartIntensity::new(u32::MAX, PERIOD);
            pool.execute_restarting(WorkerOptions::new(), intensity, |_tx, rx| {
                rx.next_other().unwrap_or_else(|_stopped| panic_with("at the stop"));
            })
            .unwrap();
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.stop_and_join()));
            assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"at the stop"));
        }
    });
}
