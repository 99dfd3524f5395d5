//! A short watch before sleeping, which gives itself up where it leads to nothing.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use rustix::thread::sched_yield;

/// Looks between two readings of the clock.
const LOOKS: u32 = 4;
/// The pause between two looks at a stream, in the processor's pauses of 20 to 50 ns. Each look
/// takes the line away from a producer that is about to write it; several messages at a time cost
/// less.
const PAUSES_STREAM: u32 = 32;
/// For how long a watch keeps the processor to itself. After that it offers it to others between
/// its looks: whoever sends, or wakes who sends, may need this one.
const ALONE: Duration = Duration::from_micros(10);
/// After so many watches in vain in a row, one in 2^7 waits is watched.
const MISSES_MAX: u32 = 7;

/// How long a side watches that was woken and finds nothing: it may have been woken ahead of what
/// is on its way.
const EXPECTED: Duration = Duration::from_micros(3);

/// How long to watch, and whether it has paid.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    /// There is one processor: nothing happens while it watches.
    alone: bool,
    misses: u32,
    skip: u32,
}

impl Spin {
    /// Watches for at most `limit` at a time; never, on a machine with one processor.
    pub(crate) fn new(limit: Duration) -> Self {
        let alone = has_one_processor();
        let limit = if alone { Duration::ZERO } else { limit };
        Self { limit, alone, misses: 0, skip: 0 }
    }

    /// Watches until `ready`, and says whether it came to that. Looks less often at a `stream`,
    /// which doesn't wait for an answer.
    ///
    /// A peer on the same processor can't do anything while it is watched for less than [`ALONE`]:
    /// such watches then fail, and become rare.
    pub(crate) fn watch(
        &mut self,
        limit: Duration,
        stream: bool,
        ready: impl Fn() -> bool,
    ) -> bool {
        let limit = self.limit.min(limit);
        if limit.is_zero() {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let begun = Instant::now();
        let pauses = if stream { PAUSES_STREAM } else { 1 };
        loop {
            for _ in 0..LOOKS {
                // First, since the caller has just looked.
                (0..pauses).for_each(|_| spin_loop());
                if ready() {
                    self.misses = 0;
                    return true;
                }
            }
            let watched = begun.elapsed();
            if watched >= limit {
                self.misses = (self.misses + 1).min(MISSES_MAX);
                self.skip = (1 << self.misses) - 1;
                return false;
            }
            if watched >= ALONE {
                sched_yield();
            }
        }
    }

    /// Watches after a wake-up, for what may be on its way.
    pub(crate) fn expect(&self, ready: impl Fn() -> bool) {
        if ready() || self.alone {
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < EXPECTED {
            for _ in 0..LOOKS {
                spin_loop();
                if ready() {
                    return;
                }
            }
        }
    }

    /// The whole limit.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }
}

/// Whether the machine has one processor. That this process may use only one says nothing: the
/// peer may use another.
fn has_one_processor() -> bool {
    std::thread::available_parallelism().map_or(1, usize::from) == 1
        && std::fs::read_to_string("/sys/devices/system/cpu/online")
            .is_ok_and(|online| !online.contains(['-', ',']))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn watching_in_vain_becomes_rare_and_success_revives_it() {
        let mut spin = Spin { limit: Duration::from_nanos(1), alone: false, misses: 0, skip: 0 };
        let looks = Cell::new(0);
        let waits = 1000;
        let limit = spin.limit();
        for _ in 0..waits {
            assert!(!spin.watch(limit, false, || {
                looks.set(looks.get() + 1);
                false
            }));
        }
        assert!(looks.get() < LOOKS * waits / 50, "{} looks", looks.get());
        while !spin.watch(limit, false, || true) {}
        assert!(spin.watch(limit, false, || true));
    }

    #[test]
    fn no_limit_means_no_look() {
        let mut spin = Spin { limit: Duration::ZERO, alone: false, misses: 0, skip: 0 };
        assert!(!spin.watch(Duration::from_secs(1), false, || panic!("looked")));
    }
}
