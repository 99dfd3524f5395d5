//! Reading one message: waiting, ends, limits, and fairness.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod guard;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use guard::within_a_minute;
use remuda_threads::{
    BUFFER_LENGTH_MAX, DownMsg, RecvError, RecvTimeoutError, TryRecvError, TrySendError,
    WorkerPool, recv_break, try_recv_break,
};

#[test]
fn recv_on_a_pool_whose_workers_have_all_ended_is_an_error() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(4);
        assert_eq!(pool.recv(), Err(RecvError), "no workers at all");
        pool.execute_many(2, |tx, _rx| tx.send(1).unwrap()).unwrap();
        assert_eq!((pool.recv(), pool.recv()), (Ok(1), Ok(1)));
        assert_eq!(pool.recv(), Err(RecvError));
        assert_eq!(pool.try_recv(), Err(TryRecvError::Disconnected));
        let timeout = Duration::from_secs(3600);
        assert_eq!(pool.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected));
        // Another worker can be started all the same.
        pool.execute(|tx, _rx| tx.send(2).unwrap()).unwrap();
        assert_eq!(pool.recv(), Ok(2));
    });
}

#[test]
fn recv_that_waits_is_ended_by_the_end_of_the_last_worker() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(4);
        let (end, ended) = mpsc::channel::<()>();
        pool.execute(move |_tx, _rx| assert!(ended.recv().is_err())).unwrap();
        let ender = std::thread::spawn(move || {
            // As long as it takes the manager to park; the test holds without it too.
            std::thread::sleep(Duration::from_millis(20));
            drop(end);
        });
        assert_eq!(pool.recv(), Err(RecvError));
        ender.join().unwrap();
    });
}

#[test]
fn recv_timeout_gives_up_in_time_and_loses_nothing() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(0);
        pool.execute(|tx, rx| {
            loop {
                tx.send(recv_break!(rx)).unwrap();
            }
        })
        .unwrap();
        let start = Instant::now();
        let timeout = Duration::from_millis(30);
        assert_eq!(pool.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= timeout);
        pool.broadcast_one(DownMsg::Other(3)).unwrap();
        assert_eq!(pool.recv_timeout(Duration::MAX), Ok(3), "as good as no timeout");
    });
}

#[test]
fn a_receiver_times_out_too() {
    within_a_minute(|| {
        let mut pool: WorkerPool<bool, ()> = WorkerPool::new(4);
        pool.execute(|tx, rx| {
            let timeout = rx.recv_timeout(Duration::from_millis(5));
            tx.send(timeout == Err(RecvTimeoutError::Timeout)).unwrap();
            tx.send(rx.recv_timeout(Duration::MAX) == Ok(DownMsg::Stop)).unwrap();
            let timeout = rx.recv_timeout(Duration::MAX);
            tx.send(timeout == Err(RecvTimeoutError::Disconnected)).unwrap();
        })
        .unwrap();
        assert_eq!(pool.recv(), Ok(true));
        assert_eq!(pool.stop_and_join(), [true, true]);
    });
}

#[test]
fn try_send_is_refused_when_the_buffer_is_full() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(3);
        assert_eq!(pool.buffer_length(), 3);
        let (told, outcome) = mpsc::channel();
        pool.execute(move |tx, rx| {
            let sent = (0..5).map(|number| tx.try_send(number)).collect::<Vec<_>>();
            told.send(sent).unwrap();
            rx.recv().unwrap();
            told.send(vec![tx.try_send(9), tx.try_send(10)]).unwrap();
        })
        .unwrap();
        let full = |number| Err(TrySendError::Full(number));
        assert_eq!(outcome.recv().unwrap(), [Ok(()), Ok(()), Ok(()), full(3), full(4)]);
        assert_eq!(pool.recv(), Ok(0), "and one read makes room for one");
        pool.broadcast_one(DownMsg::Other(())).unwrap();
        assert_eq!(outcome.recv().unwrap(), [Ok(()), full(10)]);
        assert_eq!(pool.stop_and_join(), [1, 2, 9]);
    });
}

#[test]
fn with_no_buffer_send_waits_for_the_manager() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(0);
        let (told, outcome) = mpsc::channel();
        pool.execute(move |tx, _rx| {
            told.send(tx.try_send(1)).unwrap();
            tx.send(2).unwrap();
            told.send(Ok(())).unwrap();
        })
        .unwrap();
        assert_eq!(outcome.recv().unwrap(), Err(TrySendError::Full(1)), "nobody waits");
        let waited = outcome.recv_timeout(Duration::from_millis(20));
        assert_eq!(waited, Err(mpsc::RecvTimeoutError::Timeout), "2 isn't taken");
        assert_eq!(pool.recv(), Ok(2));
        assert_eq!(outcome.recv().unwrap(), Ok(()));
    });
}

#[test]
fn with_no_buffer_try_send_finds_a_manager_that_waits() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(0);
        pool.execute(|tx, rx| {
            while tx.try_send(7).is_err() {
                let _ = try_recv_break!(rx);
                std::thread::yield_now();
            }
        })
        .unwrap();
        assert_eq!(pool.recv(), Ok(7));
    });
}

#[test]
fn one_that_floods_does_not_silence_the_others() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, ()> = WorkerPool::new(100);
        pool.execute(|tx, rx| {
            loop {
                let _ = try_recv_break!(rx);
                tx.send(0).unwrap();
            }
        })
        .unwrap();
        assert_eq!(pool.recv(), Ok(0));
        pool.execute(|tx, _rx| tx.send(1).unwrap()).unwrap();
        while pool.recv() != Ok(1) {}
    });
}

#[test]
fn the_manager_may_move_to_another_thread() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(1);
        pool.execute(|tx, rx| {
            loop {
                tx.send(recv_break!(rx)).unwrap();
            }
        })
        .unwrap();
        for number in 0..if cfg!(miri) { 3 } else { 20 } {
            pool = std::thread::spawn(move || {
                pool.broadcast_one(DownMsg::Other(number)).unwrap();
                assert_eq!(pool.recv(), Ok(number));
                pool
            })
            .join()
            .unwrap();
        }
    });
}

#[test]
#[should_panic(expected = "at most 16777216 are possible")]
fn a_buffer_beyond_the_limit_is_refused() {
    WorkerPool::<(), ()>::new(BUFFER_LENGTH_MAX + 1);
}
