//! Watching a value, and stopping a future.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use remuda_reconnect::{Publisher, Stopper, Watch};
use std::future::{Future, pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use support::block_on;

#[derive(Default)]
struct Counted(AtomicU32);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counted {
    fn wakes(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll_changed(watch: &mut Watch<u32>) -> Poll<Option<u32>> {
    pin!(watch.changed()).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn watch_sees_the_newest_value_once() {
    let publisher = Publisher::new(0);
    let mut watch = publisher.watch();
    assert!(poll_changed(&mut watch).is_pending(), "the value at the start counts as seen");
    publisher.publish(1);
    publisher.publish(2);
    assert_eq!((watch.latest(), publisher.latest()), (2, 2));
    assert_eq!(poll_changed(&mut watch), Poll::Ready(Some(2)));
    assert!(poll_changed(&mut watch).is_pending());
}

#[test]
fn watch_sees_the_last_value_and_then_the_end() {
    let publisher = Publisher::new(0);
    let mut watch = publisher.watch();
    publisher.publish(1);
    drop(publisher);
    assert!(watch.is_over());
    assert_eq!(poll_changed(&mut watch), Poll::Ready(Some(1)));
    assert_eq!(poll_changed(&mut watch), Poll::Ready(None));
    assert_eq!(block_on(watch.until(|&value| value == 1)), Some(1), "the last value stays");
    assert_eq!(block_on(watch.until(|&value| value == 2)), None);
}

#[test]
fn change_wakes_each_waiting_watch_once() {
    let publisher = Publisher::new(0);
    let (mut first, mut second) = (publisher.watch(), publisher.watch());
    let (counted_first, counted_second) =
        (Arc::new(Counted::default()), Arc::new(Counted::default()));
    let (waker_first, waker_second) = (counted_first.clone().into(), counted_second.clone().into());
    {
        let mut waiting = pin!(first.changed());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker_first)).is_pending());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker_first)).is_pending());
        let mut other = pin!(second.changed());
        assert!(other.as_mut().poll(&mut Context::from_waker(&waker_second)).is_pending());
        publisher.publish(1);
        assert_eq!((counted_first.wakes(), counted_second.wakes()), (1, 1));
        publisher.publish(2);
        assert_eq!((counted_first.wakes(), counted_second.wakes()), (1, 1), "none waits any more");
        assert_eq!(waiting.poll(&mut Context::from_waker(&waker_first)), Poll::Ready(Some(2)));
    }
    {
        let mut dropped = Box::pin(second.changed());
        assert_eq!(
            dropped.as_mut().poll(&mut Context::from_waker(&waker_second)),
            Poll::Ready(Some(2))
        );
        drop(dropped);
        let mut waiting = Box::pin(second.changed());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker_second)).is_pending());
    }
    publisher.publish(3);
    assert_eq!(counted_second.wakes(), 1, "a wait that was dropped is not woken");
    assert_eq!(poll_changed(&mut second), Poll::Ready(Some(3)), "and has lost nothing");
}

#[test]
fn waker_of_the_latest_poll_is_the_one_that_is_woken() {
    let publisher = Publisher::new(0);
    let mut watch = publisher.watch();
    let (old, new) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
    let mut waiting = pin!(watch.changed());
    for counted in [&old, &new] {
        let waker = Arc::clone(counted).into();
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(publisher);
    assert_eq!((old.wakes(), new.wakes()), (0, 1), "the end wakes too");
}

#[test]
fn clone_has_seen_what_the_original_has() {
    let publisher = Publisher::new(0);
    let mut watch = publisher.watch();
    publisher.publish(1);
    let mut before = watch.clone();
    assert_eq!(poll_changed(&mut watch), Poll::Ready(Some(1)));
    let mut after = watch.clone();
    assert_eq!(poll_changed(&mut before), Poll::Ready(Some(1)));
    assert!(poll_changed(&mut after).is_pending());
}

#[test]
fn watches_on_threads_all_see_the_last_value() {
    let publisher = Publisher::new(0u32);
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut watch = publisher.watch();
            scope.spawn(move || {
                let mut last = 0;
                block_on(async {
                    while let Some(value) = watch.changed().await {
                        assert!(value > last, "{value} after {last}");
                        last = value;
                    }
                });
                assert_eq!(last, 10_000);
            });
        }
        for value in 1..=10_000 {
            publisher.publish(value);
        }
        drop(publisher);
    });
}

#[test]
fn race_is_won_by_a_future_that_ends() {
    let stopper = Stopper::default();
    assert_eq!(block_on(stopper.race(ready(3))), Some(3));
    assert!(!stopper.is_stopped());
}

#[test]
fn race_is_won_by_a_stop_from_another_thread_and_drops_the_future() {
    let stopper = Stopper::new();
    let held = Arc::new(());
    let holding = {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            pending::<()>().await;
        }
    };
    thread::scope(|scope| {
        let other = stopper.clone();
        scope.spawn(move || other.stop());
        assert_eq!(block_on(stopper.race(holding)), None);
    });
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(stopper.is_stopped());
}

#[test]
fn stop_stays_and_wins_over_what_is_ready() {
    let stopper = Stopper::new();
    stopper.stop();
    stopper.stop();
    block_on(stopper.stopped());
    assert_eq!(block_on(stopper.clone().race(ready(3))), None);
}
