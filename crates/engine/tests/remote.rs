//! Jobs from other threads: each is answered, refused or cancelled, whatever the other side does.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use remuda_engine::{
    Code, Health, Pool, PoolConfig, REMOTE_REQUESTS_LIMIT, Remote, ThreadHandler, WorkerKind,
};

fn echo() -> ThreadHandler {
    ThreadHandler::new(|body, out| {
        out.extend_from_slice(body.as_bytes());
        Ok(())
    })
}

/// A handler that tells of each job, then waits until it may go on.
fn gated() -> (ThreadHandler, Receiver<String>, Sender<()>) {
    let ((began, begun), (go, may_go)) = (channel(), channel());
    let (began, may_go) = (Mutex::new(began), Mutex::new(may_go));
    let handler = ThreadHandler::new(move |body, out| {
        began.lock().unwrap().send(body.as_str().to_owned()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
        out.extend_from_slice(body.as_bytes());
        Ok(())
    });
    (handler, begun, go)
}

/// Runs a pool with one worker, and `program` on a thread of its own beside it.
fn beside<T: Send + 'static>(
    handler: ThreadHandler,
    program: impl FnOnce(Remote) -> T + Send + 'static,
) -> T {
    remuda_net::run_local(remuda_net::Config::default(), async move {
        let mut config = PoolConfig::new(WorkerKind::Threads(handler));
        config.dispatch.num_workers = 1;
        let pool = Pool::start(config).unwrap();
        let remote = pool.remote();
        let (told, ended) = remuda_net::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let value = program(remote);
            // The receiver waits until this is sent.
            let _ = told.send(());
            value
        });
        ended.await.ok();
        let value = thread.join().expect("the program beside the pool");
        pool.shut_down();
        pool.drained().await.unwrap();
        value
    })
    .unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn each_of_many_threads_gets_its_own_results() {
    beside(echo(), |remote| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let remote = remote.clone();
                std::thread::spawn(move || {
                    for number in 0..200 {
                        let body = format!("[{thread},{number}]");
                        let result = remote.call(Bytes::from(body.clone()), None).wait();
                        assert_eq!(result.unwrap(), body);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let status = wait(remote.status()).unwrap();
        assert_eq!(status["jobs"]["done"], 800);
        let health = wait(remote.health()).unwrap();
        assert_eq!(health, Health { accepting: true, ready_workers: 1 });
    });
}

#[test]
fn a_failure_says_why() {
    let handler = ThreadHandler::new(|_, _| Err("no such thing".to_owned()));
    beside(handler, |remote| {
        let error = remote.call(Bytes::from_static(b"1"), None).wait().unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::HandlerError, "no such thing"));
        assert!(error.may_have_run);
        let large = Bytes::from(vec![b'1'; remote.max_body_bytes() + 1]);
        let error = remote.call(large, None).wait().unwrap_err();
        assert_eq!(error.code, Code::BodyTooLarge);
        assert!(!error.may_have_run);
    });
}

#[test]
fn a_reply_that_is_dropped_cancels_its_job() {
    let (handler, begun, go) = gated();
    beside(handler, move |remote| {
        let first = remote.call(Bytes::from_static(b"\"first\""), None);
        assert_eq!(begun.recv().unwrap(), "\"first\"");
        let dropped = remote.call(Bytes::from_static(b"\"dropped\""), None);
        // It is in the queue once the status that was asked for later is there.
        assert_eq!(wait(remote.status()).unwrap()["queued"], 1);
        drop(dropped);
        assert_eq!(wait(remote.status()).unwrap()["jobs"]["failed"]["cancelled"], 1);
        // One that is dropped before the pool's thread has seen it never is a job, or is cancelled.
        for _ in 0..100 {
            drop(remote.call(Bytes::from_static(b"\"dropped\""), None));
        }
        let last = remote.call(Bytes::from_static(b"\"last\""), None);
        go.send(()).unwrap();
        assert_eq!(first.wait().unwrap(), "\"first\"");
        assert_eq!(begun.recv().unwrap(), "\"last\"");
        go.send(()).unwrap();
        assert_eq!(last.wait().unwrap(), "\"last\"");
        let status = wait(remote.status()).unwrap();
        assert_eq!((&status["jobs"]["done"], &status["queued"]), (&2.into(), &0.into()));
    });
}

#[test]
fn time_is_up_in_the_queue_too() {
    let (handler, begun, go) = gated();
    beside(handler, move |remote| {
        let first = remote.call(Bytes::from_static(b"1"), None);
        begun.recv().unwrap();
        let late = remote.call(Bytes::from_static(b"2"), Some(Duration::from_millis(20)));
        let error = late.wait().unwrap_err();
        assert!(matches!(error.code, Code::Timeout | Code::QueueTimeout), "{error}");
        assert!(!error.may_have_run);
        go.send(()).unwrap();
        assert_eq!(first.wait().unwrap(), "1");
    });
}

#[test]
fn too_many_on_their_way_are_refused_at_once() {
    let refused = remuda_net::run_local(remuda_net::Config::default(), async {
        let mut config = PoolConfig::new(WorkerKind::Threads(echo()));
        config.dispatch.num_workers = 1;
        let pool = Pool::start(config).unwrap();
        let remote = pool.remote();
        // The pool's thread is this one: it takes nothing meanwhile.
        let call = || remote.call(Bytes::from_static(b"1"), None);
        let taken: Vec<_> = (0..REMOTE_REQUESTS_LIMIT).map(|_| call()).collect();
        let refused = call().wait().unwrap_err();
        for reply in taken {
            assert_eq!(reply.await.unwrap(), "1");
        }
        refused
    })
    .unwrap();
    assert_eq!(refused.code, Code::QueueFull);
    assert!(!refused.may_have_run);
}

#[test]
fn a_pool_that_is_gone_answers_nobody() {
    let (remote, pending) = remuda_net::run_local(remuda_net::Config::default(), async {
        let pool = Pool::start(PoolConfig::new(WorkerKind::Threads(echo()))).unwrap();
        let remote = pool.remote();
        let pending = remote.call(Bytes::from_static(b"1"), None);
        (remote, pending)
    })
    .unwrap();
    assert_eq!(pending.wait().unwrap_err().code, Code::Draining);
    assert_eq!(
        remote.call(Bytes::from_static(b"1"), None).wait().unwrap_err().code,
        Code::Draining
    );
    assert_eq!(wait(remote.health()), None);
    assert_eq!(wait(remote.status()), None);
}
