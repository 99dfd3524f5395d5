//! Workers that are threads: a handler's panic costs its own job and no other.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use remuda_engine::{
    Code, End, Finished, NewJob, Pool, PoolConfig, ThreadHandler, WorkerKind, thread_slot,
};

/// A job's result, or its code and message.
type Ended = Result<String, (Code, String)>;

/// Runs `bodies` on a pool of `workers` threads: each result or failure, in the bodies' order, and
/// the pool's status at the end.
fn run_all(
    workers: u32,
    handler: ThreadHandler,
    bodies: Vec<String>,
) -> (Vec<Ended>, serde_json::Value) {
    remuda_net::run_local(remuda_net::Config::default(), async move {
        let mut config = PoolConfig::new(WorkerKind::Threads(handler));
        config.dispatch.num_workers = workers;
        config.dispatch.delivery = remuda_engine::Delivery::AT_LEAST_ONCE;
        let pool = Pool::start(config).unwrap();
        for (number, body) in bodies.iter().enumerate() {
            let body = Bytes::from(body.clone());
            pool.submit(NewJob { number: number as u64, body, text: false }).unwrap();
        }
        pool.flush();
        let mut ended: Vec<_> = bodies.iter().map(|_| None).collect();
        let mut finished = Finished::default();
        while ended.iter().any(Option::is_none) {
            assert!(pool.finished(&mut finished).await.unwrap());
            for job in finished.jobs.drain(..) {
                let result = match job.end {
                    End::Done { at, .. } => {
                        Ok(String::from_utf8(finished.bytes[at].to_vec()).unwrap())
                    }
                    End::Failed(failed) => Err((failed.code, failed.message)),
                };
                let before = ended[job.number as usize].replace(result);
                assert!(before.is_none(), "job {} ended twice", job.number);
            }
        }
        let status = pool.status();
        pool.shut_down();
        pool.drained().await.unwrap();
        (ended.into_iter().map(Option::unwrap).collect(), status)
    })
    .unwrap()
}

#[test]
fn a_panic_fails_its_job_alone_wherever_it_stands_in_a_batch() {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ran);
    let handler = ThreadHandler::new(move |body, out| {
        let number: u64 = body.as_str().parse().unwrap();
        seen.lock().unwrap().push(number);
        assert!(!number.is_multiple_of(97), "no multiple of 97: {number}");
        out.extend_from_slice(body.as_bytes());
        Ok(())
    });
    let (ended, status) = run_all(2, handler, (0..2000).map(|n: u64| n.to_string()).collect());
    for (number, result) in ended.iter().enumerate() {
        match number % 97 {
            0 => {
                let message = format!("the handler panicked: no multiple of 97: {number}");
                assert_eq!(result, &Err((Code::HandlerError, message)));
            }
            _ => assert_eq!(result, &Ok(number.to_string())),
        }
    }
    let ran = ran.lock().unwrap();
    assert_eq!(ran.len(), 2000, "each job ran once");
    assert_eq!(ran.iter().collect::<HashSet<_>>().len(), 2000);
    assert_eq!(status["jobs"]["retried"], 0);
    assert_eq!(status["threads_left_behind"], 0);
}

#[test]
fn a_thread_knows_its_slot_and_is_another_one_after_a_panic() {
    let handler = ThreadHandler::new(|body, out| {
        assert!(body.as_str() != "true", "on purpose");
        let thread = std::thread::current();
        let words = (thread.name(), thread_slot(), format!("{:?}", thread.id()));
        serde_json::to_writer(out, &words).map_err(|error| error.to_string())
    });
    let bodies = ["1", "true", "2"].map(str::to_owned).to_vec();
    let (ended, _) = run_all(1, handler, bodies);
    let words = |n: usize| -> (String, u32, String) {
        serde_json::from_str(ended[n].as_ref().unwrap()).unwrap()
    };
    assert_eq!((words(0).0, words(0).1), ("remuda-0".to_owned(), 0));
    assert_eq!((words(2).0, words(2).1), ("remuda-0".to_owned(), 0));
    assert_ne!(words(0).2, words(2).2);
    assert_eq!(ended[1], Err((Code::HandlerError, "the handler panicked: on purpose".into())));
}

#[test]
fn a_result_that_is_no_json_or_too_large_fails_its_job_and_line_breaks_are_taken_out() {
    let handler = ThreadHandler::new(|body, out| {
        match body.as_str() {
            "1" => out.extend_from_slice(b"{ no json"),
            "2" => out.extend_from_slice(b"{\n\"a\":\r\n1}"),
            "3" => out.resize(17 << 20, b'7'),
            "4" => return Err("said \"no\"".into()),
            _ => {}
        }
        Ok(())
    });
    let bodies = ["1", "2", "3", "4", "5"].map(str::to_owned).to_vec();
    let (ended, _) = run_all(1, handler, bodies);
    assert_eq!(ended[0].as_ref().unwrap_err().0, Code::HandlerError);
    assert_eq!(ended[1], Ok("{\"a\":1}".into()));
    assert_eq!(ended[2].as_ref().unwrap_err().0, Code::BodyTooLarge);
    assert_eq!(ended[3], Err((Code::HandlerError, "said \"no\"".into())));
    assert!(ended[4].as_ref().unwrap_err().1.contains("not one JSON value"));
}

#[test]
fn a_pool_that_is_dropped_waits_for_no_handler() {
    let handler = ThreadHandler::new(|_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    let since = std::time::Instant::now();
    remuda_net::run_local(remuda_net::Config::default(), async {
        let pool = Pool::start(PoolConfig::new(WorkerKind::Threads(handler))).unwrap();
        pool.submit(NewJob { number: 0, body: Bytes::from_static(b"1"), text: false }).unwrap();
        while pool.busy().0 == 0 {
            remuda_net::yield_now().await;
        }
    })
    .unwrap();
    assert!(since.elapsed() < Duration::from_secs(600));
}
