//! Workers: how they are started, replaced without a gap, and ended.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod rig;

use std::time::Duration;

use remuda_dispatch::*;
use rig::*;

fn amo(num_workers: u32) -> Config {
    config(num_workers, Delivery::AtMostOnce)
}

#[test]
fn a_worker_that_answered_anything_is_replaced_at_once() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.warm_up(MS);
    rig.dies(workers[0]);
    assert!(matches!(rig.poll()[..], [Act::Spawn(_, 0, 0)]));
    assert_eq!(rig.restarts(RestartReason::Lost), 1);
}

#[test]
fn one_that_answered_nothing_is_replaced_with_a_growing_delay() {
    let restart = Restart { base: 100 * MS, cap: S, ..Restart::default() };
    let mut delays = Vec::new();
    for seed in 0..50 {
        let config = Config { restart: restart.clone(), ..amo(1) };
        let mut pool: Dispatch<Job, u64> = Dispatch::new(config, seed).unwrap();
        let mut now = Duration::ZERO;
        for n in 0..8 {
            let Some(Action::Spawn { worker, .. }) = pool.poll_action() else { panic!() };
            pool.start_failed(now, worker);
            assert!(pool.poll_action().is_none(), "not at once");
            let at = pool.next_tick().unwrap();
            let most = S.min(100 * MS * (1 << n));
            assert!(at - now <= most, "{:?} after {n} failures", at - now);
            delays.push((n, at - now));
            now = at;
            pool.tick(now);
        }
    }
    // With jitter, and more the more failures there were.
    let mean = |n| {
        let of: Vec<_> = delays.iter().filter(|(m, _)| *m == n).map(|(_, delay)| *delay).collect();
        of.iter().sum::<Duration>() / of.len() as u32
    };
    assert!(mean(0) < mean(2) && mean(2) < mean(4), "{delays:?}");
}

/// The delay after the death of a slot's worker, which is spent, and the worker that follows.
fn delay_of_next(rig: &mut Rig) -> (Duration, WorkerId) {
    let died_at = rig.now;
    let mut acts = rig.poll();
    while !acts.iter().any(|act| matches!(act, Act::Spawn(..))) {
        rig.now = rig.pool.next_tick().unwrap();
        rig.pool.tick(rig.now);
        acts = rig.poll();
    }
    let spawned = acts.iter().find_map(|act| match act {
        Act::Spawn(worker, ..) => Some(*worker),
        _ => None,
    });
    (rig.now - died_at, spawned.unwrap())
}

#[test]
fn one_that_dies_with_a_job_is_replaced_soon_however_often_and_never_in_a_storm() {
    let killed = KillReason::ExecTimeout;
    for death in ["exits", "hangs"] {
        let mut config = amo(1);
        config.supervisor.exec_ttl = (death == "hangs").then_some(S);
        let restart = config.restart.clone();
        let (mut rig, workers) = Rig::ready(config, SINGLE);
        let mut worker = workers[0];
        let mut waited = Duration::ZERO;
        for job in 1..=200 {
            rig.submit(job);
            rig.sent_one();
            if death == "hangs" {
                rig.pass(S);
                assert!(rig.poll().contains(&Act::Kill(worker, killed)));
            }
            rig.dies(worker);
            let (delay, next) = delay_of_next(&mut rig);
            assert!(delay <= restart.busy_cap, "{delay:?} after {job} deaths");
            waited += delay;
            worker = next;
            rig.pool.ready(rig.now, worker, SINGLE);
        }
        // With jitter, half of the largest delay on average: twice as much or half as much is
        // beyond any chance.
        let mean = waited / 200;
        assert!(mean > restart.busy_cap / 4, "{mean:?} when it {death}");

        // One that has nothing to do when it dies, again and again, waits for longer and longer.
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            rig.dies(worker);
            let (delay, next) = delay_of_next(&mut rig);
            assert!(delay <= restart.cap);
            longest = longest.max(delay);
            worker = next;
            rig.pool.ready(rig.now, worker, SINGLE);
        }
        assert!(longest > restart.cap / 2, "{longest:?}");
    }
}

#[test]
fn a_slow_start_is_no_failure_until_allocate_timeout() {
    let mut rig = Rig::new(Config { allocate_timeout: 60 * S, ..amo(1) });
    let worker = rig.spawned()[0];
    rig.pass(60 * S - MS);
    assert_eq!(rig.poll(), []);
    rig.pass(MS);
    assert_eq!(rig.poll(), [Act::Kill(worker, KillReason::AllocateTimeout)]);
    rig.dies(worker);
    assert_eq!(rig.restarts(RestartReason::StartFailed), 1);
}

#[test]
fn gives_up_when_no_worker_was_ever_ready() {
    let mut rig = Rig::new(Config { give_up: true, ..amo(2) });
    rig.submit(1);
    let mut failed = 0;
    loop {
        let acts = rig.poll();
        if acts.contains(&Act::GiveUp(6)) {
            assert!(acts.contains(&Act::Failed(1, Code::Internal, false)), "{acts:?}");
            break;
        }
        for act in acts {
            let Act::Spawn(worker, ..) = act else { panic!("{act:?}") };
            failed += 1;
            rig.pool.start_failed(rig.now, worker);
        }
        rig.pass(10 * MS);
    }
    assert_eq!(failed, 6);
    assert_eq!(rig.submit_with(2, JobOptions::default()), Err(RefusedReason::Draining));
}

#[test]
fn does_not_give_up_once_a_worker_was_ready() {
    let (mut rig, workers) = Rig::ready(Config { give_up: true, ..amo(1) }, SINGLE);
    rig.dies(workers[0]);
    for _ in 0..50 {
        rig.pass(10 * S);
        for worker in rig.spawned() {
            rig.pool.start_failed(rig.now, worker);
        }
    }
    assert!(rig.pool.snapshot(rig.now).starts_failed >= 50);
}

/// Runs jobs until a replacement is to be spawned, and returns it and how many jobs ran.
fn until_replaced(rig: &mut Rig) -> (WorkerId, u64) {
    for jobs in 1..1000 {
        rig.submit(jobs);
        let acts = rig.poll();
        let Act::Send(worker, call, _) = acts[0] else { panic!("{acts:?}") };
        rig.reply(worker, call, 1);
        let acts = rig.poll();
        if let Some(Act::Spawn(next, ..)) = acts.iter().find(|act| matches!(act, Act::Spawn(..))) {
            return (*next, jobs);
        }
    }
    panic!("never replaced");
}

#[test]
fn max_jobs_replaces_a_worker_without_a_gap() {
    let (mut rig, workers) = Rig::ready(Config { max_jobs: Some(10), ..amo(1) }, SINGLE);
    let (next, jobs) = until_replaced(&mut rig);
    assert_eq!(jobs, 10);
    // The old one serves on until the new one is ready, and then finishes what it has.
    rig.submit(1);
    let (worker, call) = rig.sent_one();
    assert_eq!(worker, workers[0]);
    rig.pool.ready(rig.now, next, SINGLE);
    assert_eq!(rig.poll(), []);
    rig.submit(2);
    assert_eq!(rig.sent_one().0, next);
    rig.reply(workers[0], call, 1);
    assert_eq!(rig.poll(), [Act::Done(1), Act::Stop(workers[0])]);
    rig.pool.exited(rig.now, workers[0], Exit::Status(0));
    assert_eq!(rig.poll(), []);
    assert_eq!(rig.restarts(RestartReason::MaxJobs), 1);
}

#[test]
fn max_jobs_differs_from_worker_to_worker() {
    let mut seen = std::collections::BTreeSet::new();
    let config = Config { max_jobs: Some(100), max_jobs_jitter: 50, ..amo(1) };
    let (mut rig, _) = Rig::ready(config, SINGLE);
    for _ in 0..20 {
        let (next, jobs) = until_replaced(&mut rig);
        assert!((50..=100).contains(&jobs), "{jobs}");
        seen.insert(jobs);
        rig.pool.ready(rig.now, next, SINGLE);
        let acts = rig.poll();
        let Act::Stop(old) = acts[0] else { panic!("{acts:?}") };
        rig.pool.exited(rig.now, old, Exit::Status(0));
        assert_eq!(rig.poll(), []);
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn workers_are_replaced_one_at_a_time() {
    let supervisor = Supervisor { ttl: Some(10 * S), ..Supervisor::default() };
    let (mut rig, workers) = Rig::ready(Config { supervisor, ..amo(3) }, SINGLE);
    rig.pass(10 * S);
    for old in workers {
        let next = rig.spawned();
        assert_eq!(next.len(), 1);
        rig.pool.ready(rig.now, next[0], SINGLE);
        assert_eq!(rig.poll(), [Act::Stop(old)]);
        rig.pool.exited(rig.now, old, Exit::Status(0));
    }
    assert_eq!(rig.poll(), []);
    assert_eq!(rig.restarts(RestartReason::Ttl), 3);
}

#[test]
fn a_worker_that_drains_for_long_holds_up_the_others_for_destroy_timeout_at_most() {
    let supervisor = Supervisor { ttl: Some(10 * S), ..Supervisor::default() };
    let config = Config { supervisor, destroy_timeout: 5 * S, ..amo(2) };
    let (mut rig, _) = Rig::ready(config, SINGLE);
    rig.submit_all(1..=2);
    assert_eq!(rig.sent().len(), 2);
    rig.pass(10 * S);
    let next = rig.start(SINGLE);
    assert_eq!(next.len(), 1);
    assert_eq!(rig.poll(), []);
    rig.pass(5 * S);
    assert_eq!(rig.spawned().len(), 1, "and nobody is killed: it has a job");
}

#[test]
fn idle_ttl_replaces_a_worker_that_had_nothing_to_do() {
    let supervisor = Supervisor { idle_ttl: Some(10 * S), ..Supervisor::default() };
    let (mut rig, workers) = Rig::ready(Config { supervisor, ..amo(1) }, SINGLE);
    rig.pass(9 * S);
    rig.warm_up(9 * S);
    rig.pass(9 * S);
    assert_eq!(rig.poll(), []);
    rig.pass(S);
    let next = rig.start(SINGLE);
    assert_eq!((next.len(), rig.poll()), (1, vec![Act::Stop(workers[0])]));
    rig.pool.exited(rig.now, workers[0], Exit::Status(0));
    assert_eq!(rig.restarts(RestartReason::IdleTtl), 1);
}

fn with_memory(max: u64) -> (Rig, WorkerId) {
    let supervisor = Supervisor { max_worker_memory: Some(max), ..Supervisor::default() };
    let (rig, workers) = Rig::ready(Config { supervisor, ..amo(1) }, SINGLE);
    (rig, workers[0])
}

#[test]
fn memory_must_be_over_its_limit_several_times_in_a_row() {
    let (mut rig, worker) = with_memory(1000);
    for bytes in [500, 1001, 1001, 900, 1001, 1001] {
        rig.pool.memory(rig.now, worker, bytes);
        assert_eq!(rig.poll(), []);
    }
    rig.pool.memory(rig.now, worker, 1001);
    let next = rig.start(SINGLE);
    assert_eq!((next.len(), rig.poll()), (1, vec![Act::Stop(worker)]));
}

#[test]
fn a_limit_that_a_fresh_worker_exceeds_replaces_nobody() {
    let (mut rig, worker) = with_memory(1000);
    for bytes in [3000, 3100, 3600, 3750, 3750] {
        rig.pool.memory(rig.now, worker, bytes);
    }
    assert_eq!(rig.poll(), []);
    for _ in 0..3 {
        rig.pool.memory(rig.now, worker, 3751);
    }
    assert_eq!(rig.spawned().len(), 1, "it grew by more than a quarter");
}

#[test]
fn a_limit_of_zero_is_none() {
    let supervisor = Supervisor {
        ttl: Some(Duration::ZERO),
        idle_ttl: Some(Duration::ZERO),
        exec_ttl: Some(Duration::ZERO),
        max_worker_memory: Some(0),
    };
    let (mut rig, workers) = Rig::ready(Config { supervisor, ..amo(2) }, SINGLE);
    rig.submit(1);
    rig.sent_one();
    rig.pass(1000 * S);
    for _ in 0..5 {
        rig.pool.memory(rig.now, workers[1], 1 << 40);
    }
    assert_eq!(rig.poll(), [], "nobody is replaced, and no job is over its time");
}

#[test]
fn a_replacement_that_fails_leaves_the_old_worker_and_is_tried_again() {
    let supervisor = Supervisor { ttl: Some(10 * S), ..Supervisor::default() };
    let (mut rig, workers) = Rig::ready(Config { supervisor, ..amo(1) }, SINGLE);
    rig.pass(10 * S);
    for _ in 0..5 {
        let next = rig.spawned()[0];
        rig.pool.start_failed(rig.now, next);
        assert_eq!(rig.poll(), []);
        rig.warm_up(MS);
        rig.pass(10 * S);
    }
    assert_eq!(rig.state(workers[0]), Some(WorkerState::Idle));
}

#[test]
fn a_worker_that_does_not_end_when_asked_is_killed() {
    let config = Config { destroy_timeout: 5 * S, ..amo(1) };
    let (mut rig, workers) = Rig::ready(config, SINGLE);
    rig.pool.resize(rig.now, 0).unwrap();
    assert_eq!(rig.poll(), [Act::Stop(workers[0])]);
    rig.pass(5 * S);
    assert_eq!(rig.poll(), [Act::Kill(workers[0], KillReason::DestroyTimeout)]);
}

#[test]
fn a_pool_grows_and_shrinks() {
    let (mut rig, workers) = Rig::ready(amo(2), SINGLE);
    rig.pool.resize(rig.now, 4).unwrap();
    let more = rig.poll();
    assert!(matches!(more[..], [Act::Spawn(_, 2, 0), Act::Spawn(_, 3, 0)]));
    rig.pool.resize(rig.now, 1).unwrap();
    let acts = rig.poll();
    assert_eq!(acts.len(), 3);
    assert!(acts.contains(&Act::Stop(workers[1])));
    let starting = |act: &&Act| matches!(act, Act::Kill(_, KillReason::Stopped));
    assert_eq!(acts.iter().filter(starting).count(), 2, "those that were not ready yet");
    assert_eq!(rig.pool.resize(rig.now, 5000), Err(ConfigError::NumWorkers(5000)));
}

#[test]
fn options_that_cannot_be_are_refused() {
    let check = |config: Config| config.check().unwrap_err();
    assert_eq!(check(Config { max_jobs: Some(0), ..amo(1) }), ConfigError::MaxJobs);
    assert_eq!(check(Config { max_jobs_jitter: 101, ..amo(1) }), ConfigError::Jitter(101));
    assert_eq!(check(config(1, retries(0))), ConfigError::Endless);
    let endless = Config { poison_after: 0, ..config(1, Delivery::AT_LEAST_ONCE) };
    assert_eq!(check(endless), ConfigError::Endless);
    let size = QUEUE_SIZE_MAX + 1;
    assert_eq!(check(Config { max_queue_size: size, ..amo(1) }), ConfigError::QueueSize(size));
}

#[test]
fn events_about_workers_that_are_gone_are_ignored() {
    let (mut rig, workers) = Rig::ready(amo(1), SINGLE);
    rig.warm_up(MS);
    rig.dies(workers[0]);
    let next = rig.start(SINGLE)[0];
    assert_eq!(next.index(), workers[0].index(), "it has the old one's place");
    rig.dies(workers[0]);
    rig.pool.ready(rig.now, workers[0], SINGLE);
    rig.pool.memory(rig.now, workers[0], 1);
    rig.pool.faulted(rig.now, workers[0], Fault::Garbage);
    assert_eq!(rig.poll(), []);
    assert_eq!(rig.state(next), Some(WorkerState::Idle));
}
