//! Which jobs run again when a worker is lost, and which end with it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod rig;

use remuda_dispatch::*;
use rig::*;

#[test]
fn an_ordered_worker_that_dies_costs_the_first_unanswered_job_alone() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.warm_up(10 * US);
    rig.submit_all(1..=5);
    let sent = rig.sent();
    assert_eq!(sent.len(), 5, "four were handed ahead: {sent:?}");
    rig.pass(10 * US);
    rig.reply(workers[0], sent[0].1, 1);
    rig.dies(workers[0]);
    let acts = rig.poll();
    assert!(matches!(
        acts[..],
        [Act::Done(1), Act::Failed(2, Code::WorkerLost, true), Act::Spawn(..)]
    ));
    // Those that were handed ahead come first, in their order, before one that came later.
    rig.submit(6);
    let Act::Spawn(next, ..) = acts[2] else { unreachable!() };
    rig.pool.ready(rig.now, next, SINGLE);
    for job in 3..=6 {
        let sent = rig.sent();
        assert_eq!(sent[0].2, [job]);
        rig.pass(S);
        rig.reply(next, sent[0].1, 1);
        assert_eq!(rig.pool.poll_action().map(|a| matches!(a, Action::Finish { .. })), Some(true));
    }
}

#[test]
fn an_unordered_worker_that_dies_costs_all_it_had() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), WIDE);
    rig.submit_all(1..=6);
    assert_eq!(rig.sent().len(), 4, "its capacity, and nothing ahead");
    rig.dies(workers[0]);
    let acts = rig.poll();
    let lost = acts.iter().filter(|act| matches!(act, Act::Failed(_, Code::WorkerLost, true)));
    assert_eq!(lost.count(), 4);
    assert_eq!(rig.pool.queued(), 2);
}

#[test]
fn at_least_once_runs_lost_jobs_again_until_their_tries_are_used_up() {
    let (mut rig, _) = Rig::ready(Config { poison_after: 0, ..config(1, retries(3)) }, SINGLE);
    rig.submit(1);
    for tries in 1..=3 {
        let (worker, _) = rig.sent_one();
        rig.dies(worker);
        if tries == 3 {
            break;
        }
        rig.pass(S);
        rig.start(SINGLE);
    }
    assert!(rig.poll().contains(&Act::Failed(1, Code::WorkerLost, true)));
    assert_eq!(rig.facts[0].1.tries, 3);
    assert_eq!(rig.pool.counters().retried, 2);
}

#[test]
fn an_error_is_tried_again_if_that_is_asked_for() {
    for (delivery, tries) in [(retries(2), 2), (Delivery::AT_LEAST_ONCE, 1)] {
        let (mut rig, _) = Rig::ready(config(1, delivery), SINGLE);
        rig.submit(1);
        for _ in 0..tries {
            let (worker, call) = rig.sent_one();
            rig.fail(worker, call, Code::HandlerError);
        }
        assert_eq!(rig.poll(), [Act::Failed(1, Code::HandlerError, true)]);
        assert_eq!(rig.facts[0].1.tries, tries);
    }
}

#[test]
fn a_job_that_kills_three_workers_is_poisoned() {
    let (mut rig, _) = Rig::ready(config(1, Delivery::AT_LEAST_ONCE), SINGLE);
    rig.submit(1);
    for _ in 0..2 {
        let (worker, _) = rig.sent_one();
        rig.dies(worker);
        rig.pass(S);
        rig.start(SINGLE);
    }
    let (worker, _) = rig.sent_one();
    rig.dies(worker);
    assert_eq!(rig.poll()[0], Act::Failed(1, Code::Poisoned, true));
}

#[test]
fn deaths_that_the_pool_caused_poison_nobody() {
    let (mut rig, _) = Rig::ready(config(1, retries(6)), SINGLE);
    let options = JobOptions { exec_timeout: Some(10 * MS), ..JobOptions::default() };
    rig.submit_with(1, options).unwrap();
    for tries in 1..=6 {
        let (worker, _) = rig.sent_one();
        rig.pass(10 * MS);
        let killed = rig.poll();
        let ended = tries == 6;
        assert!(killed.contains(&Act::Kill(worker, KillReason::ExecTimeout)));
        assert_eq!(killed.contains(&Act::Failed(1, Code::Timeout, true)), ended, "{killed:?}");
        rig.dies(worker);
        rig.pass(10 * S);
        rig.start(SINGLE);
    }
}

#[test]
fn of_a_wide_worker_that_dies_only_the_culprit_is_poisoned() {
    let (mut rig, _) = Rig::ready(config(1, Delivery::AT_LEAST_ONCE), WIDE);
    rig.submit_all(1..=4);
    let culprit = 3;
    let worker = rig.sent()[0].0;
    rig.dies(worker);
    let mut ended = Vec::new();
    for _ in 0..20 {
        rig.pass(S / 10);
        while let Some(action) = rig.pool.poll_action() {
            match action {
                Action::Spawn { worker, .. } => rig.pool.ready(rig.now, worker, WIDE),
                Action::Finish { payload, outcome, .. } => ended.push((payload.0, outcome)),
                Action::Send { worker, call } => {
                    let job = rig.pool.call(call).next().unwrap().0.0;
                    if job == culprit { rig.dies(worker) } else { rig.reply(worker, call, 1) }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    ended.sort_by_key(|(job, _)| *job);
    assert_eq!(ended.len(), 4);
    for (job, outcome) in ended {
        match outcome {
            Outcome::Done(_) => assert_ne!(job, culprit),
            Outcome::Failed { code, .. } => assert_eq!((job, code), (culprit, Code::Poisoned)),
        }
    }
}

#[test]
fn a_poisoned_body_is_refused_for_a_while() {
    let quarantine = Some(10 * S);
    let config = Config { quarantine, ..config(1, Delivery::AtMostOnce) };
    let (mut rig, _) = Rig::ready(config, SINGLE);
    for _ in 0..3 {
        rig.submit(66);
        let (worker, _) = rig.sent_one();
        rig.dies(worker);
        assert_eq!(rig.poll()[0], Act::Failed(66, Code::WorkerLost, true));
        rig.pass(S);
        rig.start(SINGLE);
    }
    assert_eq!(rig.submit_with(66, JobOptions::default()), Err(RefusedReason::Poisoned));
    assert!(rig.submit_with(67, JobOptions::default()).is_ok(), "another body is welcome");
    rig.pass(10 * S);
    assert!(rig.submit_with(66, JobOptions::default()).is_ok(), "it may try again later");
}

#[test]
fn a_worker_that_answers_what_it_was_not_asked_is_killed() {
    let (mut rig, workers) = Rig::ready(config(2, Delivery::AtMostOnce), SINGLE);
    rig.submit(1);
    rig.submit(2);
    let sent = rig.sent();
    let (worker, other) = (sent[0].0, &sent[1]);
    // The other worker's call is none of its own.
    let fault = rig.pool.replied(rig.now, worker, other.1, [Reply::Done(0)]);
    assert_eq!(fault, Err(Fault::UnknownCall));
    assert_eq!(rig.poll(), [Act::Kill(worker, KillReason::Fault(Fault::UnknownCall))]);
    // What it says afterwards doesn't count.
    assert_eq!(rig.pool.replied(rig.now, worker, sent[0].1, [Reply::Done(0)]), Ok(()));
    assert_eq!(rig.poll(), []);
    rig.dies(worker);
    assert_eq!(rig.poll()[0], Act::Failed(1, Code::WorkerLost, true));
    assert_eq!(rig.restarts(RestartReason::Fault), 1);
    // Answered twice.
    let (_, call, _) = other.clone();
    let good = if worker == workers[0] { workers[1] } else { workers[0] };
    rig.reply(good, call, 1);
    assert_eq!(rig.pool.replied(rig.now, good, call, [Reply::Done(0)]), Err(Fault::UnknownCall));
}

/// A job that each time makes its worker talk nonsense comes to an end, and the jobs that were with
/// that worker don't pay for it.
#[test]
fn a_job_that_always_breaks_the_protocol_is_poisoned() {
    let (mut rig, _) = Rig::ready(config(2, Delivery::AT_LEAST_ONCE), SINGLE);
    for _ in 0..10 {
        rig.warm_up(10 * US);
    }
    rig.submit_all(1..=40);
    let (mut ended, mut suspects) = (Vec::new(), Vec::<u64>::new());
    let mut calls = std::collections::VecDeque::new();
    while ended.len() < 40 {
        for act in rig.poll() {
            match act {
                Act::Spawn(worker, ..) => rig.pool.ready(rig.now, worker, SINGLE),
                Act::Send(worker, call, jobs) => {
                    for (of, _, other) in &calls {
                        let apart = !suspects.contains(other) && !suspects.contains(&jobs[0]);
                        assert!(*of != worker || apart, "{jobs:?} beside {other}");
                    }
                    calls.push_back((worker, call, jobs[0]));
                }
                Act::Kill(worker, _) => {
                    rig.dies(worker);
                    let had = calls.iter().filter(|(of, ..)| *of == worker);
                    suspects.extend(had.map(|(.., job)| *job));
                    calls.retain(|(of, ..)| *of != worker);
                }
                other => ended.push(other),
            }
        }
        rig.pass(10 * US);
        match calls.pop_front() {
            Some((worker, _, 7)) => rig.pool.faulted(rig.now, worker, Fault::Garbage),
            Some((worker, call, _)) => rig.reply(worker, call, 1),
            None => {}
        }
    }
    assert!(suspects.len() > 3, "nothing was handed ahead of the culprit's end");
    for act in ended {
        assert!(matches!(act, Act::Done(1..=40) | Act::Failed(7, Code::Poisoned, true)), "{act:?}");
    }
}

#[test]
fn an_ordered_worker_that_answers_out_of_order_is_killed() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.warm_up(10 * US);
    rig.submit(1);
    rig.submit(2);
    let sent = rig.sent();
    let fault = rig.pool.replied(rig.now, workers[0], sent[1].1, [Reply::Done(0)]);
    assert_eq!(fault, Err(Fault::OutOfOrder));
}

#[test]
fn the_link_to_an_attached_peer_comes_and_goes() {
    let mut rig = Rig::new(config(0, Delivery::AT_LEAST_ONCE));
    let peer = rig.pool.attach(rig.now);
    assert_eq!(rig.state(peer), Some(WorkerState::Away));
    rig.submit(1);
    assert_eq!(rig.poll(), []);
    rig.pool.ready(rig.now, peer, WIDE);
    let (_, call) = rig.sent_one();
    rig.pool.exited(rig.now, peer, Exit::Unknown);
    assert_eq!(rig.poll(), [], "it is not started again by the pool");
    assert_eq!(rig.pool.replied(rig.now, peer, call, [Reply::Done(0)]), Ok(()), "too late");
    rig.pool.ready(rig.now, peer, WIDE);
    let (_, call) = rig.sent_one();
    rig.reply(peer, call, 1);
    assert_eq!(rig.poll(), [Act::Done(1)]);
    rig.pool.detach(rig.now, peer);
    assert_eq!(rig.state(peer), None);
}

#[test]
fn a_peer_that_grows_gets_more_and_one_that_shrinks_less() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let peer = rig.pool.attach(rig.now);
    rig.pool.capacity_changed(rig.now, peer, 3);
    rig.pool.ready(rig.now, peer, Offer { capacity: 1, ..WIDE });
    rig.submit_all(1..=6);
    let mut calls: Vec<_> = rig.sent().iter().map(|sent| sent.1).collect();
    assert_eq!(calls.len(), 1, "what it offered counts, not what was told before");
    rig.pool.capacity_changed(rig.now, peer, 3);
    calls.extend(rig.sent().iter().map(|sent| sent.1));
    assert_eq!(calls.len(), 3);
    rig.pool.capacity_changed(rig.now, peer, 0);
    for call in &calls[..2] {
        rig.reply(peer, *call, 1);
    }
    assert_eq!(rig.poll(), [Act::Done(1), Act::Done(2)], "it has one, and takes one at least");
    rig.reply(peer, calls[2], 1);
    assert_eq!(rig.poll().len(), 2, "one is done and one is sent");
}

#[test]
fn what_a_peer_that_is_shutting_down_refuses_goes_elsewhere() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let peer = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, peer, WIDE);
    rig.submit(1);
    rig.submit(2);
    let calls: Vec<_> = rig.sent().iter().map(|sent| sent.1).collect();
    // The first was taken before it began to shut down.
    rig.fail(peer, calls[1], Code::Draining);
    assert_eq!(rig.poll(), [], "there is nobody else, and it is not asked again");
    assert_eq!(rig.state(peer), Some(WorkerState::Draining));
    rig.submit(3);
    assert_eq!(rig.poll(), []);
    rig.reply(peer, calls[0], 1);
    assert_eq!(rig.poll(), [Act::Done(1), Act::Stop(peer)], "its link is not needed any more");
    let other = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, other, WIDE);
    let sent = rig.sent();
    assert_eq!(sent.iter().map(|sent| sent.2[0]).collect::<Vec<_>>(), [2, 3], "in their order");
    assert_eq!(rig.pool.counters().retried, 0, "a job that nobody ran is not run again");
    rig.pool.exited(rig.now, other, Exit::Unknown);
    let lost = [Act::Failed(3, Code::WorkerLost, true), Act::Failed(2, Code::WorkerLost, true)];
    assert_eq!(rig.poll(), lost);
    // It is back, and takes jobs again.
    rig.pool.exited(rig.now, peer, Exit::Unknown);
    assert_eq!(rig.state(peer), Some(WorkerState::Away));
    rig.pool.ready(rig.now, peer, WIDE);
    rig.submit(4);
    assert_eq!(rig.sent_one().0, peer);
}

#[test]
fn what_a_peer_that_ended_gave_back_goes_elsewhere_and_costs_no_try() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let peer = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, peer, WIDE);
    for job in 1..=3 {
        rig.submit(job);
    }
    let calls: Vec<_> = rig.sent().iter().map(|sent| sent.1).collect();
    rig.reply(peer, calls[1], 1);
    rig.poll();
    rig.pool.gave_back(rig.now, peer);
    assert_eq!(rig.poll(), [], "it is not asked again");
    rig.pool.exited(rig.now, peer, Exit::Unknown);
    assert_eq!(rig.poll(), [], "nothing is lost with the link");
    let other = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, other, WIDE);
    let sent = rig.sent();
    assert_eq!(sent.iter().map(|sent| sent.2[0]).collect::<Vec<_>>(), [1, 3], "in their order");
    assert_eq!(rig.pool.counters().retried, 0);
    rig.reply(other, sent[0].1, 1);
    assert_eq!(rig.poll(), [Act::Done(1)]);
}

#[test]
fn what_a_peer_refuses_is_not_queued_by_a_pool_that_is_stopping_itself() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let peer = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, peer, WIDE);
    rig.submit(1);
    let (_, call) = rig.sent_one();
    rig.pool.drain(rig.now, Drain { queued: false, within: None });
    rig.fail(peer, call, Code::Draining);
    assert_eq!(rig.poll()[0], Act::Failed(1, Code::Draining, false));
}

#[test]
fn what_came_from_another_pool_does_not_wait_where_there_are_only_peers() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let one = Offer { capacity: 1, ..WIDE };
    let peers = [rig.pool.attach(rig.now), rig.pool.attach(rig.now)];
    let relayed = JobOptions { relayed: true, ..JobOptions::default() };
    rig.submit_with(1, relayed).unwrap();
    assert_eq!(rig.poll(), [], "nobody is there");
    for peer in peers {
        rig.pool.ready(rig.now, peer, one);
    }
    for job in 2..=4 {
        rig.submit(job);
    }
    let held = rig.sent();
    assert_eq!(held.len(), 2, "each peer has room for one");
    rig.submit_with(5, relayed).unwrap();
    rig.submit_with(6, relayed).unwrap();
    let passed: Vec<_> = rig.sent().iter().map(|sent| sent.0).collect();
    assert_eq!(passed.len(), 2, "these go at once");
    assert_ne!(passed[0], passed[1], "each to the one that has less");
    assert_eq!(rig.pool.snapshot(rig.now).queued, 2, "and the others wait for room");
    // With a worker of its own, a pool in a circle comes to an end by that.
    let mut rig = Rig::new(config(1, Delivery::AtMostOnce));
    rig.poll();
    let peer = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, peer, one);
    rig.submit(1);
    rig.submit_with(2, relayed).unwrap();
    assert_eq!(rig.sent().len(), 1);
}

#[test]
fn a_full_queue_is_an_answer() {
    let config = Config { max_queue_size: 2, ..config(1, Delivery::AtMostOnce) };
    let (mut rig, _) = Rig::ready(config, SINGLE);
    rig.submit(1);
    rig.submit(2);
    rig.submit(3); // The idle worker takes one of them.
    assert_eq!(rig.submit_with(4, JobOptions::default()), Err(RefusedReason::QueueFull));
    rig.sent_one();
    assert_eq!(rig.pool.room(), 0);
    assert_eq!(rig.submit_with(4, JobOptions::default()), Err(RefusedReason::QueueFull));
    assert_eq!(rig.pool.counters().failed(Code::QueueFull), 2);
}
