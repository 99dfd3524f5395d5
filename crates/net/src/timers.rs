//! Deadlines and who waits for them: a binary heap whose entries know their place, so that a
//! timer is taken out when its future is dropped.

use std::task::Waker;
use std::time::Instant;

use crate::sleeper::Sleeper;
use crate::slots::{Key, Slots};
use crate::wakes::Wakes;

struct Timer {
    sleeper: Sleeper,
    /// Where it is in the heap.
    place: usize,
}

#[derive(Default)]
pub(crate) struct Timers {
    slots: Slots<Timer>,
    heap: Vec<(Instant, Key)>,
}

impl Timers {
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn insert(&mut self, deadline: Instant, sleeper: Sleeper) -> Key {
        let place = self.heap.len();
        let key = self.slots.insert(Timer { sleeper, place });
        self.heap.push((deadline, key));
        self.rise(place);
        key
    }

    /// Notes anew who waits; false if the timer fired already.
    pub(crate) fn renew(&mut self, key: Key, waker: &Waker) -> bool {
        let timer = self.slots.get_mut(key);
        timer.map(|timer| timer.sleeper = Sleeper::of(waker)).is_some()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Sleeper> {
        let timer = self.slots.remove(key)?;
        self.heap.swap_remove(timer.place);
        if timer.place < self.heap.len() {
            self.settle(timer.place);
            self.rise(timer.place);
            self.sink(timer.place);
        }
        Some(timer.sleeper)
    }

    /// Moves who waits for a timer that is due to `due`.
    pub(crate) fn fire(&mut self, now: Instant, due: &mut Wakes) {
        while let Some(&(deadline, key)) = self.heap.first() {
            if deadline > now {
                break;
            }
            due.extend(self.remove(key));
        }
    }

    fn settle(&mut self, place: usize) {
        let (_, key) = self.heap[place];
        if let Some(timer) = self.slots.get_mut(key) {
            timer.place = place;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    fn before(&self, a: usize, b: usize) -> bool {
        self.heap[a].0 < self.heap[b].0
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.before(place, parent) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut least = place;
            if left < self.heap.len() && self.before(left, least) {
                least = left;
            }
            if right < self.heap.len() && self.before(right, least) {
                least = right;
            }
            if least == place {
                break;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_removed_ones_do_not() {
        let mut timers = Timers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut keys = Vec::new();
        for ms in [50, 10, 40, 20, 30, 5, 45, 15] {
            keys.push(timers.insert(at(ms), Sleeper::Other(Waker::noop().clone())));
        }
        assert!(timers.remove(keys[1]).is_some());
        assert!(timers.remove(keys[1]).is_none());
        let mut expected = vec![5, 15, 20, 30, 40, 45, 50].into_iter();
        while let Some(next) = timers.next_deadline() {
            assert_eq!(Some(next), expected.next().map(at));
            let mut due = Wakes::default();
            timers.fire(next, &mut due);
            assert!(due.next_other().is_some() && due.is_empty());
        }
        assert_eq!(expected.next(), None);
    }
}
