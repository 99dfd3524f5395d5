//! The runtime's blocking work on threads of `remuda-threads`, as the pool configures it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use remuda_engine::{BLOCKING_QUEUE, BLOCKING_THREADS, net_config};
use remuda_net::{BlockingHandle, NetError, run_local, spawn_blocking};

fn thread_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

async fn all<T>(handles: Vec<BlockingHandle<T>>) -> Vec<Result<T, NetError>> {
    let mut ended = Vec::new();
    for handle in handles {
        ended.push(handle.await);
    }
    ended
}

#[test]
fn blocking_work_runs_on_threads_of_its_own_so_many_at_once() {
    run_local(net_config(), async {
        // All of them meet: each has a thread.
        let barrier = Arc::new(Barrier::new(BLOCKING_THREADS));
        let meet = |_| {
            let barrier = Arc::clone(&barrier);
            spawn_blocking(move || {
                barrier.wait();
                (thread_name(), std::thread::current().id())
            })
        };
        let ended = all((0..BLOCKING_THREADS).map(meet).collect()).await;
        let ended: Vec<_> = ended.into_iter().map(Result::unwrap).collect();
        assert!(ended.iter().all(|(name, _)| name == "remuda-blocking"), "{ended:?}");
        // The same threads run what comes later.
        for _ in 0..100 {
            let later = spawn_blocking(|| std::thread::current().id()).await.unwrap();
            assert!(ended.iter().any(|(_, id)| *id == later));
        }
    })
    .unwrap();
}

#[test]
fn a_panic_costs_its_own_job_alone() {
    run_local(net_config(), async {
        for number in 0..20 {
            let handle = spawn_blocking(move || {
                assert!(number % 2 == 0, "on purpose");
                number
            });
            match handle.await {
                Ok(result) => assert_eq!((result, number % 2), (number, 0)),
                Err(error) => assert!(matches!(error, NetError::Blocking) && number % 2 == 1),
            }
        }
    })
    .unwrap();
}

/// Jobs that run until the sender is dropped; gives how to wait until one more runs.
fn held() -> (Sender<()>, impl Fn() -> BlockingHandle<()>, Receiver<()>) {
    let (hold, held) = channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (tell, told) = channel();
    let start = move || {
        let (held, tell) = (Arc::clone(&held), tell.clone());
        spawn_blocking(move || {
            tell.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
        })
    };
    (hold, start, told)
}

#[test]
fn what_finds_the_queue_full_is_refused_and_the_rest_runs() {
    run_local(net_config(), async {
        let (hold, start, told) = held();
        let running: Vec<_> = (0..BLOCKING_THREADS).map(|_| start()).collect();
        (0..BLOCKING_THREADS).for_each(|_| told.recv().unwrap());
        let waiting: Vec<_> = (0..BLOCKING_QUEUE).map(|_| start()).collect();
        assert!(matches!(start().await, Err(NetError::Blocking)));
        drop(hold);
        assert!(all(running).await.iter().all(Result::is_ok));
        assert!(all(waiting).await.iter().all(Result::is_ok));
    })
    .unwrap();
}

#[test]
fn a_runtime_that_ends_waits_for_no_blocking_work() {
    let (hold, held) = channel::<()>();
    let (tell, ended) = channel();
    let since = Instant::now();
    run_local(net_config(), async {
        let (begin, begun) = channel();
        let mut handle = pin!(spawn_blocking(move || {
            begin.send(()).unwrap();
            let _ = held.recv_timeout(Duration::from_secs(3600));
            tell.send(()).unwrap();
        }));
        begun.recv().unwrap();
        poll_fn(|context| {
            assert!(handle.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    })
    .unwrap();
    assert!(since.elapsed() < Duration::from_secs(600));
    // It runs on, to its end.
    drop(hold);
    ended.recv().unwrap();
}
