//! Which job goes to which worker, how many ahead of their turn, and how many at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod rig;

use remuda_dispatch::*;
use rig::*;

#[test]
fn nothing_is_handed_ahead_before_the_service_time_is_known() {
    let (mut rig, _) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.submit_all(1..=10);
    assert_eq!(rig.sent().len(), 1);
}

#[test]
fn the_worker_that_is_named_idle_gets_the_next_job() {
    let (mut rig, _) = Rig::ready(config(3, Delivery::AtMostOnce), SINGLE);
    for job in 1..=3 {
        let named = rig.pool.next_idle();
        rig.submit(job);
        assert_eq!(rig.pool.next_idle(), None, "it is the job's that waits");
        let (worker, _) = rig.sent_one();
        assert_eq!(named, Some(worker));
    }
    assert_eq!(rig.pool.next_idle(), None, "all are busy");
}

#[test]
fn outcomes_are_polled_without_handing_out_what_waits() {
    let (mut rig, _) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.submit_all(1..=2);
    let (worker, call) = rig.sent_one();
    rig.reply(worker, call, 1);
    assert!(matches!(rig.pool.poll_outcome(), Some(Action::Finish { .. })));
    assert!(rig.pool.poll_outcome().is_none(), "the second job waits");
    assert_eq!(rig.sent().len(), 1);
}

#[test]
fn at_most_two_hundred_microseconds_are_handed_ahead() {
    for (service, ahead) in [(US, 32), (10 * US, 20), (100 * US, 2), (201 * US, 0)] {
        let (mut rig, _) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
        rig.warm_up(service);
        rig.submit_all(1..=100);
        assert_eq!(rig.sent().len(), 1 + ahead, "of jobs that take {service:?}");
    }
}

#[test]
fn nothing_is_handed_ahead_behind_a_long_job() {
    let (mut rig, _) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.warm_up(10 * US);
    rig.submit(1);
    rig.sent_one();
    rig.pass(201 * US);
    rig.submit(2);
    assert_eq!(rig.sent(), []);
}

#[test]
fn nothing_is_handed_ahead_while_another_worker_is_idle() {
    let (mut rig, _) = Rig::ready(config(4, Delivery::AtMostOnce), SINGLE);
    for _ in 0..10 {
        rig.warm_up(10 * US);
    }
    rig.submit_all(1..=4);
    let mut workers: Vec<_> = rig.sent().into_iter().map(|(worker, ..)| worker).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 4);
}

#[test]
fn what_is_handed_ahead_is_spread_over_the_workers() {
    let (mut rig, workers) = Rig::ready(config(2, Delivery::AtMostOnce), SINGLE);
    rig.submit_all(1..=2);
    for (worker, call, _) in rig.sent() {
        rig.now += 5 * US;
        rig.reply(worker, call, 1);
    }
    rig.poll();
    rig.submit_all(1..=20);
    let sent = rig.sent();
    assert_eq!(sent.len(), 20);
    for worker in workers {
        assert_eq!(sent.iter().filter(|(to, ..)| *to == worker).count(), 10);
    }
}

#[test]
fn a_wide_worker_gets_its_capacity_and_no_more() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), WIDE);
    rig.warm_up(10 * US);
    rig.submit_all(1..=10);
    let sent = rig.sent();
    assert_eq!(sent.len(), 4);
    // In any order.
    rig.reply(workers[0], sent[2].1, 1);
    assert_eq!(rig.poll().len(), 2, "an end, and the next");
}

#[test]
fn batches_hold_four_hundred_microseconds_of_work() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AT_LEAST_ONCE), BATCHING);
    rig.submit_all(0..2000);
    let mut batch = rig.sent();
    assert_eq!(batch[0].2.len(), 1, "the first call is a single");
    // 20 us for the way there and back, a microsecond a job.
    for _ in 0..12 {
        let (worker, call, jobs) = batch.remove(0);
        rig.now += 20 * US + US * jobs.len() as u32;
        rig.reply(worker, call, jobs.len());
        batch.extend(rig.poll().into_iter().filter_map(|act| match act {
            Act::Send(worker, call, jobs) => Some((worker, call, jobs)),
            _ => None,
        }));
        assert!(batch.len() <= 2, "one batch ahead");
    }
    let largest = batch.iter().map(|(.., jobs)| jobs.len()).max().unwrap();
    assert!((100..=400).contains(&largest), "{largest}");
    assert_eq!(batch[0].0, workers[0]);
}

#[test]
fn a_batch_leaves_the_others_their_share() {
    let (mut rig, _) = Rig::ready(config(2, Delivery::AT_LEAST_ONCE), BATCHING);
    rig.submit_all(0..2);
    for (worker, call, _) in rig.sent() {
        rig.now += US;
        rig.reply(worker, call, 1);
    }
    rig.poll();
    rig.submit_all(0..10);
    let sizes: Vec<usize> = rig.sent().iter().map(|(.., jobs)| jobs.len()).collect();
    assert_eq!(sizes[..2], [5, 3], "half each, the rest ahead: {sizes:?}");
}

/// A worker that takes batches, and is known to be fast.
fn batcher(delivery: Delivery) -> Rig {
    let (mut rig, _) = Rig::ready(config(1, delivery), BATCHING);
    rig.warm_up(US);
    rig
}

#[test]
fn no_batches_where_a_job_may_not_run_again() {
    for delivery in [Delivery::AtMostOnce, retries(1)] {
        let mut rig = batcher(delivery);
        rig.submit_all(0..100);
        assert!(rig.sent().iter().all(|(.., jobs)| jobs.len() == 1), "{delivery:?}");
    }
}

#[test]
fn large_bodies_and_lonely_jobs_travel_alone() {
    let mut rig = batcher(Delivery::AT_LEAST_ONCE);
    rig.submit_all([1, 2, 1_000_000]);
    let alone = JobOptions { alone: true, ..JobOptions::default() };
    rig.submit_with(3, alone).unwrap();
    rig.submit(4);
    let mut order = Vec::new();
    let mut calls = std::collections::VecDeque::new();
    loop {
        calls.extend(rig.poll().into_iter().filter_map(|act| match act {
            Act::Send(worker, call, jobs) => Some((worker, call, jobs)),
            _ => None,
        }));
        let Some((worker, call, jobs)) = calls.pop_front() else { break };
        rig.reply(worker, call, jobs.len());
        order.push(jobs);
    }
    assert_eq!(order.concat(), [1, 2, 1_000_000, 3, 4]);
    assert!(order.contains(&vec![1, 2]), "{order:?}");
    assert!(order.iter().filter(|jobs| jobs.len() > 1).all(|jobs| !jobs.contains(&3)));
    assert!(order.iter().filter(|jobs| jobs.len() > 1).all(|jobs| !jobs.contains(&1_000_000)));
}

#[test]
fn a_batch_whose_worker_dies_runs_again_one_by_one_and_only_the_culprit_is_charged() {
    let poison_after = 2;
    let (mut rig, _) =
        Rig::ready(Config { poison_after, ..config(1, Delivery::AT_LEAST_ONCE) }, BATCHING);
    rig.warm_up(US);
    rig.submit_all(1..=20);
    let (worker, _, jobs) = rig.sent().remove(0);
    assert_eq!(jobs.len(), 20);
    rig.dies(worker);
    let mut ended = Vec::new();
    for _ in 0..20 {
        rig.pass(S);
        while let Some(action) = rig.pool.poll_action() {
            match action {
                Action::Spawn { worker, .. } => rig.pool.ready(rig.now, worker, BATCHING),
                Action::Send { worker, call } => {
                    let jobs: Vec<u64> = rig.pool.call(call).map(|(job, _)| job.0).collect();
                    assert_eq!(jobs.len(), 1, "one by one");
                    if jobs == [13] { rig.dies(worker) } else { rig.reply(worker, call, 1) }
                }
                Action::Finish { payload, outcome, facts, .. } => {
                    ended.push((payload.0, outcome, facts.tries));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(ended.len(), 20);
    for (job, outcome, tries) in ended {
        match outcome {
            Outcome::Done(_) => assert_eq!(tries, 2, "job {job}"),
            Outcome::Failed { code, .. } => {
                // Its two deaths are those that it died alone: the batch's was nobody's.
                assert_eq!((job, code, tries), (13, Code::Poisoned, 3));
            }
        }
    }
}

#[test]
fn a_batch_that_takes_too_long_runs_again_one_by_one() {
    let mut rig = batcher(Delivery::AT_LEAST_ONCE);
    let options = JobOptions { exec_timeout: Some(50 * MS), ..JobOptions::default() };
    for job in 1..=3 {
        rig.submit_with(job, options).unwrap();
    }
    let (worker, _, jobs) = rig.sent().remove(0);
    assert_eq!(jobs, [1, 2, 3]);
    rig.pass(50 * MS);
    assert_eq!(rig.poll(), [Act::Kill(worker, KillReason::ExecTimeout)]);
    rig.dies(worker);
    let next = rig.start(BATCHING)[0];
    // The first hangs, and ends as timeout; the others do not.
    let (_, _) = rig.sent_one();
    rig.pass(50 * MS);
    assert_eq!(
        rig.poll(),
        [Act::Failed(1, Code::Timeout, true), Act::Kill(next, KillReason::ExecTimeout)]
    );
    rig.dies(next);
    rig.pass(S);
    let last = rig.start(BATCHING)[0];
    for job in 2..=3 {
        let (worker, call) = rig.sent_one();
        assert_eq!(worker, last);
        rig.reply(worker, call, 1);
        assert_eq!(rig.pool.poll_action().map(|_| job), Some(job));
    }
    assert_eq!(rig.pool.counters().done, 3, "the warm-up, 2 and 3");
}

#[test]
fn a_batch_with_another_number_of_answers_is_the_workers_fault() {
    let mut rig = batcher(Delivery::AT_LEAST_ONCE);
    rig.submit_all(1..=3);
    let (worker, call, _) = rig.sent().remove(0);
    let answers = [Reply::Done(0), Reply::Done(0)];
    let fault = Fault::AnswerCount { jobs: 3, answers: 2 };
    assert_eq!(rig.pool.replied(rig.now, worker, call, answers), Err(fault));
    assert_eq!(rig.poll(), [Act::Kill(worker, KillReason::Fault(fault))]);
    rig.dies(worker);
    rig.start(BATCHING);
    assert_eq!(rig.sent()[0].2, [1], "and they run again, one by one");
}

#[test]
fn a_million_jobs_may_wait() {
    let config = Config { max_queue_size: 1_000_000, ..config(1, Delivery::AtMostOnce) };
    let mut rig = Rig::new(config);
    let ids: Vec<JobId> = (0..1_000_000).map(|job| rig.submit(job)).collect();
    assert_eq!(rig.submit_with(0, JobOptions::default()), Err(RefusedReason::QueueFull));
    // From the middle, too.
    for id in ids.iter().step_by(2) {
        assert!(rig.pool.cancel(rig.now, *id));
    }
    assert_eq!(rig.pool.queued(), 500_000);
}
