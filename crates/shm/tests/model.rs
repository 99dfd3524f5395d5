//! Any sequence of operations on a ring does what it does on a queue. Runs under miri as well.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::VecDeque;

use proptest::prelude::*;
use remuda_shm::ring::{Look, PushError, heap};

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Stage(Vec<u8>),
    Publish,
    Stream { parts: Vec<Vec<u8>>, most: u32 },
    Reserve { len: usize, commit: usize, abandon: bool },
    Pop,
    TakeBatch(usize),
    ParkConsumer,
    ParkProducer,
    CloseProducer,
    CloseConsumer,
}

fn step() -> impl Strategy<Value = Step> {
    let message = || prop::collection::vec(any::<u8>(), 0..=140);
    prop_oneof![
        6 => message().prop_map(Step::Push),
        4 => message().prop_map(Step::Stage),
        3 => Just(Step::Publish),
        3 => (prop::collection::vec(message(), 0..=4), 0u32..6)
            .prop_map(|(parts, most)| Step::Stream { parts, most }),
        3 => (0usize..=140, 0usize..=140, prop::bool::weighted(0.3)).prop_map(|(a, b, abandon)| {
            Step::Reserve { len: a.max(b), commit: a.min(b), abandon }
        }),
        6 => Just(Step::Pop),
        3 => (1usize..5).prop_map(Step::TakeBatch),
        2 => Just(Step::ParkConsumer),
        2 => Just(Step::ParkProducer),
        1 => Just(Step::CloseProducer),
        1 => Just(Step::CloseConsumer),
    ]
}

/// What the ring is compared with.
#[derive(Default)]
struct Model {
    capacity: usize,
    slot_size: usize,
    visible: VecDeque<Vec<u8>>,
    staged: VecDeque<Vec<u8>>,
    consumer_waits: bool,
    producer_waits: bool,
    producer_closed: bool,
    consumer_closed: bool,
    /// The producer knows it since it last published or parked.
    producer_knows: bool,
}

impl Model {
    fn has_room(&self) -> bool {
        self.visible.len() + self.staged.len() < self.capacity
    }

    /// Whether the consumer must be woken.
    fn publish(&mut self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        self.visible.append(&mut self.staged);
        self.producer_knows |= self.consumer_closed;
        std::mem::take(&mut self.consumer_waits)
    }

    fn push_error(&self, len: usize) -> Option<PushError> {
        if len > self.slot_size {
            Some(PushError::TooLarge)
        } else if self.producer_knows {
            Some(PushError::Closed)
        } else if !self.has_room() {
            Some(PushError::Full)
        } else {
            None
        }
    }
}

#[allow(clippy::too_many_lines, reason = "one arm a step reads best in one place")]
fn run(capacity: u32, slot_size: u32, steps: Vec<Step>) {
    let (mut producer, mut consumer) = heap(capacity, slot_size).unwrap();
    let mut model =
        Model { capacity: capacity as usize, slot_size: slot_size as usize, ..Model::default() };
    for step in steps {
        match step {
            Step::Push(message) if !model.producer_closed => {
                match model.push_error(message.len()) {
                    Some(error) => assert_eq!(producer.push(&message), Err(error)),
                    None => {
                        let pushed = producer.push(&message);
                        model.staged.push_back(message);
                        assert_eq!(pushed, Ok(model.publish()));
                    }
                }
            }
            Step::Stage(message) if !model.producer_closed => {
                assert_eq!(producer.room().unwrap() > 0, model.has_room());
                if model.has_room() && message.len() <= model.slot_size {
                    producer.stage(&message);
                    model.staged.push_back(message);
                }
            }
            Step::Publish if !model.producer_closed => {
                assert_eq!(producer.publish(), model.publish());
            }
            Step::Stream { parts, most } if !model.producer_closed => {
                let whole = parts.concat();
                let mut left: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let pushed = producer.push_stream(&mut left, most);
                let mut sent = 0;
                for message in whole.chunks(model.slot_size).take(most as usize) {
                    if model.has_room() {
                        model.staged.push_back(message.to_vec());
                        sent += message.len();
                    }
                }
                assert_eq!(left.concat(), whole[sent..]);
                assert_eq!(pushed, Ok((sent, model.publish())));
            }
            Step::Reserve { len, commit, abandon } if !model.producer_closed => {
                match (producer.reserve(len), model.push_error(len)) {
                    (Err(error), expected) => assert_eq!(Some(error), expected),
                    (Ok(mut slot), expected) => {
                        assert_eq!(expected, None);
                        let message: Vec<u8> = (0..len).map(|i| (i * 7 + commit) as u8).collect();
                        let half = len / 2;
                        slot.write(half, &message[half..]);
                        slot.write(0, &message[..half]);
                        if !abandon {
                            let woken = slot.commit(commit);
                            model.staged.push_back(message[..commit].to_vec());
                            assert_eq!(woken, model.publish());
                        }
                    }
                }
            }
            Step::Pop if !model.consumer_closed => {
                let mut message = Vec::new();
                let popped = consumer.pop(&mut message).unwrap();
                match model.visible.pop_front() {
                    Some(expected) => {
                        assert_eq!(message, expected);
                        assert_eq!(popped, Some(std::mem::take(&mut model.producer_waits)));
                    }
                    None => assert_eq!(popped, None),
                }
            }
            Step::TakeBatch(most) if !model.consumer_closed => {
                let mut taken = 0;
                while taken < most.min(capacity as usize) {
                    let Look::Message(message) = consumer.look_closely().unwrap() else { break };
                    let mut bytes = vec![std::mem::MaybeUninit::uninit(); message.len()];
                    let half = message.len() / 2;
                    consumer.read(message, half, &mut bytes[half..]);
                    consumer.read(message, 0, &mut bytes[..half]);
                    #[allow(unsafe_code, reason = "as a caller of `read` must")]
                    let bytes: Vec<u8> =
                        // SAFETY: `read` filled both halves.
                        bytes.into_iter().map(|byte| unsafe { byte.assume_init() }).collect();
                    assert_eq!(Some(bytes), model.visible.pop_front());
                    consumer.advance();
                    taken += 1;
                }
                let woken = taken > 0 && std::mem::take(&mut model.producer_waits);
                assert_eq!(consumer.release(), woken);
            }
            Step::ParkConsumer if !model.consumer_closed => {
                let awake = !model.visible.is_empty() || model.producer_closed;
                assert_eq!(consumer.park().unwrap(), awake);
                model.consumer_waits = !awake;
            }
            Step::ParkProducer if !model.producer_closed => {
                model.producer_knows |= model.consumer_closed;
                let awake = model.producer_knows || model.has_room();
                assert_eq!(producer.park().unwrap(), awake);
                model.producer_waits = !awake;
            }
            Step::CloseProducer if !model.producer_closed && model.staged.is_empty() => {
                assert_eq!(producer.close(), std::mem::take(&mut model.consumer_waits));
                model.producer_closed = true;
                model.producer_waits = false;
                model.producer_knows |= model.consumer_closed;
            }
            Step::CloseConsumer if !model.consumer_closed => {
                assert_eq!(consumer.close(), std::mem::take(&mut model.producer_waits));
                model.consumer_closed = true;
                model.consumer_waits = false;
            }
            _ => {}
        }
        assert_eq!(producer.is_consumer_gone(), model.producer_knows);
        if !model.consumer_closed {
            let empty = if model.producer_closed { Look::Closed } else { Look::Empty };
            match consumer.look_closely().unwrap() {
                Look::Message(message) => {
                    assert_eq!(Some(message.len()), model.visible.front().map(Vec::len));
                }
                look => assert_eq!((look, model.visible.len()), (empty, 0)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 6 } else { 120 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_of_operations_does_what_a_queue_does(
        capacity in 1u32..=5,
        slot_size in prop_oneof![Just(1u32), Just(56), Just(64), Just(120), Just(130)],
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 40 } else { 200 }),
    ) {
        run(capacity, slot_size, steps);
    }
}

/// The sequence word has 32 bits of the position; a long run takes slots through many laps.
#[test]
fn many_messages_through_three_slots_keep_their_order() {
    let (mut producer, mut consumer) = heap(3, 8).unwrap();
    let count: u64 = if cfg!(miri) { 500 } else { 50_000 };
    let sender = std::thread::spawn(move || {
        for i in 0..count {
            while producer.push(&i.to_le_bytes()) == Err(PushError::Full) {
                std::thread::yield_now();
            }
        }
    });
    let mut message = Vec::new();
    for i in 0..count {
        message.clear();
        while consumer.pop(&mut message).unwrap().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(message, i.to_le_bytes());
    }
    sender.join().unwrap();
}
