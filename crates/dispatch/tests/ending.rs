//! Reset, drain and stop.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod rig;

use remuda_dispatch::*;
use rig::*;

fn amo(num_workers: u32) -> Config {
    config(num_workers, Delivery::AtMostOnce)
}

#[test]
fn a_reset_replaces_all_one_at_a_time_and_without_a_gap() {
    let (mut rig, workers) = Rig::ready(amo(3), SINGLE);
    rig.submit_all(1..=3);
    let calls = rig.sent();
    assert_eq!(rig.pool.reset(rig.now), Ok(1));
    assert_eq!(rig.pool.reset(rig.now), Err(ResetRefused::Resetting));
    for (slot, old) in workers.iter().enumerate() {
        let acts = rig.poll();
        let [Act::Spawn(new, of, 1)] = acts[..] else { panic!("{acts:?}") };
        assert_eq!(of as usize, slot);
        assert_eq!(rig.state(*old), Some(WorkerState::Busy), "it serves on");
        rig.pool.ready(rig.now, new, SINGLE);
        assert_eq!(rig.poll(), [], "the old one finishes its job first");
        let (_, call, jobs) = calls.iter().find(|(worker, ..)| worker == old).unwrap();
        rig.reply(*old, *call, 1);
        assert_eq!(rig.poll(), [Act::Done(jobs[0]), Act::Stop(*old)]);
        rig.pool.exited(rig.now, *old, Exit::Status(0));
    }
    assert_eq!(rig.poll(), [Act::ResetDone(1)]);
    assert_eq!(rig.restarts(RestartReason::Reset), 3);
    assert_eq!(rig.pool.snapshot(rig.now).generation, 1);
    assert_eq!(rig.pool.counters().failed, [0; 14]);
}

/// Sixty-four callers, each of whom asks again at once, and ten resets meanwhile: nobody fails, and
/// at no moment are fewer workers ready than there should be.
#[test]
fn nobody_notices_a_reset_under_load() {
    let (mut rig, _) = Rig::ready(amo(3), SINGLE);
    let mut calls = std::collections::VecDeque::new();
    let (mut next, mut done, mut resets) = (0, 0, 0);
    while resets < 10 {
        while next - done < 64 {
            rig.submit(next);
            next += 1;
        }
        if !rig.pool.snapshot(rig.now).resetting {
            rig.pool.reset(rig.now).unwrap();
        }
        for act in rig.poll() {
            match act {
                Act::Spawn(worker, ..) => calls.push_back((worker, None)),
                Act::Send(worker, call, _) => calls.push_back((worker, Some(call))),
                Act::Stop(worker) => rig.pool.exited(rig.now, worker, Exit::Status(0)),
                Act::Done(_) => done += 1,
                Act::ResetDone(_) => resets += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(rig.pool.snapshot(rig.now).ready(), 3);
        rig.now += 20 * US;
        match calls.pop_front() {
            Some((worker, Some(call))) => rig.reply(worker, call, 1),
            Some((worker, None)) => rig.pool.ready(rig.now, worker, SINGLE),
            None => {}
        }
    }
    assert_eq!(rig.pool.counters().failed, [0; 14]);
    assert_eq!(rig.restarts(RestartReason::Reset), 30);
    assert!(done > 300);
}

#[test]
fn a_reset_whose_workers_do_not_start_leaves_the_old_ones() {
    let (mut rig, workers) = Rig::ready(amo(2), SINGLE);
    rig.warm_up(MS);
    rig.pool.reset(rig.now).unwrap();
    let new = rig.spawned()[0];
    rig.pool.start_failed(rig.now, new);
    assert_eq!(rig.poll(), [Act::ResetFailed(1, Some(new), 0)]);
    for &old in &workers {
        assert_eq!(rig.state(old), Some(WorkerState::Idle));
    }
    // One that dies later is started with the set-up that is known to work.
    for old in workers {
        rig.dies(old);
    }
    rig.pass(S);
    let acts = rig.poll();
    assert!(matches!(acts[..], [Act::Spawn(_, _, 0), Act::Spawn(_, _, 0)]), "{acts:?}");
    assert_eq!(rig.pool.reset(rig.now), Ok(2), "and it can be tried again");
}

#[test]
fn a_reset_gives_up_after_reset_timeout() {
    let (mut rig, _) = Rig::ready(Config { reset_timeout: 5 * S, ..amo(1) }, SINGLE);
    rig.pool.reset(rig.now).unwrap();
    let new = rig.spawned()[0];
    rig.pass(5 * S);
    assert_eq!(rig.poll(), [Act::Kill(new, KillReason::AllocateTimeout)]);
    rig.dies(new);
    assert_eq!(rig.poll(), [Act::ResetFailed(1, Some(new), 0)]);
}

#[test]
fn a_reset_outlives_the_death_of_the_worker_that_it_replaces() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.pool.reset(rig.now).unwrap();
    let new = rig.spawned()[0];
    rig.dies(workers[0]);
    assert_eq!(rig.poll(), [], "the new one is on its way");
    rig.pool.ready(rig.now, new, SINGLE);
    assert_eq!(rig.poll(), [Act::ResetDone(1)]);
    rig.submit(1);
    assert_eq!(rig.sent_one().0, new);
}

#[test]
fn a_reset_starts_what_backoff_holds_back() {
    let mut rig = Rig::new(amo(1));
    let first = rig.spawned()[0];
    rig.pool.start_failed(rig.now, first);
    assert_eq!(rig.poll(), []);
    rig.pool.reset(rig.now).unwrap();
    let new = rig.spawned()[0];
    rig.pool.ready(rig.now, new, SINGLE);
    assert_eq!(rig.poll(), [Act::ResetDone(1)]);
}

#[test]
fn a_drain_finishes_what_was_accepted() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.submit_all(1..=2);
    let (_, call) = rig.sent_one();
    rig.pool.drain(rig.now, Drain { queued: true, within: Some(10 * S) });
    assert_eq!(rig.submit_with(3, JobOptions::default()), Err(RefusedReason::Draining));
    assert_eq!(rig.pool.reset(rig.now), Err(ResetRefused::Draining));
    rig.reply(workers[0], call, 1);
    let acts = rig.poll();
    let [Act::Done(1), Act::Send(_, call, _)] = acts[..] else { panic!("{acts:?}") };
    rig.reply(workers[0], call, 1);
    assert_eq!(rig.poll(), [Act::Done(2), Act::Stop(workers[0])]);
    rig.pool.exited(rig.now, workers[0], Exit::Status(0));
    assert_eq!(rig.poll(), [Act::Drained]);
    assert_eq!(rig.poll(), []);
    assert_eq!(rig.pool.next_tick(), None);
}

#[test]
fn a_drain_may_drop_what_is_queued() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.submit_all(1..=2);
    let (_, call) = rig.sent_one();
    rig.pool.drain(rig.now, Drain { queued: false, within: None });
    assert_eq!(rig.poll(), [Act::Failed(2, Code::Draining, false)]);
    rig.reply(workers[0], call, 1);
    assert_eq!(rig.poll(), [Act::Done(1), Act::Stop(workers[0])]);
}

#[test]
fn a_drain_that_takes_too_long_is_a_stop() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.submit_all(1..=2);
    rig.sent_one();
    rig.pool.drain(rig.now, Drain { queued: true, within: Some(10 * S) });
    rig.pass(10 * S);
    let killed = Act::Kill(workers[0], KillReason::Stopped);
    assert_eq!(rig.poll(), [Act::Failed(2, Code::Draining, false), killed]);
    rig.dies(workers[0]);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::WorkerLost, true), Act::Drained]);
}

#[test]
fn a_drain_starts_workers_anew_while_jobs_are_left() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.warm_up(MS);
    rig.submit_all(1..=2);
    rig.sent_one();
    rig.pool.drain(rig.now, Drain { queued: true, within: None });
    rig.dies(workers[0]);
    let acts = rig.poll();
    assert!(matches!(acts[..], [Act::Failed(1, ..), Act::Spawn(..)]), "{acts:?}");
    let Act::Spawn(worker, ..) = acts[1] else { unreachable!() };
    rig.pool.ready(rig.now, worker, SINGLE);
    let (_, call) = rig.sent_one();
    rig.reply(worker, call, 1);
    assert_eq!(rig.poll(), [Act::Done(2), Act::Stop(worker)]);
    rig.dies(worker);
    assert_eq!(rig.poll(), [Act::Drained]);
}

#[test]
fn a_stop_kills_what_runs_and_lets_attached_peers_go() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    let peer = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, peer, CANCELLING);
    rig.submit_all(1..=3);
    let sent = rig.sent();
    let call = sent.iter().find(|(worker, ..)| *worker == peer).unwrap();
    rig.pool.stop_now(rig.now);
    let acts = rig.poll();
    assert!(acts.contains(&Act::Failed(3, Code::Draining, false)));
    assert!(acts.contains(&Act::Kill(workers[0], KillReason::Stopped)));
    assert!(acts.contains(&Act::Cancel(peer, call.1)));
    assert!(acts.contains(&Act::Stop(peer)));
    assert!(acts.contains(&Act::Failed(call.2[0], Code::WorkerLost, true)));
    rig.dies(workers[0]);
    assert_eq!(rig.poll().last(), Some(&Act::Drained));
}

#[test]
fn a_pool_without_workers_drains_at_once() {
    let mut rig = Rig::new(amo(0));
    rig.submit(1);
    rig.pool.drain(rig.now, Drain { queued: false, within: None });
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Draining, false), Act::Drained]);
}

#[test]
fn a_drain_ends_a_reset() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.pool.reset(rig.now).unwrap();
    let new = rig.spawned()[0];
    rig.pool.drain(rig.now, Drain { queued: true, within: None });
    let acts = rig.poll();
    assert!(acts.contains(&Act::ResetFailed(1, None, 0)));
    assert!(acts.contains(&Act::Kill(new, KillReason::Stopped)));
    assert!(acts.contains(&Act::Stop(workers[0])));
}
