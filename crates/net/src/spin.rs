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
/// An offer that took longer was taken by somebody who needs the processor for long. Who takes it
/// for less may be whom the next event is from, and is worth waiting for: a short job runs as long.
const CROWDED: Duration = Duration::from_micros(100);
/// How long there is no watching after that, at first and at most. It doubles where watching that
/// was taken up again is disturbed before it went on for as long as the last rest was: a processor
/// that others have now and then is not crowded.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(250);

pub(crate) struct Spin {
    limit: Duration,
    /// Above zero: waits are mostly short.
    credit: Cell<i32>,
    rests_until: Cell<Option<Instant>>,
    /// When the last rest was over.
    rested: Cell<Option<Instant>>,
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
            rested: Cell::new(None),
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
                self.leave(now);
                return found();
            }
            if now >= end {
                return found();
            }
            before = now;
        }
    }

    /// Somebody else needed the processor: leaves it to them for a while.
    fn leave(&self, now: Instant) {
        let last = self.rest.get();
        let alone = self.rested.get().is_none_or(|rested| now - rested > last);
        let rest = if alone { REST_MIN } else { (last * 2).min(REST_MAX) };
        self.rest.set(rest);
        self.rested.set(Some(now + rest));
        self.rests_until.set(Some(now + rest));
    }

    /// A wait is over that began at `from`.
    pub(crate) fn waited(&self, from: Instant, to: Instant) {
        let credit = self.credit.get();
        if to - from <= self.limit {
            self.credit.set((credit + EARNED).min(CREDIT_MAX));
        } else {
            self.credit.set((credit - LOST).max(CREDIT_MIN));
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
    fn rests_grow_where_they_did_not_help_and_only_there() {
        let (spin, mut now) = (spin(), Instant::now());
        for rest in [1, 2, 4, 8, 16, 32, 64, 128, 250, 250].map(Duration::from_millis) {
            spin.leave(now);
            assert_eq!(spin.rests_until.get(), Some(now + rest));
            now += rest + CROWDED;
        }
        now += REST_MAX;
        for _ in 0..100 {
            spin.leave(now);
            assert_eq!(spin.rests_until.get(), Some(now + REST_MIN));
            now += 3 * REST_MIN;
        }
    }

    #[test]
    fn it_never_watches_longer_than_it_may() {
        let spin = spin();
        let from = Instant::now();
        assert!(!spin.watch(Some(from), || false));
        assert!(spin.watch(None, || true));
    }
}
