//! Channels, tokens and bells, within a worker and from other threads.

use remuda_net::mpsc::{SendError, TrySendError};
use remuda_net::{CancellationToken, Notifier, mpsc, oneshot, spawn_with_handle, yield_now};

async fn values_from_threads_arrive_in_their_order() {
    const SENDERS: usize = 4;
    const EACH: usize = 20_000;
    let (sender, mut receiver) = mpsc::channel(64);
    let threads: Vec<_> = (0..SENDERS)
        .map(|id| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                (0..EACH).for_each(|value| sender.blocking_send((id, value)).unwrap());
            })
        })
        .collect();
    drop(sender);
    let mut next = [0; SENDERS];
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch).await > 0 {
        assert!(batch.len() <= 64);
        for (id, value) in batch.drain(..) {
            assert_eq!(value, next[id]);
            next[id] += 1;
        }
    }
    assert_eq!(next, [EACH; SENDERS]);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

async fn a_full_channel_makes_tasks_wait() {
    let (sender, mut receiver) = mpsc::channel(2);
    let sending = spawn_with_handle(async move {
        for value in 0..100 {
            sender.send(value).await.unwrap();
        }
        sender.send(100).await
    });
    for value in 0..100 {
        assert_eq!(receiver.recv().await, Some(value));
    }
    assert!(sending.await.unwrap().is_ok());
    assert_eq!((receiver.recv().await, receiver.recv().await), (Some(100), None));
}

async fn a_sender_that_gives_up_lets_the_next_one_in() {
    let (sender, mut receiver) = mpsc::channel(1);
    sender.try_send(0).unwrap();
    assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
    let of = |value| {
        let sender = sender.clone();
        spawn_with_handle(async move { sender.send(value).await })
    };
    let (first, second) = (of(1), of(2));
    yield_now().await;
    assert_eq!(receiver.try_recv(), Some(0));
    // The first was told of the space, and goes before it takes it.
    first.abort();
    assert_eq!(receiver.recv().await, Some(2));
    assert_eq!(second.await, Ok(Ok(())));
    drop(receiver);
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    assert_eq!(sender.send(4).await, Err(SendError(4)));
    assert!(sender.is_closed());
}

async fn a_runtimes_thread_can_feed_a_plain_one() {
    let (sender, mut receiver) = mpsc::channel(4);
    let sums = std::thread::spawn(move || {
        let mut sum = 0_u64;
        while let Some(value) = receiver.blocking_recv() {
            sum += value;
        }
        sum
    });
    for value in 1..=1_000_u64 {
        sender.send(value).await.unwrap();
    }
    drop(sender);
    assert_eq!(sums.join().unwrap(), 500_500);
}

async fn a_oneshot_carries_one_value_or_tells_of_a_drop() {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(7).unwrap());
    assert_eq!(receiver.await, Ok(7));
    let (sender, receiver) = oneshot::channel::<u8>();
    drop(sender);
    assert!(receiver.await.is_err());
    let (mut sender, receiver) = oneshot::channel();
    let closed = spawn_with_handle(async move {
        sender.closed().await;
        sender.send(1)
    });
    yield_now().await;
    drop(receiver);
    assert_eq!(closed.await.unwrap(), Err(1));
}

async fn a_token_reaches_all_who_wait() {
    let token = CancellationToken::new();
    let child = token.child_token();
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let token = if number % 2 == 0 { token.clone() } else { child.clone() };
            spawn_with_handle(async move { token.cancelled().await })
        })
        .collect();
    let alone = token.child_token();
    alone.cancel();
    yield_now().await;
    assert!(alone.is_cancelled() && !token.is_cancelled());
    assert!(waiting.iter().all(|task| !task.is_finished()));
    let elsewhere = token.clone();
    std::thread::spawn(move || elsewhere.cancel());
    for task in waiting {
        task.await.unwrap();
    }
    assert!(child.is_cancelled() && token.child_token().is_cancelled());
}

async fn a_bell_that_was_rung_before_is_heard() {
    let bell = Notifier::new();
    bell.notify();
    bell.notify();
    bell.notified().await;
    let (other, heard) = (bell.clone(), spawn_with_handle(async move { bell.notified().await }));
    yield_now().await;
    assert!(!heard.is_finished());
    std::thread::spawn(move || other.notify());
    heard.await.unwrap();
}

async fn wake_ups_from_other_threads_are_not_lost() {
    let (to, mut from_runtime) = mpsc::channel::<u32>(1);
    let (back, mut answers) = mpsc::channel::<u32>(1);
    let echo = std::thread::spawn(move || {
        while let Some(value) = from_runtime.blocking_recv() {
            back.try_send(value).unwrap();
        }
    });
    for value in 0..20_000 {
        to.send(value).await.unwrap();
        assert_eq!(answers.recv().await, Some(value));
    }
    drop(to);
    echo.join().unwrap();
}

on_both_drivers!(
    values_from_threads_arrive_in_their_order,
    a_full_channel_makes_tasks_wait,
    a_sender_that_gives_up_lets_the_next_one_in,
    a_runtimes_thread_can_feed_a_plain_one,
    a_oneshot_carries_one_value_or_tells_of_a_drop,
    a_token_reaches_all_who_wait,
    a_bell_that_was_rung_before_is_heard,
    wake_ups_from_other_threads_are_not_lost,
);
