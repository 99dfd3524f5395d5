//! Threads that are replaced: by a panic that comes at once again, and while the pool stops or
//! resets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use bytes::Bytes;
use remuda_engine::{
    Code, Delivery, End, Finished, NewJob, Pool, PoolConfig, ThreadHandler, WorkerKind,
};

/// Jobs that are quick, so that some are handed ahead.
const WARM_UP: u64 = 200;

fn config(handler: ThreadHandler) -> PoolConfig {
    let mut config = PoolConfig::new(WorkerKind::Threads(handler));
    config.dispatch.num_workers = 1;
    config.dispatch.delivery = Delivery::AT_LEAST_ONCE;
    config
}

fn submit(pool: &Pool, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let body = Bytes::from(number.to_string());
        pool.submit(NewJob { number, body, text: false }).unwrap();
    }
    pool.flush();
}

/// Takes what has ended into `ended`, until there are so many.
async fn collect(pool: &Pool, ended: &mut HashMap<u64, Result<(), Code>>, until: usize) {
    let mut finished = Finished::default();
    while ended.len() < until {
        assert!(pool.finished(&mut finished).await.unwrap(), "{} of {until}", ended.len());
        for job in finished.jobs.drain(..) {
            let end = match job.end {
                End::Done { .. } => Ok(()),
                End::Failed(failed) => Err(failed.code),
            };
            assert!(ended.insert(job.number, end).is_none(), "job {} ended twice", job.number);
        }
    }
}

#[test]
fn a_thread_that_panics_as_soon_as_it_takes_anothers_place_is_replaced_again() {
    const PANICS: std::ops::Range<u64> = WARM_UP..WARM_UP + 40;
    let ran: Arc<Mutex<Vec<(u64, ThreadId)>>> = Arc::default();
    let seen = Arc::clone(&ran);
    let handler = ThreadHandler::new(move |body, out| {
        let number: u64 = body.as_str().parse().unwrap();
        seen.lock().unwrap().push((number, std::thread::current().id()));
        assert!(!PANICS.contains(&number), "on purpose");
        out.push(b'0');
        Ok(())
    });
    remuda_net::run_local(remuda_net::Config::default(), async move {
        let pool = Pool::start(config(handler)).unwrap();
        let mut ended = HashMap::new();
        submit(&pool, 0..WARM_UP);
        collect(&pool, &mut ended, WARM_UP as usize).await;
        submit(&pool, WARM_UP..PANICS.end + 40);
        collect(&pool, &mut ended, PANICS.end as usize + 40).await;
        for (number, end) in &ended {
            let expected = if PANICS.contains(number) { Err(Code::HandlerError) } else { Ok(()) };
            assert_eq!(*end, expected, "job {number}");
        }
        let status = pool.status();
        assert_eq!(status["workers"].as_array().unwrap().len(), 1, "{status:#}");
        assert_eq!(status["threads_left_behind"], 0);
        pool.shut_down();
        pool.drained().await.unwrap();
    })
    .unwrap();
    let ran = ran.lock().unwrap();
    let mut numbers: Vec<u64> = ran.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..PANICS.end + 40), "each job ran once");
    // Each panic was a thread's last job.
    for (at, (number, thread)) in ran.iter().enumerate() {
        if PANICS.contains(number) {
            assert!(ran[at + 1..].iter().all(|(_, later)| later != thread), "job {number}");
        }
    }
}

/// A job panics, and `disturb` happens so many turns of the runtime later: the thread has not been
/// told yet, is being replaced, or was.
fn disturbed(turns: usize, disturb: impl Fn(&Pool) + 'static) {
    let (tell, panics) = std::sync::mpsc::channel();
    let handler = ThreadHandler::new(move |body, out| {
        if body.as_str() == WARM_UP.to_string() {
            tell.send(()).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        out.push(b'0');
        Ok(())
    });
    remuda_net::run_local(remuda_net::Config::default(), async move {
        let pool = Pool::start(config(handler)).unwrap();
        let mut ended = HashMap::new();
        submit(&pool, 0..WARM_UP);
        collect(&pool, &mut ended, WARM_UP as usize).await;
        // The first of these panics; the others were handed to its thread, or wait for it.
        submit(&pool, WARM_UP..WARM_UP + 20);
        panics.recv().unwrap();
        for _ in 0..turns {
            remuda_net::yield_now().await;
        }
        disturb(&pool);
        collect(&pool, &mut ended, WARM_UP as usize + 20).await;
        for (number, end) in ended {
            let expected = if number == WARM_UP { Err(Code::HandlerError) } else { Ok(()) };
            assert_eq!(end, expected, "job {number}, disturbed after {turns} turns");
        }
        pool.shut_down();
        pool.drained().await.unwrap();
        // One that was still starting then is left behind, and ends by itself.
        while pool.status()["threads_left_behind"] != 0 {
            remuda_net::yield_now().await;
        }
    })
    .unwrap();
}

#[test]
fn a_stop_at_any_point_of_a_replacement_finishes_what_was_accepted() {
    for turns in 0..60 {
        disturbed(turns, Pool::shut_down);
    }
}

#[test]
fn a_reset_at_any_point_of_a_replacement_costs_no_job() {
    for turns in 0..60 {
        disturbed(turns, |pool| pool.reset().unwrap());
    }
}
