//! Timers.

use std::time::{Duration, Instant};

use remuda_net::{Elapsed, now, sleep, sleep_until, spawn_with_handle, timeout, timeout_at};

const MS: Duration = Duration::from_millis(1);

async fn sleeps_last_at_least_as_long_as_asked() {
    let start = Instant::now();
    sleep(20 * MS).await;
    assert!(start.elapsed() >= 20 * MS);
    let deadline = now() + 10 * MS;
    sleep_until(deadline).await;
    assert!(now() >= deadline && Instant::now() >= deadline);
    sleep(Duration::ZERO).await;
    sleep_until(start).await;
}

async fn many_timers_end_in_order() {
    let ended = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let mut tasks = Vec::new();
    for step in [7_u32, 3, 9, 1, 5] {
        let ended = std::rc::Rc::clone(&ended);
        let deadline = now() + step * 10 * MS;
        tasks.push(spawn_with_handle(async move {
            sleep_until(deadline).await;
            ended.borrow_mut().push(step);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*ended.borrow(), [1, 3, 5, 7, 9]);
}

async fn timeout_gives_the_output_or_elapsed() {
    assert_eq!(timeout(60_000 * MS, async { 4 }).await, Ok(4));
    assert_eq!(timeout(5 * MS, std::future::pending::<()>()).await, Err(Elapsed));
    assert_eq!(timeout_at(now() + 5 * MS, sleep(60_000 * MS)).await, Err(Elapsed));
    assert_eq!(timeout(Duration::MAX, async { 5 }).await, Ok(5));
}

async fn a_sleep_ends_in_time_whatever_others_were_begun_or_given_up_before_it() {
    // Each is waited for with the kernel, since nothing else happens meanwhile.
    let far = spawn_with_handle(sleep(3_600_000 * MS));
    for (given_up, wanted) in [(5, 10), (40, 5), (10, 30), (1, 1)] {
        // Mostly it is given up; where the machine is slow it may be over.
        let _ = timeout(given_up * MS / 2, sleep(given_up * MS)).await;
        let start = Instant::now();
        sleep(wanted * MS).await;
        let took = start.elapsed();
        assert!(took >= wanted * MS && took < 60_000 * MS, "{took:?} for {wanted} ms");
    }
    drop(far);
}

async fn an_idle_runtime_sleeps() {
    // After a wake-up by another thread, and with a connection whose peer said something.
    let (conn, mut peer) = crate::drivers::half_pair();
    std::io::Write::write_all(&mut peer, b"unread").unwrap();
    remuda_net::spawn_blocking(|| ()).await.unwrap();
    sleep(5 * MS).await;
    let before = cpu_time();
    sleep(200 * MS).await;
    let used = cpu_time() - before;
    assert!(used < 60 * MS, "{used:?} used while idle");
    assert_eq!(conn.closed_by(), None);
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

on_both_drivers!(
    sleeps_last_at_least_as_long_as_asked,
    many_timers_end_in_order,
    timeout_gives_the_output_or_elapsed,
    a_sleep_ends_in_time_whatever_others_were_begun_or_given_up_before_it,
    an_idle_runtime_sleeps,
);
