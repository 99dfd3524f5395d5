//! When things are due: a heap in which each place has at most one time.

use std::time::Duration;

/// Nanoseconds since the pool's start.
pub(crate) type Nanos = u64;

/// A time that never comes.
pub(crate) const NEVER: Nanos = u64::MAX;

/// A duration as nanoseconds; what doesn't fit (584 years) never comes.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}

/// As [`nanos`]; no duration never comes.
pub(crate) fn limit(duration: Option<Duration>) -> Nanos {
    duration.map_or(NEVER, nanos)
}

/// Not at home in the heap.
const OUT: u32 = u32::MAX;

/// A binary heap of times by place, with the position of each, so that a time can be moved or
/// taken out in O(log n) and nothing stale is ever kept: it holds as many times as there are
/// places with one.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: Vec<(Nanos, u32)>,
    position: Vec<u32>,
}

impl Deadlines {
    /// The first time.
    pub(crate) fn first(&self) -> Nanos {
        self.heap.first().map_or(NEVER, |(at, _)| *at)
    }

    /// The time of a place.
    pub(crate) fn at(&self, place: u32) -> Nanos {
        match self.position.get(place as usize) {
            Some(&position) if position != OUT => self.heap[position as usize].0,
            _ => NEVER,
        }
    }

    /// Sets the time of a place; [`NEVER`] takes it out.
    pub(crate) fn set(&mut self, place: u32, at: Nanos) {
        let position = self.position.get(place as usize).copied().unwrap_or(OUT);
        if at == NEVER {
            if position != OUT {
                self.take_out(position);
            }
            return;
        }
        if position == OUT {
            if self.position.len() <= place as usize {
                self.position.resize(place as usize + 1, OUT);
            }
            let end = self.heap.len() as u32;
            self.heap.push((at, place));
            self.position[place as usize] = end;
            self.sift_up(end);
        } else {
            self.heap[position as usize].0 = at;
            let position = self.sift_up(position);
            self.sift_down(position);
        }
    }

    /// Sets the time of a place if it is earlier than the one that it has.
    pub(crate) fn hasten(&mut self, place: u32, at: Nanos) {
        if at != NEVER && at < self.at(place) {
            self.set(place, at);
        }
    }

    /// Takes out the first place whose time has come.
    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<u32> {
        let &(_, place) = self.heap.first().filter(|(at, _)| *at <= now)?;
        self.take_out(0);
        Some(place)
    }

    fn take_out(&mut self, position: u32) {
        let (_, place) = self.heap.swap_remove(position as usize);
        self.position[place as usize] = OUT;
        if let Some(&(_, moved)) = self.heap.get(position as usize) {
            self.position[moved as usize] = position;
            let position = self.sift_up(position);
            self.sift_down(position);
        }
    }

    fn sift_up(&mut self, mut position: u32) -> u32 {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent as usize] <= self.heap[position as usize] {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        position
    }

    fn sift_down(&mut self, mut position: u32) {
        let len = self.heap.len() as u32;
        loop {
            let left = position * 2 + 1;
            if left >= len {
                return;
            }
            let right = left + 1;
            let earlier = right < len && self.heap[right as usize] < self.heap[left as usize];
            let child = if earlier { right } else { left };
            if self.heap[position as usize] <= self.heap[child as usize] {
                return;
            }
            self.swap(position, child);
            position = child;
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.heap.swap(a as usize, b as usize);
        let (place_a, place_b) = (self.heap[a as usize].1, self.heap[b as usize].1);
        self.position[place_a as usize] = a;
        self.position[place_b as usize] = b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_backoff::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_sorted_map() {
        let mut rng = Rng::new(7);
        let mut deadlines = Deadlines::default();
        let mut model: BTreeMap<u32, Nanos> = BTreeMap::new();
        for _ in 0..20_000 {
            let place = rng.below(50) as u32;
            match rng.below(4) {
                0 => {
                    deadlines.set(place, NEVER);
                    model.remove(&place);
                }
                1 => {
                    let now = rng.below(1000);
                    let due = deadlines.pop_due(now);
                    let first = model.iter().map(|(&p, &at)| (at, p)).min();
                    assert_eq!(due, first.filter(|(at, _)| *at <= now).map(|(_, p)| p));
                    if let Some(place) = due {
                        model.remove(&place);
                    }
                }
                _ => {
                    let at = rng.below(1000);
                    deadlines.set(place, at);
                    model.insert(place, at);
                }
            }
            assert_eq!(deadlines.first(), model.values().copied().min().unwrap_or(NEVER));
            assert_eq!(deadlines.at(place), model.get(&place).copied().unwrap_or(NEVER));
        }
    }

    #[test]
    fn holds_nothing_stale() {
        let mut deadlines = Deadlines::default();
        for at in 0..10_000 {
            deadlines.set(3, at + 1);
        }
        assert_eq!(deadlines.heap.len(), 1);
    }
}
