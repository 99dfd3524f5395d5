//! Jobs whose time is over, and jobs that are no longer wanted.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod rig;

use std::time::Duration;

use remuda_dispatch::*;
use rig::*;

fn deadline(at: Duration) -> JobOptions {
    JobOptions { deadline: Some(at), ..JobOptions::default() }
}

fn exec_timeout(timeout: Duration) -> JobOptions {
    JobOptions { exec_timeout: Some(timeout), ..JobOptions::default() }
}

#[test]
fn a_job_whose_time_is_over_in_the_queue_is_never_sent() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.submit(1);
    let (_, call) = rig.sent_one();
    rig.submit_with(2, deadline(10 * MS)).unwrap();
    assert_eq!(rig.pool.next_tick(), Some(10 * MS));
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Failed(2, Code::QueueTimeout, false)]);
    rig.reply(workers[0], call, 1);
    assert_eq!(rig.poll(), [Act::Done(1)]);
    assert_eq!(
        rig.submit_with(3, deadline(rig.now)),
        Err(RefusedReason::Expired),
        "one that is over already is refused"
    );
}

#[test]
fn of_a_job_that_was_lost_no_code_says_that_it_has_not_run() {
    let lost = |options| {
        let (mut rig, workers) = Rig::ready(config(1, retries(3)), SINGLE);
        rig.submit_with(1, options).unwrap();
        rig.sent_one();
        rig.dies(workers[0]);
        rig.poll();
        assert_eq!(rig.pool.queued(), 1, "it waits for another try");
        rig
    };
    let mut rig = lost(deadline(10 * MS));
    rig.pass(10 * MS);
    assert!(rig.poll().contains(&Act::Failed(1, Code::Timeout, true)));
    let mut rig = lost(JobOptions::default());
    rig.pool.stop_now(rig.now);
    assert!(rig.poll().contains(&Act::Failed(1, Code::WorkerLost, true)));
    // Nor does one of a peer to which it went then.
    let (mut rig, workers) = Rig::ready(config(2, retries(3)), SINGLE);
    rig.submit(1);
    let (first, _) = rig.sent_one();
    rig.pool.exited(rig.now, first, Exit::Signal(9));
    let sent = rig.poll().into_iter().find_map(|act| match act {
        Act::Send(worker, call, _) => Some((worker, call)),
        _ => None,
    });
    let (second, call) = sent.unwrap();
    assert!(second != first && workers.contains(&second));
    rig.fail(second, call, Code::QueueFull);
    assert_eq!(rig.poll()[0], Act::Failed(1, Code::WorkerLost, true));
}

#[test]
fn it_is_not_sent_either_if_no_tick_came_in_time() {
    let mut rig = Rig::new(config(1, Delivery::AtMostOnce));
    rig.submit_with(1, deadline(10 * MS)).unwrap();
    rig.now = 20 * MS;
    let worker = match rig.poll()[..] {
        [Act::Spawn(worker, ..)] => worker,
        ref other => panic!("{other:?}"),
    };
    rig.pool.ready(rig.now, worker, SINGLE);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::QueueTimeout, false)]);
}

#[test]
fn a_budget_that_is_spent_while_the_job_runs_never_kills_the_worker() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.submit_with(1, deadline(10 * MS)).unwrap();
    let (_, call) = rig.sent_one();
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Timeout, true)]);
    // The worker is still at it.
    rig.submit(2);
    assert_eq!(rig.poll(), []);
    assert_eq!(rig.state(workers[0]), Some(WorkerState::Busy));
    rig.reply(workers[0], call, 1);
    assert!(matches!(rig.poll()[..], [Act::Send(..)]));
}

#[test]
fn a_budget_that_is_spent_cancels_the_job_where_that_can_be_done() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), CANCELLING);
    rig.submit_with(1, deadline(10 * MS)).unwrap();
    let (_, call) = rig.sent_one();
    rig.pass(10 * MS);
    let acts = rig.poll();
    assert_eq!(acts, [Act::Cancel(workers[0], call), Act::Failed(1, Code::Timeout, true)]);
    rig.fail(workers[0], call, Code::Cancelled);
    assert_eq!(rig.state(workers[0]), Some(WorkerState::Idle));
}

#[test]
fn what_remains_of_the_time_is_handed_on() {
    let (mut rig, _) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    let both = JobOptions { exec_timeout: Some(30 * MS), ..deadline(100 * MS) };
    rig.pass(40 * MS);
    for (options, left) in [
        (JobOptions::default(), None),
        (deadline(100 * MS), Some(60 * MS)),
        (exec_timeout(S), Some(S)),
        (both, Some(30 * MS)),
    ] {
        rig.submit_with(1, options).unwrap();
        let Some(Action::Send { worker, call }) = rig.pool.poll_action() else { panic!() };
        assert_eq!(rig.pool.call(call).next().unwrap().1, left);
        rig.reply(worker, call, 1);
        rig.poll();
    }
}

#[test]
fn a_job_that_runs_for_too_long_ends_with_its_worker() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    rig.submit(2);
    rig.sent_one();
    rig.pass(10 * MS);
    let killed = Act::Kill(workers[0], KillReason::ExecTimeout);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Timeout, true), killed]);
    rig.dies(workers[0]);
    assert_eq!(rig.restarts(RestartReason::ExecTimeout), 1);
    rig.pass(S);
    rig.start(SINGLE);
    assert_eq!(rig.sent()[0].2, [2]);
}

#[test]
fn exec_ttl_counts_if_it_is_shorter() {
    let supervisor = Supervisor { exec_ttl: Some(5 * MS), ..Supervisor::default() };
    let (mut rig, _) = Rig::ready(Config { supervisor, ..config(1, Delivery::AtMostOnce) }, SINGLE);
    rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    rig.sent_one();
    rig.pass(5 * MS);
    assert_eq!(rig.poll()[0], Act::Failed(1, Code::Timeout, true));
}

#[test]
fn the_time_of_a_job_handed_ahead_runs_from_the_answer_before_it() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    rig.warm_up(50 * US);
    rig.submit(1);
    rig.submit_with(2, exec_timeout(10 * MS)).unwrap();
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
    rig.pass(9 * MS);
    rig.reply(workers[0], sent[0].1, 1);
    rig.pass(9 * MS);
    assert_eq!(rig.poll(), [Act::Done(1)]);
    rig.pass(MS);
    assert_eq!(rig.poll()[0], Act::Failed(2, Code::Timeout, true));
    let facts = rig.facts.last().unwrap().1;
    assert_eq!((facts.ran(), facts.tries), (10 * MS, 1));
}

#[test]
fn a_worker_that_can_cancel_gets_the_chance_to() {
    let config = Config { cancel_grace: 5 * MS, ..config(1, Delivery::AtMostOnce) };
    let (mut rig, workers) = Rig::ready(config, CANCELLING);
    rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    let (_, call) = rig.sent_one();
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Cancel(workers[0], call)]);
    rig.fail(workers[0], call, Code::Cancelled);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Timeout, true)], "not its client's doing");

    rig.submit_with(2, exec_timeout(10 * MS)).unwrap();
    let (_, call) = rig.sent_one();
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Cancel(workers[0], call)]);
    rig.pass(5 * MS);
    let killed = Act::Kill(workers[0], KillReason::ExecTimeout);
    assert_eq!(rig.poll(), [Act::Failed(2, Code::Timeout, true), killed]);
}

#[test]
fn a_timeout_is_tried_again_only_when_its_worker_is_gone() {
    let (mut rig, workers) = Rig::ready(config(2, retries(2)), SINGLE);
    rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    let (worker, _) = rig.sent_one();
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Kill(worker, KillReason::ExecTimeout)]);
    assert!(workers.contains(&worker));
    rig.dies(worker);
    let acts = rig.poll();
    assert!(matches!(acts[0], Act::Send(to, ..) if to != worker), "{acts:?}");
}

#[test]
fn an_answer_that_comes_while_the_worker_is_being_killed_counts() {
    let (mut rig, _) = Rig::ready(config(1, retries(2)), SINGLE);
    rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    let (worker, call) = rig.sent_one();
    rig.pass(10 * MS);
    assert_eq!(rig.poll().len(), 1);
    rig.reply(worker, call, 1);
    assert_eq!(rig.poll(), [Act::Done(1)]);
}

#[test]
fn a_queued_job_is_cancelled_at_once() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let job = rig.submit(1);
    assert!(rig.pool.cancel(rig.now, job));
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Cancelled, false)]);
    assert!(!rig.pool.cancel(rig.now, job), "its name is stale");
    rig.submit(2);
    assert!(!rig.pool.cancel(rig.now, job), "and is not the next one's");
}

#[test]
fn a_running_job_ends_at_once_and_its_worker_works_on() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    let job = rig.submit(1);
    let (_, call) = rig.sent_one();
    assert!(rig.pool.cancel(rig.now, job));
    assert!(!rig.pool.cancel(rig.now, job));
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Cancelled, true)]);
    rig.submit(2);
    assert_eq!(rig.poll(), [], "the worker is not free");
    rig.reply(workers[0], call, 1);
    assert!(matches!(rig.poll()[..], [Act::Send(..)]));
}

#[test]
fn a_worker_that_can_cancel_is_told_and_answers() {
    let config = Config { cancel_grace: 5 * MS, ..config(1, Delivery::AtMostOnce) };
    let (mut rig, workers) = Rig::ready(config, CANCELLING);
    // It may answer with the result, or that it was cancelled.
    for (n, code) in [(1, None), (2, Some(Code::Cancelled))] {
        let job = rig.submit(n);
        let (_, call) = rig.sent_one();
        assert!(rig.pool.cancel(rig.now, job));
        assert_eq!(rig.poll(), [Act::Cancel(workers[0], call)]);
        match code {
            None => rig.reply(workers[0], call, 1),
            Some(code) => rig.fail(workers[0], call, code),
        }
        let end = code.map_or(Act::Done(n), |code| Act::Failed(n, code, true));
        assert_eq!(rig.poll(), [end]);
    }
    // Or not at all: the client doesn't wait for that.
    let job = rig.submit(3);
    let (_, call) = rig.sent_one();
    rig.pool.cancel(rig.now, job);
    assert_eq!(rig.poll(), [Act::Cancel(workers[0], call)]);
    rig.pass(5 * MS);
    assert_eq!(rig.poll(), [Act::Failed(3, Code::Cancelled, true)]);
}

#[test]
fn a_job_that_its_client_gave_up_still_may_not_run_for_ever() {
    let (mut rig, workers) = Rig::ready(config(1, Delivery::AtMostOnce), SINGLE);
    let job = rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    rig.sent_one();
    rig.pool.cancel(rig.now, job);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Cancelled, true)]);
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Kill(workers[0], KillReason::ExecTimeout)]);
}

#[test]
fn an_attached_peer_is_never_killed() {
    let mut rig = Rig::new(config(0, Delivery::AtMostOnce));
    let peer = rig.pool.attach(rig.now);
    rig.pool.ready(rig.now, peer, SINGLE);
    rig.submit_with(1, exec_timeout(10 * MS)).unwrap();
    let (_, call) = rig.sent_one();
    rig.pass(10 * MS);
    assert_eq!(rig.poll(), [Act::Failed(1, Code::Timeout, true)]);
    rig.reply(peer, call, 1);
    let fault = rig.pool.replied(rig.now, peer, call, [Reply::Done(0)]);
    assert_eq!(fault, Err(Fault::UnknownCall));
    rig.submit(2);
    assert_eq!(rig.poll(), [], "the engine closes its link; until then it gets nothing");
}
