//! The requests under way on a link, by small ids.

use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::answer::Answered;

/// How many bits of an id are the slot's index; the rest count how often the slot was used.
const INDEX_BITS: u32 = 20;

/// The most slots that a link can have.
const SLOTS_MAX: usize = 1 << INDEX_BITS;

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The peer answered.
    Answered(Answered),
    /// The link broke before the whole request had been handed to it: it has not been run.
    NotSent,
    /// The link broke afterwards: it may have been run.
    Lost(Arc<str>),
}

/// Names one use of one slot. Its [`id`](Key::id) is what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Below 2^52, so that a peer which reads numbers as floating point gives it back unharmed.
    ///
    /// It differs with each use of the slot: a second answer to an old request names nobody, and
    /// can't be taken for the answer to a later one.
    pub(crate) fn id(self) -> u64 {
        u64::from(self.generation) << INDEX_BITS | u64::from(self.index)
    }

    fn from_id(id: u64) -> Option<Key> {
        let generation = u32::try_from(id >> INDEX_BITS).ok()?;
        Some(Key { index: (id & (SLOTS_MAX as u64 - 1)) as u32, generation })
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Where the request ends in the stream of this connection.
    end: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// The caller waits.
    Waiting(Option<Waker>),
    /// The caller left; the answer is still to come, and the id is not free before.
    Abandoned,
    /// The outcome is there, and the caller has not taken it yet.
    Done(Outcome),
}

/// All slots of a link.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// What [`Slots::answer`] did.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// The caller has it; wake it.
    To(Option<Waker>),
    /// The caller had left: the slot is free.
    ToNobody,
    /// No request under way has this id: the peer broke the protocol.
    Unknown,
}

impl Slots {
    /// How many are in use.
    pub(crate) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot; `None` if a million callers have outcomes that they don't take.
    pub(crate) fn take(&mut self) -> Option<Key> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() == SLOTS_MAX => return None,
            None => {
                self.slots.push(Slot { generation: 0, end: 0, state: State::Free });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.state = State::Waiting(None);
        Some(Key { index, generation: slot.generation })
    }

    /// Says where the request ends in the stream.
    pub(crate) fn ends_at(&mut self, key: Key, end: u64) {
        self.slots[key.index as usize].end = end;
    }

    /// Takes an answer in.
    pub(crate) fn answer(&mut self, id: u64, answered: Answered) -> Delivered {
        let slot = Key::from_id(id).and_then(|key| {
            let slot = self.slots.get_mut(key.index as usize)?;
            (slot.generation == key.generation).then_some((key, slot))
        });
        let Some((key, slot)) = slot else { return Delivered::Unknown };
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Done(Outcome::Answered(answered));
                Delivered::To(waker)
            }
            State::Abandoned => {
                self.release(key.index);
                Delivered::ToNobody
            }
            State::Free | State::Done(_) => Delivered::Unknown,
        }
    }

    /// Takes the outcome out, and frees the slot; or leaves a waker.
    pub(crate) fn poll(&mut self, key: Key, waker: &Waker) -> Poll<Outcome> {
        let slot = &mut self.slots[key.index as usize];
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Done(outcome) => {
                self.release(key.index);
                Poll::Ready(outcome)
            }
            State::Waiting(Some(known)) if known.will_wake(waker) => {
                slot.state = State::Waiting(Some(known));
                Poll::Pending
            }
            _ => {
                slot.state = State::Waiting(Some(waker.clone()));
                Poll::Pending
            }
        }
    }

    /// The caller left. `true` if the answer is still to come.
    pub(crate) fn abandon(&mut self, key: Key) -> bool {
        let slot = &mut self.slots[key.index as usize];
        let waits = matches!(slot.state, State::Waiting(_));
        if waits {
            slot.state = State::Abandoned;
        } else {
            self.release(key.index);
        }
        waits
    }

    /// The link broke after `written` bytes of its stream: nothing more will be answered.
    ///
    /// Adds those to wake to `wakers`, and gives the number of requests that were under way.
    pub(crate) fn lose_all(
        &mut self,
        written: u64,
        because: &Arc<str>,
        wakers: &mut Vec<Waker>,
    ) -> usize {
        let mut ended = 0;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            match &mut slot.state {
                State::Waiting(waker) => {
                    ended += 1;
                    wakers.extend(waker.take());
                    let whole = slot.end <= written;
                    slot.state = State::Done(match whole {
                        true => Outcome::Lost(Arc::clone(because)),
                        false => Outcome::NotSent,
                    });
                }
                State::Abandoned => {
                    self.release(index as u32);
                    ended += 1;
                }
                State::Free | State::Done(_) => {}
            }
        }
        ended
    }

    fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::{Delivered, Key, Outcome, Slots};
    use crate::Json;
    use crate::answer::Answered;
    use std::sync::Arc;
    use std::task::{Poll, Waker};

    fn answered() -> Answered {
        Answered::Result(Json::new("1").unwrap())
    }

    #[test]
    fn an_answer_reaches_its_caller_once() {
        let mut slots = Slots::default();
        let (first, second) = (slots.take().unwrap(), slots.take().unwrap());
        assert!(matches!(slots.answer(second.id(), answered()), Delivered::To(None)));
        assert!(matches!(slots.answer(second.id(), answered()), Delivered::Unknown));
        assert!(slots.poll(first, Waker::noop()).is_pending());
        assert!(matches!(slots.poll(second, Waker::noop()), Poll::Ready(Outcome::Answered(_))));
        assert!(matches!(slots.answer(second.id(), answered()), Delivered::Unknown));
        assert_eq!(slots.used(), 1);
    }

    #[test]
    fn a_late_answer_is_not_given_to_the_next_user_of_the_slot() {
        let mut slots = Slots::default();
        let old = slots.take().unwrap();
        assert!(slots.abandon(old));
        assert!(matches!(slots.answer(old.id(), answered()), Delivered::ToNobody));
        let next = slots.take().unwrap();
        assert_eq!((next.index, next.generation), (old.index, old.generation + 1));
        assert!(matches!(slots.answer(old.id(), answered()), Delivered::Unknown));
        assert!(slots.poll(next, Waker::noop()).is_pending());
    }

    #[test]
    fn what_was_left_keeps_its_id_until_the_answer_comes() {
        let mut slots = Slots::default();
        let left = slots.take().unwrap();
        assert!(slots.abandon(left));
        assert_ne!(slots.take().unwrap().index, left.index);
        assert_eq!(slots.used(), 2);
    }

    #[test]
    fn a_broken_link_tells_the_sent_from_the_unsent() {
        let mut slots = Slots::default();
        let (sent, half, left) =
            (slots.take().unwrap(), slots.take().unwrap(), slots.take().unwrap());
        slots.ends_at(sent, 100);
        slots.ends_at(half, 101);
        slots.abandon(left);
        let because = Arc::from("gone");
        assert_eq!(slots.lose_all(100, &because, &mut Vec::new()), 3);
        assert!(matches!(slots.poll(sent, Waker::noop()), Poll::Ready(Outcome::Lost(_))));
        assert!(matches!(slots.poll(half, Waker::noop()), Poll::Ready(Outcome::NotSent)));
        assert_eq!(slots.used(), 0);
    }

    #[test]
    fn ids_read_back_and_fit_a_floating_point_number() {
        let key = Key { index: 0xf_ffff, generation: u32::MAX };
        assert_eq!(Key::from_id(key.id()), Some(key));
        assert!(key.id() < 1 << 53);
        assert_eq!(Key::from_id(u64::MAX), None);
    }
}
