//! Names, cores and stacks of workers, and what's said when a thread can't be started.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use remuda_threads::{RestartIntensity, SpawnError, Verdict, WorkerOptions, WorkerPool};

#[test]
fn an_intensity_says_what_it_allows() {
    let mut intensity = RestartIntensity::new(1, Duration::from_secs(1));
    let verdicts = [(); 2].map(|()| intensity.record(Duration::ZERO));
    assert_eq!(verdicts, [Verdict::Restart, Verdict::GiveUp]);
}

#[test]
fn a_worker_has_its_name() {
    let mut pool: WorkerPool<Option<String>, ()> = WorkerPool::new(4);
    let send_name = |tx: remuda_threads::WorkerSender<_>, _rx| {
        tx.send(std::thread::current().name().map(String::from)).unwrap();
    };
    pool.execute(send_name).unwrap();
    let worker = pool.execute_with(WorkerOptions::new().name("scribe"), send_name).unwrap();
    assert_eq!(pool.get(worker).unwrap().name(), "scribe");
    let mut names = pool.stop_and_join();
    names.sort();
    assert_eq!(names, [Some("scribe".to_owned()), Some("worker-0".to_owned())]);
}

#[test]
fn a_name_that_no_thread_can_have_is_an_error() {
    let mut pool: WorkerPool<(), ()> = WorkerPool::new(4);
    let error = pool.execute_with(WorkerOptions::new().name("a\0b"), |_tx, _rx| ()).unwrap_err();
    assert!(matches!(error, SpawnError::Name { .. }), "{error}");
    assert!(pool.is_empty());
    // The pool is as good as before.
    pool.execute(|tx, _rx| tx.send(()).unwrap()).unwrap();
    assert_eq!(pool.stop_and_join().len(), 1);
}

#[test]
#[cfg(not(miri))]
fn a_worker_has_its_stack() {
    /// Uses about a tenth of a MiB of stack at each level.
    fn descend(levels: usize) -> usize {
        let block = std::hint::black_box([levels; 12 * 1024]);
        if levels == 0 { block[7] } else { descend(levels - 1) + block[levels] }
    }
    let mut pool: WorkerPool<usize, ()> = WorkerPool::new(4);
    let options = WorkerOptions::new().stack_size(64 << 20);
    pool.execute_with(options, |tx, _rx| tx.send(descend(160)).unwrap()).unwrap();
    assert_eq!(pool.stop_and_join(), [(1..=160).sum::<usize>()]);
}

#[test]
#[cfg(not(miri))]
fn a_stack_that_the_system_cannot_give_is_an_error() {
    let mut pool: WorkerPool<(), ()> = WorkerPool::new(4);
    let options = WorkerOptions::new().stack_size(1 << 60);
    let error = pool.execute_with(options, |_tx, _rx| ()).unwrap_err();
    assert!(matches!(error, SpawnError::Thread { .. }), "{error}");
    assert!(pool.is_empty());
}

#[cfg(all(target_os = "linux", not(miri)))]
mod cores {
    use super::*;
    use rustix::thread::{CpuSet, sched_getaffinity};

    fn allowed() -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    }

    #[test]
    fn a_worker_runs_on_its_core() {
        let mut pool: WorkerPool<Vec<usize>, ()> = WorkerPool::new(4);
        for core in allowed() {
            let options = WorkerOptions::new().core(core);
            pool.execute_with(options, |tx, _rx| tx.send(allowed()).unwrap()).unwrap();
            assert_eq!(pool.recv(), Ok(vec![core]));
        }
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        let mut pool: WorkerPool<(), ()> = WorkerPool::new(4);
        for core in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
            let options = WorkerOptions::new().core(core);
            let error = pool.execute_with(options, |_tx, _rx| ()).unwrap_err();
            assert!(matches!(error, SpawnError::Core { core: told, .. } if told == core));
            assert!(error.to_string().contains(&core.to_string()), "{error}");
        }
        assert!(pool.is_empty());
    }
}
