//! What an event loop needs: a wake hook, a worker left behind, another in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod guard;

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::time::Duration;

use guard::{Alive, within_a_minute};
use remuda_threads::{DownMsg, TryRecvError, WorkerPool, recv_break};

/// A pool whose hook is what the receiver gets.
fn hooked(length: usize) -> (WorkerPool<u32, u32>, mpsc::Receiver<()>) {
    let mut pool = WorkerPool::new(length);
    let (call, calls) = mpsc::channel();
    pool.set_wake_hook(move || call.send(()).unwrap());
    (pool, calls)
}

fn echo(pool: &mut WorkerPool<u32, u32>) {
    pool.execute(|tx, rx| {
        loop {
            tx.send(recv_break!(rx)).unwrap();
        }
    })
    .unwrap();
}

#[test]
fn the_hook_is_called_once_for_what_comes_after_empty() {
    const ROUNDS: u32 = if cfg!(miri) { 5 } else { 100 };
    within_a_minute(|| {
        let (mut pool, calls) = hooked(16);
        echo(&mut pool);
        assert_eq!(pool.try_recv(), Err(TryRecvError::Empty));
        for round in 0..ROUNDS {
            (0..3).for_each(|n| assert_eq!(pool.broadcast(DownMsg::Other(round + n)), 1));
            calls.recv().unwrap();
            let mut read = 0;
            while read < 3 {
                match pool.try_recv() {
                    Ok(number) => {
                        assert_eq!(number, round + read);
                        read += 1;
                    }
                    // The rest was not there yet, and is announced anew.
                    Err(_) => calls.recv().unwrap(),
                }
            }
            assert_eq!(pool.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(calls.try_recv(), Err(mpsc::TryRecvError::Empty), "no call for nothing");
        }
    });
}

#[test]
fn an_event_loop_on_the_hook_alone_gets_everything() {
    const EACH: usize = if cfg!(miri) { 10 } else { 20_000 };
    within_a_minute(|| {
        for length in [0, 1, 64] {
            let (mut pool, calls) = hooked(length);
            pool.execute_many(3, |tx, _rx| (0..EACH).for_each(|_| tx.send(1).unwrap())).unwrap();
            let mut read = 0;
            while read < 3 * EACH {
                calls.recv().unwrap();
                if read.is_multiple_of(2) {
                    read += pool.recv_burst().count();
                } else {
                    read += std::iter::from_fn(|| pool.try_recv().ok()).count();
                }
            }
            assert!(pool.stop_and_join().is_empty());
        }
    });
}

#[test]
fn what_waits_behind_a_burst_calls_the_hook_at_its_end() {
    within_a_minute(|| {
        let (mut pool, calls) = hooked(16);
        let (said, word) = mpsc::channel();
        pool.execute(move |tx, rx| {
            loop {
                tx.send(recv_break!(rx)).unwrap();
                said.send(()).unwrap();
            }
        })
        .unwrap();
        pool.broadcast(DownMsg::Other(1));
        word.recv().unwrap();
        calls.recv().unwrap();
        let mut burst = pool.recv_burst();
        burst.send(0, DownMsg::Other(2)).unwrap();
        word.recv().unwrap();
        assert_eq!(calls.try_recv(), Err(mpsc::TryRecvError::Empty), "the burst isn't over");
        assert_eq!((burst.next(), burst.next()), (Some(1), None));
        calls.try_recv().unwrap();
        assert_eq!(pool.recv_burst().next(), Some(2));
    });
}

#[test]
fn the_hook_tells_of_a_panic_and_of_an_end() {
    within_a_minute(|| {
        let (mut pool, calls) = hooked(4);
        pool.execute(|_tx, rx| {
            rx.next_other().ok();
            resume_unwind(Box::new("over"));
        })
        .unwrap();
        assert_eq!(pool.try_recv(), Err(TryRecvError::Empty));
        pool.broadcast(DownMsg::Other(1));
        let panic = loop {
            calls.recv().unwrap();
            if let Some(panic) = pool.take_panic() {
                break panic;
            }
            assert_eq!(pool.try_recv(), Err(TryRecvError::Empty));
        };
        assert_eq!(panic.message(), Some("over"));
        while pool.try_recv() == Err(TryRecvError::Empty) {
            calls.recv().unwrap();
        }
        assert_eq!(pool.try_recv(), Err(TryRecvError::Disconnected));

        let (mut pool, calls) = hooked(4);
        pool.execute(|_tx, rx| assert_eq!(rx.recv(), Ok(DownMsg::Stop))).unwrap();
        pool.broadcast(DownMsg::Stop);
        while pool.try_recv() == Err(TryRecvError::Empty) {
            calls.recv().unwrap();
        }
    });
}

#[test]
fn recv_works_beside_a_hook() {
    within_a_minute(|| {
        let (mut pool, calls) = hooked(0);
        echo(&mut pool);
        for number in 0..50 {
            assert_eq!(pool.broadcast(DownMsg::Other(number)), 1);
            assert_eq!(pool.recv(), Ok(number));
        }
        let timeout = Duration::from_millis(1);
        assert!(pool.recv_timeout(timeout).is_err());
        while calls.try_recv().is_ok() {}
        assert_eq!(pool.broadcast(DownMsg::Other(1)), 1);
        calls.recv().unwrap();
        assert_eq!(pool.recv(), Ok(1));
        pool.clear_wake_hook();
        assert_eq!(pool.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(pool.broadcast(DownMsg::Other(2)), 1);
        assert_eq!(pool.recv(), Ok(2));
        assert_eq!(calls.try_recv(), Err(mpsc::TryRecvError::Disconnected), "it's dropped");
    });
}

#[test]
fn a_hung_worker_is_left_behind_and_another_takes_its_place() {
    within_a_minute(|| {
        let (mut pool, calls) = hooked(4);
        let (release, hang) = mpsc::channel::<()>();
        let (told, outcome) = mpsc::channel();
        let hung = pool
            .execute(move |tx, rx| {
                let job = rx.next_other().unwrap();
                tx.send(job).unwrap();
                hang.recv().ok();
                told.send((tx.send(99).is_err(), rx.next_other().is_err())).unwrap();
            })
            .unwrap();
        pool.get(hung).unwrap().send(DownMsg::Other(5)).unwrap();
        calls.recv().unwrap();
        assert_eq!(pool.detach(hung), Some(vec![5]), "what it sent isn't lost");
        assert!(pool.get(hung).is_none());
        assert_eq!(pool.detach(hung), None);

        echo(&mut pool);
        let next = pool.workers().next().unwrap().id();
        assert_ne!(next, hung, "a name is never used again");
        pool.broadcast_one(DownMsg::Other(6)).unwrap();
        assert_eq!(pool.recv(), Ok(6));
        // It still hangs, and the stop doesn't wait for it.
        assert!(pool.stop_and_join().is_empty());
        drop(release);
        assert_eq!(outcome.recv().unwrap(), (true, true), "refused and stopped when it came back");
    });
}

#[test]
fn a_worker_that_waits_for_room_can_be_detached() {
    within_a_minute(|| {
        for length in [0, 1, 4] {
            let alive = Alive::default();
            let token = alive.token();
            let (end, ended) = mpsc::channel();
            let mut pool: WorkerPool<usize, ()> = WorkerPool::new(length);
            let worker = pool
                .execute(move |tx, _rx| {
                    let _token = token;
                    while tx.send(1).is_ok() {}
                    end.send(()).unwrap();
                })
                .unwrap();
            assert_eq!(pool.recv(), Ok(1));
            pool.detach(worker).unwrap();
            ended.recv().unwrap();
            assert!(pool.recv().is_err());
        }
    });
}

#[test]
fn a_pool_that_replaces_its_workers_all_day_does_not_grow() {
    const COUNT: usize = if cfg!(miri) { 4 } else { 500 };
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(4);
        for _ in 0..COUNT {
            pool.execute(|tx, _rx| tx.send(1).unwrap()).unwrap();
            assert_eq!(pool.recv(), Ok(1));
            assert!(pool.recv().is_err());
        }
        // A thread that has sent its last may take a moment to end.
        assert!(pool.len() < COUNT, "{} are kept", pool.len());
        while pool.len() > 2 {
            std::thread::yield_now();
            pool.execute(|_tx, _rx| ()).unwrap();
            assert!(pool.recv().is_err());
        }
    });
}
