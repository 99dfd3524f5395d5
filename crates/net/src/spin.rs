//! Whether to watch for events for a while before the thread sleeps.
//!
//! A wake-up across processors costs several microseconds on both sides, so watching pays where
//! the next event is as near. It is worse than useless where events are far apart, or where
//! somebody else needs the processor.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// What a wait that was short enough for watching adds to the credit.
const EARNED: i32 = 1;
/// What one that was longer takes from it.
const LOST: i32 = 2;
const CREDIT_MAX: i32 = 16;
const CREDIT_MIN: i32 = -16;
/// Looks between two readings of the clock, each of which offers the processor to others.
const LOOKS: u32 = 16;
/// An offer that took longer was taken: the processor is needed by somebody else.
const CROWDED: Duration = Duration::from_micros(25);
/// How long there is no watching after that, at first and at most.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(250);

pub(crate) struct Spin {
    limit: Duration,
    /// Above zero: waits are mostly short.
    credit: Cell<i32>,
    rests_until: Cell<Option<Instant>>,
    rest: Cell<Duration>,
}

impl Spin {
    /// Watches at most for `limit`; never on a thread that has one processor only.
    pub(crate) fn new(limit: Duration) -> Self {
        let alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
        Self {
            limit: if alone { Duration::ZERO } else { limit },
            credit: Cell::new(0),
            rests_until: Cell::new(None),
            rest: Cell::new(REST_MIN),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.limit.is_zero()
    }

    /// Whether to watch before the wait that begins now.
    pub(crate) fn pays(&self, clock: &Clock) -> bool {
        if self.credit.get() <= 0 || !self.is_on() {
            return false;
        }
        match self.rests_until.get() {
            Some(until) if clock.now() < until => false,
            _ => {
                self.rests_until.set(None);
                true
            }
        }
    }

    /// Looks until `found`, or until that took too long. `until` bounds it as well.
    pub(crate) fn watch(&self, until: Option<Instant>, mut found: impl FnMut() -> bool) -> bool {
        let mut before = Instant::now();
        let end = before + self.limit;
        let end = until.map_or(end, |until| until.min(end));
        loop {
            for _ in 0..LOOKS {
                if found() {
                    return true;
                }
                std::hint::spin_loop();
            }
            rustix::thread::sched_yield();
            let now = Instant::now();
            if now - before > CROWDED {
                self.rests_until.set(Some(now + self.rest.get()));
                self.rest.set((self.rest.get() * 2).min(REST_MAX));
                return found();
            }
            if now >= end {
                return found();
            }
            before = now;
        }
    }

    /// A wait is over that began at `from`.
    pub(crate) fn waited(&self, from: Instant, to: Instant) {
        let credit = self.credit.get();
        if to - from <= self.limit {
            self.credit.set((credit + EARNED).min(CREDIT_MAX));
        } else {
            self.credit.set((credit - LOST).max(CREDIT_MIN));
            if to - from > REST_MAX {
                self.rest.set(REST_MIN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    fn spin() -> Spin {
        Spin { limit: LIMIT, ..Spin::new(Duration::ZERO) }
    }

    #[test]
    fn watching_begins_when_waits_are_short_and_ends_when_they_are_long() {
        let (spin, now) = (spin(), Instant::now());
        assert!(!spin.pays(&Clock::default()));
        (0..100).for_each(|_| spin.waited(now, now + LIMIT));
        assert!(spin.pays(&Clock::default()));
        (0..8).for_each(|_| spin.waited(now, now + 2 * LIMIT));
        assert!(!spin.pays(&Clock::default()));
    }

    #[test]
    fn a_processor_that_others_need_is_left_to_them_for_a_while() {
        let (spin, now) = (spin(), Instant::now());
        spin.waited(now, now);
        let mut looks = 0;
        let found = spin.watch(None, || {
            looks += 1;
            if looks == 5 {
                // Stands for a processor that somebody else had meanwhile.
                std::thread::sleep(2 * CROWDED);
            }
            false
        });
        assert!(!found);
        assert!(!spin.pays(&Clock::default()));
        std::thread::sleep(REST_MIN);
        assert!(spin.pays(&Clock::default()));
    }

    #[test]
    fn it_never_watches_longer_than_it_may() {
        let spin = spin();
        let from = Instant::now();
        assert!(!spin.watch(Some(from), || false));
        assert!(spin.watch(None, || true));
    }
}
