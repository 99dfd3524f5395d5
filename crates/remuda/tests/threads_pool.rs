//! `Pool::threads` and jobs that take too long: a thread can't be killed, so it is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use remuda::engine::{Code, ThreadHandler};
use remuda::{Pool, PoolConfig, WorkerKind};
use serde_json::Value;

/// Lets handlers go on, one by one.
#[derive(Default)]
struct Gate {
    passes: Mutex<usize>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut passes = self.opened.wait_while(self.passes.lock().unwrap(), |n| *n == 0).unwrap();
        *passes -= 1;
    }

    fn open(&self, passes: usize) {
        *self.passes.lock().unwrap() += passes;
        self.opened.notify_all();
    }
}

fn status(pool: &Pool) -> Value {
    let asked = pool.remote().status();
    remuda::net::run_local(remuda::net::Config::default(), asked).unwrap().unwrap()
}

/// Asks until so many threads are left behind: the pool hears of one that ends by itself.
fn until_left_behind(pool: &Pool, count: usize) -> Value {
    loop {
        let status = status(pool);
        if status["threads_left_behind"] == count {
            return status;
        }
        std::thread::yield_now();
    }
}

#[test]
fn jobs_over_their_time_leave_threads_behind_and_as_many_as_num_workers_are_replaced() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let handler = ThreadHandler::new(move |body, out| {
        if body.as_str() == "\"hold\"" {
            held.wait();
        }
        out.extend_from_slice(body.as_bytes());
        Ok(())
    });
    let mut config = PoolConfig::new(WorkerKind::Threads(handler));
    config.dispatch.num_workers = 2;
    config.dispatch.supervisor.exec_ttl = Some(Duration::from_secs(3));
    let pool = Pool::start(config).unwrap();
    assert_eq!(pool.call::<_, u32>(&7).unwrap(), 7);
    assert_eq!(status(&pool)["threads_left_behind"], 0);

    // Two are left behind, and two take their places.
    let hold_two = || {
        let replies = [(); 2].map(|()| pool.remote().call("\"hold\"".into(), None));
        for reply in replies {
            let error = reply.wait().unwrap_err();
            assert_eq!((error.code, error.may_have_run), (Code::Timeout, true), "{error}");
        }
    };
    hold_two();
    assert_eq!(pool.call::<_, u32>(&8).unwrap(), 8);
    assert_eq!(status(&pool)["threads_left_behind"], 2);

    // Two more are left behind. Nobody takes their places while more than two are.
    hold_two();
    let after = until_left_behind(&pool, 4);
    let is_starting = |worker: &Value| worker["state"] == "starting";
    assert!(after["workers"].as_array().unwrap().iter().all(is_starting), "{after:#}");
    let waiting = pool.remote().call("9".into(), None);
    gate.open(1);
    let after = until_left_behind(&pool, 3);
    assert!(after["workers"].as_array().unwrap().iter().all(is_starting), "{after:#}");

    // Once another has ended, they start, and what has waited runs.
    gate.open(1);
    assert_eq!(waiting.wait().unwrap(), "9");
    until_left_behind(&pool, 2);
    gate.open(2);
    until_left_behind(&pool, 0);
    assert_eq!(pool.call::<_, u32>(&10).unwrap(), 10);
}
