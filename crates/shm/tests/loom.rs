//! Every interleaving and every permitted reordering of the ring that ships and of its park/wake
//! protocol, for capacities 1 to 3. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p remuda-shm --no-default-features --release --test loom`.
//!
//! Each of these tests fails, by a deadlock that loom reports, when the fence in
//! `wake_consumer`, `wake_producer` or one of the two `park` is taken out.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use remuda_shm::ring::{Consumer, Heap, Look, Producer, PushError, heap};

/// What an eventfd is between processes: it remembers that it was rung.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn notify(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// A doorbell for each side.
#[derive(Clone, Default)]
struct Bells {
    consumer: Arc<Bell>,
    producer: Arc<Bell>,
}

fn explore(f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(f);
}

fn ring(capacity: u32) -> (Producer<Heap>, Consumer<Heap>, Bells) {
    let (producer, consumer) = heap(capacity, 1).unwrap();
    (producer, consumer, Bells::default())
}

/// `false` when the consumer has left.
fn send(producer: &mut Producer<Heap>, bells: &Bells, message: u8) -> bool {
    loop {
        match producer.push(&[message]) {
            Ok(wake) => {
                if wake {
                    bells.consumer.notify();
                }
                return true;
            }
            Err(PushError::Closed) => return false,
            Err(PushError::Full) => {
                if !producer.park().unwrap() {
                    bells.producer.wait();
                    producer.unpark();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// As `send_batch`: wakes the consumer before it waits for room, and once at the end.
fn send_batch(producer: &mut Producer<Heap>, bells: &Bells, messages: &[u8]) {
    for message in messages {
        while producer.room().unwrap() == 0 {
            if producer.publish() {
                bells.consumer.notify();
            }
            if !producer.park().unwrap() {
                bells.producer.wait();
                producer.unpark();
            }
        }
        producer.stage(&[*message]);
    }
    if producer.publish() {
        bells.consumer.notify();
    }
}

fn recv(consumer: &mut Consumer<Heap>, bells: &Bells) -> Option<u8> {
    recv_woken_by(consumer, bells, Consumer::unpark)
}

/// As an event loop that leaves it to who sent a message to take back that this side sleeps.
fn recv_lazily(consumer: &mut Consumer<Heap>, bells: &Bells) -> Option<u8> {
    recv_woken_by(consumer, bells, |consumer| {
        if consumer.look().unwrap().is_none() {
            consumer.unpark();
        }
    })
}

fn recv_woken_by(
    consumer: &mut Consumer<Heap>,
    bells: &Bells,
    woken: impl Fn(&mut Consumer<Heap>),
) -> Option<u8> {
    loop {
        let mut message = Vec::new();
        if let Some(wake) = consumer.pop(&mut message).unwrap() {
            if wake {
                bells.producer.notify();
            }
            return Some(message[0]);
        }
        if consumer.look_closely().unwrap() == Look::Closed {
            return None;
        }
        if !consumer.park().unwrap() {
            bells.consumer.wait();
            woken(consumer);
        }
    }
}

type Recv = fn(&mut Consumer<Heap>, &Bells) -> Option<u8>;

fn send_one_by_one(capacity: u32, count: u8, recv: Recv) {
    explore(move || {
        let (mut producer, mut consumer, bells) = ring(capacity);
        let theirs = bells.clone();
        let sender = thread::spawn(move || {
            for message in 0..count {
                assert!(send(&mut producer, &theirs, message));
            }
        });
        for message in 0..count {
            assert_eq!(recv(&mut consumer, &bells), Some(message));
        }
        sender.join().unwrap();
    });
}

#[test]
fn messages_one_by_one_through_one_slot() {
    send_one_by_one(1, 2, recv);
}

#[test]
fn messages_one_by_one_through_two_slots() {
    send_one_by_one(2, 3, recv);
}

#[test]
fn messages_one_by_one_through_three_slots() {
    send_one_by_one(3, 4, recv);
}

#[test]
fn messages_to_a_consumer_that_leaves_its_waking_to_the_producer() {
    send_one_by_one(1, 2, recv_lazily);
    send_one_by_one(2, 3, recv_lazily);
}

/// As a sender that wakes a consumer which sleeps before it writes.
fn messages_that_the_consumer_is_woken_ahead_of(capacity: u32, count: u8) {
    explore(move || {
        let (mut producer, mut consumer, bells) = ring(capacity);
        let theirs = bells.clone();
        let sender = thread::spawn(move || {
            for message in 0..count {
                if producer.wake_ahead() {
                    theirs.consumer.notify();
                }
                assert!(send(&mut producer, &theirs, message));
            }
        });
        for message in 0..count {
            assert_eq!(recv(&mut consumer, &bells), Some(message));
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_consumer_that_was_woken_ahead_and_slept_again_is_woken_again() {
    messages_that_the_consumer_is_woken_ahead_of(1, 2);
    messages_that_the_consumer_is_woken_ahead_of(2, 3);
}

fn batch_larger_than_the_ring(capacity: u32) {
    explore(move || {
        let (mut producer, mut consumer, bells) = ring(capacity);
        let theirs = bells.clone();
        let messages: Vec<u8> = (0..=capacity as u8).collect();
        let batch = messages.clone();
        let sender = thread::spawn(move || send_batch(&mut producer, &theirs, &batch));
        for message in messages {
            assert_eq!(recv(&mut consumer, &bells), Some(message));
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_batch_larger_than_one_slot() {
    batch_larger_than_the_ring(1);
}

#[test]
fn a_batch_larger_than_two_slots() {
    batch_larger_than_the_ring(2);
}

#[test]
fn a_batch_larger_than_three_slots() {
    batch_larger_than_the_ring(3);
}

#[test]
fn the_consumer_gets_what_was_published_before_the_producer_left() {
    for capacity in 1..=3 {
        explore(move || {
            let (mut producer, mut consumer, bells) = ring(capacity);
            let theirs = bells.clone();
            let sender = thread::spawn(move || {
                assert!(send(&mut producer, &theirs, 7));
                if producer.close() {
                    theirs.consumer.notify();
                }
            });
            assert_eq!(recv(&mut consumer, &bells), Some(7));
            assert_eq!(recv(&mut consumer, &bells), None);
            sender.join().unwrap();
        });
    }
}

#[test]
fn the_producer_is_told_that_the_consumer_left() {
    for capacity in 1..=3 {
        explore(move || {
            let (mut producer, mut consumer, bells) = ring(capacity);
            let theirs = bells.clone();
            let receiver = thread::spawn(move || {
                if consumer.close() {
                    theirs.producer.notify();
                }
            });
            let mut sent = 0;
            while send(&mut producer, &bells, 1) {
                sent += 1;
                assert!(sent <= capacity, "more than the ring holds");
            }
            receiver.join().unwrap();
        });
    }
}

#[test]
fn both_ends_close_at_once() {
    explore(|| {
        let (mut producer, mut consumer, bells) = ring(1);
        let theirs = bells.clone();
        let sender = thread::spawn(move || {
            let _ = send(&mut producer, &theirs, 1);
            if producer.close() {
                theirs.consumer.notify();
            }
        });
        let first = recv(&mut consumer, &bells);
        assert!(first.is_none_or(|message| message == 1));
        if consumer.close() {
            bells.producer.notify();
        }
        sender.join().unwrap();
    });
}

#[test]
fn two_rings_answer_each_other() {
    explore(|| {
        let (mut ask, mut asked, there) = ring(1);
        let (mut answer, mut answered, back) = ring(1);
        let (there2, back2) = (there.clone(), back.clone());
        let server = thread::spawn(move || {
            let question = recv(&mut asked, &there2).unwrap();
            assert!(send(&mut answer, &back2, question + 1));
        });
        assert!(send(&mut ask, &there, 1));
        assert_eq!(recv(&mut answered, &back), Some(2));
        server.join().unwrap();
    });
}
