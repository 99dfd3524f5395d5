//! `remuda::Pool`: a pool in a Rust program, called from any of its threads.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda::engine::Code;
use remuda::{CallError, Pool, RawValue, StartError};

#[test]
fn many_threads_call_one_pool_and_each_gets_its_own_result() {
    let pool =
        Pool::threads(2, |body: &RawValue| body.get().parse::<u64>().map(|n| n * 2)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..200 {
                    let number = thread * 1000 + n;
                    assert_eq!(pool.call::<_, u64>(&number).unwrap(), number * 2);
                }
            });
        }
    });
}

#[test]
fn a_failure_and_a_panic_come_to_their_caller_and_the_pool_goes_on() {
    let pool = Pool::threads(1, |body: &RawValue| match body.get() {
        "1" => Err("one is no good"),
        "2" => panic!("two is worse"),
        _ => Ok(7),
    })
    .unwrap();
    let failed = |body: u32| match pool.call::<_, u32>(&body) {
        Err(CallError::Job(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(1).code, Code::HandlerError);
    assert_eq!(failed(1).message, "one is no good");
    assert_eq!(failed(2).message, "the handler panicked: two is worse");
    assert!(failed(2).may_have_run);
    assert_eq!(pool.call::<_, u32>(&3).unwrap(), 7);
    assert!(matches!(pool.call::<_, String>(&3), Err(CallError::Result(_))));
}

#[test]
fn dropping_the_pool_finishes_what_it_has_and_a_handle_then_says_that_it_is_gone() {
    let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
    let pool = Pool::threads(1, move |_: &RawValue| {
        begun.send(()).map_err(|error| error.to_string())?;
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok::<_, String>("done")
    })
    .unwrap();
    let remote = pool.remote().clone();
    let reply = remote.call("null".into(), None);
    has_begun.recv().unwrap();
    drop(pool);
    assert_eq!(&reply.wait().unwrap()[..], b"\"done\"");
    assert_eq!(remote.call("null".into(), None).wait().unwrap_err().code, Code::Draining);
}

#[test]
fn options_that_cannot_be_are_refused_at_the_start() {
    let handler = |_: &RawValue| Ok::<_, String>(());
    assert!(matches!(Pool::threads(1_000_000, handler), Err(StartError::Pool(_))));
}
