//! Tasks, and futures side by side.

use std::cell::Cell;
use std::rc::Rc;

use remuda_net::{
    Either, Either3, JoinError, NetError, join, join3, others_can_run, run_local, select, select3,
    spawn, spawn_blocking, spawn_with_handle, yield_now,
};

use crate::drivers::{pair, same_driver, take};

async fn a_handle_gives_the_output_or_says_why_not() {
    assert_eq!(spawn_with_handle(async { 5 }).await, Ok(5));
    let endless = spawn_with_handle(std::future::pending::<()>());
    yield_now().await;
    assert!(!endless.is_finished());
    endless.abort();
    assert!(endless.is_finished());
    assert_eq!(endless.await, Err(JoinError::Aborted));
    let broken: remuda_net::JoinHandle<()> = spawn_with_handle(async { panic!("as wanted") });
    assert_eq!(broken.await, Err(JoinError::Panicked));
}

async fn a_task_may_abort_itself() {
    let own: Rc<Cell<Option<remuda_net::JoinHandle<()>>>> = Rc::default();
    let (inside, reached) = (Rc::clone(&own), Rc::new(Cell::new(false)));
    let after = Rc::clone(&reached);
    own.set(Some(spawn_with_handle(async move {
        inside.take().unwrap().abort();
        yield_now().await;
        after.set(true);
    })));
    for _ in 0..3 {
        yield_now().await;
    }
    assert!(!reached.get());
    assert_eq!(Rc::strong_count(&reached), 1, "the task was dropped");
}

async fn a_dropped_handle_lets_the_task_run() {
    let done = Rc::new(Cell::new(false));
    let inside = Rc::clone(&done);
    drop(spawn_with_handle(async move {
        yield_now().await;
        inside.set(true);
    }));
    while !done.get() {
        yield_now().await;
    }
}

async fn a_task_knows_whether_others_can_run() {
    // What was spawned before this test has its turn first.
    while others_can_run() {
        yield_now().await;
    }
    spawn(async {});
    assert!(others_can_run());
    yield_now().await;
    assert!(!others_can_run());
}

async fn tasks_are_dropped_at_the_end_of_the_runtime() {
    struct OnDrop(Rc<Cell<bool>>, remuda_net::ConnCtx);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            // The runtime is still there for what a destructor does.
            let _ = self.1.send_nowait(b"bye");
            spawn(async { unreachable!("nothing runs any more") });
            self.0.set(true);
        }
    }
    let config = same_driver();
    std::thread::spawn(move || {
        let dropped = Rc::new(Cell::new(false));
        let (inside, (left, mut right)) =
            (Rc::clone(&dropped), std::os::unix::net::UnixStream::pair().unwrap());
        run_local(config, async move {
            let guard = OnDrop(inside, remuda_net::adopt_unix(left).unwrap());
            spawn(async move {
                let _guard = guard;
                std::future::pending().await
            });
            yield_now().await;
        })
        .unwrap();
        assert!(dropped.get());
        let mut all = String::new();
        std::io::Read::read_to_string(&mut right, &mut all).unwrap();
        assert_eq!(all, "bye");
    })
    .join()
    .unwrap();
}

async fn select_takes_the_first_and_join_all() {
    let never = std::future::pending::<()>;
    assert_eq!(select(async { 1 }, never()).await, Either::First(1));
    assert_eq!(select(never(), async { 2 }).await, Either::Second(2));
    assert_eq!(select3(never(), never(), async { 3 }).await, Either3::Third(3));
    let slow = async {
        yield_now().await;
        1
    };
    assert_eq!(join(slow, async { 2 }).await, (1, 2));
    assert_eq!(join3(async { 1 }, yield_now(), async { 3 }).await, (1, (), 3));
}

async fn one_runtime_a_thread() {
    let error = run_local(same_driver(), async {}).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
}

async fn blocking_work_runs_elsewhere() {
    let here = std::thread::current().id();
    let there = spawn_blocking(move || std::thread::current().id()).await.unwrap();
    assert_ne!(here, there);
    let error = spawn_blocking(|| panic!("as wanted")).await.unwrap_err();
    assert!(matches!(error, NetError::Blocking));
    assert_eq!(spawn_blocking(|| 3).await.unwrap(), 3);
}

/// Runs each job on a thread of its own, and at most so many in all.
struct Few(std::sync::atomic::AtomicUsize);

impl remuda_net::BlockingExecutor for Few {
    fn execute(&self, job: remuda_net::BlockingJob) -> Result<(), remuda_net::BlockingJob> {
        let enough = |left: usize| left.checked_sub(1);
        let order = std::sync::atomic::Ordering::SeqCst;
        if self.0.fetch_update(order, order, enough).is_err() {
            return Err(job);
        }
        std::thread::Builder::new().name("of the program".into()).spawn(job).unwrap();
        Ok(())
    }
}

async fn a_program_may_bring_its_own_executor() {
    let blocking = std::sync::Arc::new(Few(2.into()));
    let config = remuda_net::Config { blocking, ..same_driver() };
    crate::drivers::run_beside(config, || async {
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(spawn_blocking(name).await.unwrap().as_deref(), Some("of the program"));
        assert_eq!(spawn_blocking(|| 2).await.unwrap(), 2);
        assert!(matches!(spawn_blocking(|| 3).await, Err(NetError::Blocking)));
    });
}

async fn tasks_that_wake_each_other_do_not_starve_the_kernels_events() {
    let (left, right) = pair();
    let stop = Rc::new(Cell::new(false));
    for _ in 0..10 {
        let stop = Rc::clone(&stop);
        spawn(async move {
            while !stop.get() {
                yield_now().await;
            }
        });
    }
    right.send_nowait(b"ping").unwrap();
    assert_eq!(take(left, 4).await, b"ping");
    remuda_net::sleep(std::time::Duration::from_millis(2)).await;
    stop.set(true);
}

#[test]
fn without_a_runtime_there_are_errors() {
    assert!(matches!(remuda_net::connect_unix("/x"), Err(NetError::NoRuntime)));
    assert_eq!(remuda_net::backend(), None);
    let spawned = std::panic::catch_unwind(|| spawn(async {}));
    assert!(spawned.is_err());
}

on_both_drivers!(
    a_handle_gives_the_output_or_says_why_not,
    a_task_may_abort_itself,
    a_dropped_handle_lets_the_task_run,
    a_task_knows_whether_others_can_run,
    tasks_are_dropped_at_the_end_of_the_runtime,
    select_takes_the_first_and_join_all,
    one_runtime_a_thread,
    blocking_work_runs_elsewhere,
    a_program_may_bring_its_own_executor,
    tasks_that_wake_each_other_do_not_starve_the_kernels_events,
);
