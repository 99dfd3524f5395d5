//! The futures for tokio keep what they promise.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use remuda_shm::{Bytes, CancellationToken, CloseReason, Options, ShmError, SpscFace, SpscHandle};

fn pair(options: &Options) -> (SpscFace, SpscHandle) {
    let (engine, application) = UnixStream::pair().unwrap();
    let face = SpscFace::over(&engine, options).unwrap();
    let handle = SpscHandle::over(&application, options).unwrap();
    (face, handle)
}

fn small(capacity: u32) -> Options {
    Options::new(capacity, 64).unwrap()
}

fn numbered(count: u32) -> Vec<Bytes> {
    (0..count).map(|i| Bytes::copy_from_slice(&i.to_le_bytes())).collect()
}

/// Polls once; `true` when it is not ready.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending()))
        .await
}

#[tokio::test]
async fn messages_and_answers() {
    let (face, handle) = pair(&small(4));
    let engine = tokio::spawn(async move {
        while let Some(message) = face.recv().await {
            if face.send(message).await.is_err() {
                break;
            }
        }
    });
    for message in numbered(3_000) {
        handle.send(message.clone()).await.unwrap();
        assert_eq!(handle.recv().await, Some(message));
    }
    drop(handle);
    engine.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_answers_on_two_threads() {
    for spin in [0, 10, 200] {
        let (face, handle) = pair(&small(4).spin(Duration::from_micros(spin)));
        let engine = tokio::spawn(async move {
            while let Some(message) = face.recv().await {
                if face.send(message).await.is_err() {
                    break;
                }
            }
        });
        for message in numbered(3_000) {
            handle.send(message.clone()).await.unwrap();
            assert_eq!(handle.recv().await, Some(message));
        }
        drop(handle);
        engine.await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_larger_than_the_ring_wakes_a_consumer_that_sleeps() {
    for capacity in [1, 3, 16] {
        let (face, handle) = pair(&small(capacity));
        let batch = numbered(5 * capacity + 1);
        let expected = batch.clone();
        let receiver = tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some(message) = face.recv().await {
                got.push(message);
            }
            got
        });
        // The receiver has run, found nothing and sleeps.
        tokio::task::yield_now().await;
        handle.send_batch(&batch).await.unwrap();
        drop(handle);
        assert_eq!(receiver.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_batch_does_what_its_sends_would() {
    // A ring that holds both, and one that neither fits into.
    for capacity in [16, 3] {
        let (face, handle) = pair(&small(capacity));
        let batch = numbered(8);
        let send = async {
            handle.send_batch(&batch).await.unwrap();
            for message in &batch {
                handle.send(message.clone()).await.unwrap();
            }
        };
        let receive = async {
            let mut got = Vec::new();
            while got.len() < 16 {
                got.extend(face.recv().await);
            }
            got
        };
        let ((), got) = tokio::join!(send, receive);
        assert_eq!(got[..8], batch, "the batch, in its order");
        assert_eq!(got[8..], batch, "the single ones");
    }
}

#[tokio::test]
async fn sizes_are_checked_before_anything_is_published() {
    let (face, handle) = pair(&small(4));
    let batch = [Bytes::from_static(b"fits"), Bytes::from(vec![0; 65])];
    let refused = handle.send_batch(&batch).await;
    assert!(matches!(refused, Err(ShmError::PacketTooLarge { len: 65, slot_size: 64 })));
    assert_eq!(face.try_recv().unwrap(), None);
    let refused = handle.send(Bytes::from(vec![0; 65])).await;
    assert!(matches!(refused, Err(ShmError::PacketTooLarge { .. })));
    handle.send(Bytes::from(vec![0; 64])).await.unwrap();
}

#[tokio::test]
async fn a_full_ring_yields_to_other_tasks() {
    for in_batch in [true, false] {
        let (face, handle) = pair(&small(1));
        let ran = Arc::new(AtomicBool::new(false));
        let other = {
            let ran = Arc::clone(&ran);
            tokio::spawn(async move {
                ran.store(true, Ordering::Relaxed);
                let mut count = 0;
                while face.recv().await.is_some() {
                    count += 1;
                }
                count
            })
        };
        if in_batch {
            handle.send_batch(&numbered(2)).await.unwrap();
        } else {
            for message in numbered(2) {
                handle.send(message).await.unwrap();
            }
        }
        assert!(
            ran.load(Ordering::Relaxed),
            "on one thread, the send can only end after the other ran"
        );
        drop(handle);
        assert_eq!(other.await.unwrap(), 2);
    }
}

#[tokio::test]
async fn what_a_batch_published_stays_when_it_is_dropped() {
    let (face, handle) = pair(&small(2));
    let batch = numbered(5);
    {
        let mut sending = pin!(handle.send_batch(&batch));
        assert!(is_pending(&mut sending).await);
    }
    assert_eq!(face.recv().await.as_ref(), Some(&batch[0]));
    assert_eq!(face.recv().await.as_ref(), Some(&batch[1]));
    assert_eq!(face.try_recv().unwrap(), None);
    handle.send(batch[4].clone()).await.unwrap();
    assert_eq!(face.recv().await.as_ref(), Some(&batch[4]), "the handle is still of use");
}

#[tokio::test]
async fn a_ring_that_stays_full_for_the_whole_limit_is_closed() {
    let limit = Duration::from_millis(80);
    let (face, handle) = pair(&small(1).full_limit(limit));
    let begun = Instant::now();
    assert!(matches!(handle.send_batch(&numbered(2)).await, Err(ShmError::Closed)));
    assert!(begun.elapsed() >= limit);
    assert_eq!(handle.closed_by(), Some(CloseReason::Full));
    assert!(face.recv().await.is_some(), "partial progress is kept");
    assert_eq!(face.recv().await, None);
}

#[tokio::test]
async fn the_limit_is_five_seconds() {
    assert_eq!(remuda_shm::FULL_LIMIT_DEFAULT, Duration::from_secs(5));
    let (_face, handle) = pair(&small(1));
    let begun = Instant::now();
    assert!(matches!(handle.send_batch(&numbered(2)).await, Err(ShmError::Closed)));
    let waited = begun.elapsed().as_secs();
    assert!((5..15).contains(&waited), "{waited} s");
    assert_eq!(handle.closed_by(), Some(CloseReason::Full));
}

#[tokio::test]
async fn a_limit_of_any_length_is_waited_for() {
    let (face, handle) = pair(&small(1).full_limit(Duration::MAX));
    let batch = numbered(3);
    let (sent, received) = tokio::join!(handle.send_batch(&batch), async {
        let mut received = Vec::new();
        while received.len() < 3 {
            received.extend(face.recv().await);
        }
        received
    });
    sent.unwrap();
    assert_eq!(received, batch);
}

#[tokio::test]
async fn cancelling_ends_what_waits_and_what_comes() {
    let (face, mut handle) = pair(&small(1));
    let token = CancellationToken::new();
    handle.set_cancel(token.clone());
    handle.send(Bytes::from_static(b"x")).await.unwrap();
    let handle = Arc::new(handle);
    let (sending, receiving) = (Arc::clone(&handle), Arc::clone(&handle));
    let sending = tokio::spawn(async move { sending.send(Bytes::from_static(b"y")).await });
    let receiving = tokio::spawn(async move { receiving.recv().await });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    token.cancel();
    assert!(matches!(sending.await.unwrap(), Err(ShmError::Closed)));
    assert_eq!(receiving.await.unwrap(), None);
    assert_eq!(handle.closed_by(), Some(CloseReason::Cancelled));
    assert!(face.try_send(b"late").is_ok());
    assert_eq!(handle.recv().await, None);
    assert!(matches!(handle.send(Bytes::new()).await, Err(ShmError::Closed)));
}

#[test]
fn cancelling_ends_a_blocking_receive() {
    let (_face, mut handle) = pair(&small(1));
    let token = CancellationToken::new();
    handle.set_cancel(token.clone());
    let receiving = std::thread::spawn(move || (handle.recv_blocking(), handle.closed_by()));
    std::thread::sleep(Duration::from_millis(20));
    token.cancel();
    assert_eq!(receiving.join().unwrap(), (None, Some(CloseReason::Cancelled)));
}

#[tokio::test]
async fn without_any_token_a_dropped_peer_ends_what_waits() {
    let (face, handle) = pair(&small(1));
    handle.send(Bytes::from_static(b"x")).await.unwrap();
    let handle = Arc::new(handle);
    let (sending, receiving) = (Arc::clone(&handle), Arc::clone(&handle));
    let sending = tokio::spawn(async move { sending.send(Bytes::from_static(b"y")).await });
    let receiving = tokio::spawn(async move { receiving.recv().await });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    drop(face);
    assert!(matches!(sending.await.unwrap(), Err(ShmError::Closed)));
    assert_eq!(receiving.await.unwrap(), None);
    assert_eq!(handle.closed_by(), Some(CloseReason::PeerGone));
}

#[tokio::test]
async fn a_receive_that_is_dropped_takes_nothing() {
    let (face, handle) = pair(&small(4));
    for message in numbered(100) {
        {
            let mut receiving = pin!(face.recv());
            assert!(is_pending(&mut receiving).await);
        }
        handle.send(message.clone()).await.unwrap();
        assert_eq!(face.recv().await, Some(message));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_send_and_many_receive() {
    let (face, handle) = pair(&small(4));
    let (face, handle) = (Arc::new(face), Arc::new(handle));
    let senders: Vec<_> = (0..4_u32)
        .map(|_| {
            let handle = Arc::clone(&handle);
            tokio::spawn(async move {
                for message in numbered(500) {
                    handle.send(message).await.unwrap();
                }
            })
        })
        .collect();
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let face = Arc::clone(&face);
            tokio::spawn(async move {
                let mut sum = 0;
                while let Some(message) = face.recv().await {
                    sum += u64::from(u32::from_le_bytes(message[..].try_into().unwrap()));
                }
                sum
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    drop(handle);
    let mut sum = 0;
    for receiver in receivers {
        sum += receiver.await.unwrap();
    }
    assert_eq!(sum, 4 * (0..500).sum::<u64>());
}

/// Both directions of a side share a doorbell; neither may take a ring that was meant for the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_of_both_sides_wait_at_once() {
    let (face, handle) = pair(&small(1).spin(Duration::ZERO));
    let (face, handle) = (Arc::new(face), Arc::new(handle));
    const COUNT: u32 = 5_000;
    let up = Arc::clone(&handle);
    let up = tokio::spawn(async move { up.send_batch(&numbered(COUNT)).await });
    let down = Arc::clone(&face);
    let down = tokio::spawn(async move { down.send_batch(&numbered(COUNT)).await });
    let at_engine = tokio::spawn(async move {
        for message in numbered(COUNT) {
            assert_eq!(face.recv().await, Some(message));
        }
    });
    for message in numbered(COUNT) {
        assert_eq!(handle.recv().await, Some(message));
    }
    at_engine.await.unwrap();
    up.await.unwrap().unwrap();
    down.await.unwrap().unwrap();
}

#[test]
fn a_pair_outlives_the_runtime_that_used_it_first() {
    let (face, handle) = pair(&small(1));
    for round in 0..3_u8 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            {
                let mut receiving = pin!(face.recv());
                assert!(is_pending(&mut receiving).await);
            }
            handle.send(Bytes::copy_from_slice(&[round])).await.unwrap();
            assert_eq!(face.recv().await.as_deref(), Some(&[round][..]));
        });
    }
}
