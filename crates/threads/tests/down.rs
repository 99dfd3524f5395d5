//! What the manager sends: to all, to the next, to one; pauses; the macros.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::never_loop, reason = "the loops of the macros' test end at once, which it shows")]

mod guard;

use guard::within_a_minute;
use remuda_threads::{DownMsg, WorkerId, WorkerPool};

fn echo(pool: &mut WorkerPool<u32, u32>, workers: usize) -> Vec<WorkerId> {
    pool.execute_many(workers, |tx, rx| {
        loop {
            tx.send(remuda_threads::recv_break!(rx)).unwrap();
        }
    })
    .unwrap()
}

#[test]
fn broadcast_reaches_every_worker() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(4);
        let workers = echo(&mut pool, 3);
        assert_eq!(pool.broadcast(DownMsg::Other(8)), 3);
        let mut heard = (0..3).map(|_| pool.recv_msg().unwrap()).collect::<Vec<_>>();
        heard.sort_by_key(|message| message.worker);
        assert!(heard.iter().all(|message| message.body == 8));
        assert_eq!(heard.iter().map(|message| message.worker).collect::<Vec<_>>(), workers);
    });
}

#[test]
fn broadcast_one_goes_round() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(4);
        let workers = echo(&mut pool, 3);
        let turns = (0..6).map(|_| pool.broadcast_one(DownMsg::Other(0)).unwrap());
        assert_eq!(turns.collect::<Vec<_>>(), [&workers[..], &workers[..]].concat());
        // A worker that is gone is passed over, and the others keep their turns.
        pool.detach(workers[1]).unwrap();
        let turns = (0..3).map(|_| pool.broadcast_one(DownMsg::Other(0)).unwrap());
        assert_eq!(turns.collect::<Vec<_>>(), [workers[0], workers[2], workers[0]]);
    });
}

#[test]
fn broadcast_one_gives_the_message_back_when_there_is_no_one() {
    within_a_minute(|| {
        let mut pool: WorkerPool<u32, u32> = WorkerPool::new(4);
        let refused = pool.broadcast_one(DownMsg::Other(5)).unwrap_err();
        assert_eq!(refused.0, DownMsg::Other(5));
        pool.execute(|_tx, _rx| ()).unwrap();
        assert!(pool.recv().is_err(), "it has ended");
        assert!(pool.broadcast_one(DownMsg::Other(5)).is_err());
    });
}

#[test]
fn get_finds_one_worker() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(4);
        let workers = echo(&mut pool, 2);
        pool.get(workers[1]).unwrap().send(DownMsg::Other(4)).unwrap();
        let answer = pool.recv_msg().unwrap();
        assert_eq!((answer.worker, answer.body), (workers[1], 4));
        assert_eq!(pool.get(0).unwrap().id(), workers[0], "by number too");
        assert_eq!(pool.get(1).unwrap().name(), "worker-1");
        assert!(!pool.get(1).unwrap().is_finished());
        assert!(pool.get(1).unwrap().sender().is_open());
        assert!(pool.get(2).is_none());
    });
}

#[test]
fn the_way_down_has_no_bound_and_keeps_its_order() {
    const COUNT: u32 = if cfg!(miri) { 40 } else { 100_000 };
    within_a_minute(|| {
        let mut pool = WorkerPool::new(1);
        echo(&mut pool, 1);
        (0..COUNT).for_each(|number| assert_eq!(pool.broadcast(DownMsg::Other(number)), 1));
        (0..COUNT).for_each(|number| assert_eq!(pool.recv(), Ok(number)));
    });
}

#[test]
fn a_paused_worker_does_nothing_until_it_goes_on() {
    within_a_minute(|| {
        let mut pool = WorkerPool::new(4);
        echo(&mut pool, 1);
        pool.broadcast(DownMsg::Pause);
        pool.broadcast(DownMsg::Other(1));
        pool.broadcast(DownMsg::Other(2));
        pool.broadcast(DownMsg::Continue);
        pool.broadcast(DownMsg::Pause);
        pool.broadcast(DownMsg::Other(3));
        // 1 and 2 come after the first pause, in order; 3 only once the second one is over.
        assert_eq!((pool.recv(), pool.recv()), (Ok(1), Ok(2)));
        assert_eq!(pool.recv_burst().next(), None);
        pool.broadcast(DownMsg::Continue);
        assert_eq!(pool.recv(), Ok(3));
    });
}

#[test]
fn recv_gives_every_message_as_it_is() {
    within_a_minute(|| {
        let mut pool: WorkerPool<DownMsg<u32>, u32> = WorkerPool::new(8);
        pool.execute(|tx, rx| {
            while let Ok(message) = rx.recv() {
                tx.send(message).unwrap();
            }
        })
        .unwrap();
        let sent = [DownMsg::Pause, DownMsg::Continue, DownMsg::Other(1)];
        sent.iter().for_each(|&message| assert_eq!(pool.broadcast(message), 1));
        assert_eq!(pool.stop_and_join(), [&sent[..], &[DownMsg::Stop]].concat());
    });
}

#[test]
fn the_macros_work_under_any_import_and_break_the_loop_that_is_meant() {
    use remuda_threads::{recv_break as next, try_recv_break as peek};

    // Names that the macros must not trip over.
    #[allow(dead_code)]
    enum Result {
        Ok,
        Err,
    }
    #[allow(dead_code)]
    struct Receiver;

    within_a_minute(|| {
        let mut pool: WorkerPool<&'static str, u32> = WorkerPool::new(8);
        pool.execute(|tx, rx| {
            let by_reference = &rx;
            let value = 'outer: loop {
                loop {
                    let _: u32 = next!(by_reference, 'outer => "value");
                }
            };
            tx.send(value).unwrap();
            let value = loop {
                let _: Option<u32> = peek!(rx => "peeked");
                break "not reached";
            };
            tx.send(value).unwrap();
            'labelled: loop {
                loop {
                    next!(rx, 'labelled);
                }
            }
        })
        .unwrap();
        pool.broadcast(DownMsg::Other(1));
        assert_eq!(pool.stop_and_join(), ["value", "peeked"]);
    });
}

#[test]
fn try_recv_break_gives_none_while_there_is_nothing() {
    within_a_minute(|| {
        let mut pool: WorkerPool<Option<u32>, u32> = WorkerPool::new(8);
        pool.execute(|tx, rx| {
            loop {
                let next = remuda_threads::try_recv_break!(rx);
                tx.send(next).unwrap();
            }
        })
        .unwrap();
        assert_eq!(pool.recv(), Ok(None));
        pool.broadcast(DownMsg::Pause);
        pool.broadcast(DownMsg::Other(6));
        pool.broadcast(DownMsg::Continue);
        while pool.recv().unwrap() != Some(6) {}
    });
}
