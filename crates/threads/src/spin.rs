//! How a thread spins for what another is about to do, before it parks.
//!
//! How long is measured by the clock: a pause takes anything from 13 to 85 ns on one and the same
//! machine. It reads the clock while it has nothing else to do, never for a message.

use std::time::{Duration, Instant};

use crate::cores::Cores;
use crate::sync::{AtomicUsize, Ordering, pause, thread};

/// The longest that a wait spins before it parks, when there is more than one core: about twice as
/// long as the wake-up of a parked thread on another core takes, which it saves.
const SPIN_MAX: Duration = Duration::from_micros(20);
/// The shortest: longer than the answer of a thread that is awake takes.
const SPIN_MIN: Duration = Duration::from_nanos(1500);
/// So long the core is kept; from then on, other threads that want it get it between two looks.
const KEEP_CORE: Duration = Duration::from_nanos(1500);
/// After so many waits in a row in which that was in vain, it isn't kept at all: who is to answer
/// waits for this very core.
const LATE_MAX: usize = 2;
/// The most pauses between two looks: a look takes a cache line away from the one who is to write
/// what is awaited.
const PAUSES_MAX: usize = 2;
/// One in so many waits spins to the most, however few were worth it before: two threads that
/// both learned to park at once would never find out that both could spin again.
const PROBE_EVERY: usize = 32;
/// How often the other threads of the only core get their turn before this one parks. They run
/// then until they have nothing left to do, and nobody needs a system call to wake anybody.
const TURNS_ON_ONE_CORE: usize = 2;

/// Who gets its core back later than this shares it with others than its pool. It would get it
/// sooner by being woken.
const CROWDED: Duration = Duration::from_micros(100);
/// For so many waits after that, it parks instead of offering its core.
const CROWDED_WAITS: usize = 64;

/// Offers the core to other threads; false if one kept it for long.
pub(crate) fn offer_core() -> bool {
    let start = Instant::now();
    thread::yield_now();
    start.elapsed() < CROWDED
}

/// How long it was worth to spin lately. The waiter alone writes it.
pub(crate) struct Spinner {
    nanos: AtomicUsize,
    waits: AtomicUsize,
    /// How many times in a row it was in vain to keep the core.
    late: AtomicUsize,
    /// For so many more waits the core isn't offered.
    crowded: AtomicUsize,
}

impl Spinner {
    const NANOS_MAX: usize = SPIN_MAX.as_nanos() as usize;
    const NANOS_MIN: usize = SPIN_MIN.as_nanos() as usize;

    pub(crate) fn new() -> Self {
        Self {
            nanos: AtomicUsize::new(Self::NANOS_MAX),
            waits: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            crowded: AtomicUsize::new(0),
        }
    }

    /// Whether `ready` came to hold while spinning.
    pub(crate) fn spin(&self, cores: &Cores, ready: &mut impl FnMut() -> bool) -> bool {
        let offers = self.offers_core();
        if !cores.are_many() {
            // Nobody can make it so while this thread keeps the core.
            return offers && (0..TURNS_ON_ONE_CORE).any(|_| self.offer_core() && ready());
        }
        let (patience, keep_core) = self.next();
        let start = Instant::now();
        let mut spent = Duration::ZERO;
        let mut pauses = 1;
        loop {
            let is_keeping = spent < keep_core;
            if is_keeping {
                (0..pauses).for_each(|_| pause());
                pauses = (pauses * 2).min(PAUSES_MAX);
            } else if !offers || !self.offer_core() {
                return ready();
            }
            if ready() {
                self.succeeded(start.elapsed(), is_keeping);
                return true;
            }
            spent = start.elapsed();
            if spent >= patience {
                self.failed();
                return false;
            }
        }
    }

    /// Whether the core may be offered in this wait.
    fn offers_core(&self) -> bool {
        let left = self.crowded.load(Ordering::Relaxed);
        if left > 0 {
            self.crowded.store(left - 1, Ordering::Relaxed);
        }
        left == 0
    }

    fn offer_core(&self) -> bool {
        let is_free = offer_core();
        if !is_free {
            self.crowded.store(CROWDED_WAITS, Ordering::Relaxed);
        }
        is_free
    }

    /// How long to spin in this wait, and for how much of it to keep the core.
    fn next(&self) -> (Duration, Duration) {
        let waits = self.waits.load(Ordering::Relaxed).wrapping_add(1);
        self.waits.store(waits, Ordering::Relaxed);
        if waits.is_multiple_of(PROBE_EVERY) {
            return (SPIN_MAX, KEEP_CORE);
        }
        let is_late = self.late.load(Ordering::Relaxed) >= LATE_MAX;
        let keep_core = if is_late { Duration::ZERO } else { KEEP_CORE };
        (Duration::from_nanos(self.nanos.load(Ordering::Relaxed) as u64), keep_core)
    }

    /// It came after so long: leave room for one that comes later.
    fn succeeded(&self, after: Duration, kept_core: bool) {
        let late = if kept_core { 0 } else { self.late.load(Ordering::Relaxed).saturating_add(1) };
        self.late.store(late, Ordering::Relaxed);
        let wanted = (after * 4).min(SPIN_MAX).as_nanos() as usize;
        let nanos = self.nanos.load(Ordering::Relaxed).max(wanted);
        self.nanos.store(nanos, Ordering::Relaxed);
    }

    /// It didn't come, and the core could have served another thread.
    fn failed(&self) {
        let nanos = self.nanos.load(Ordering::Relaxed) / 2;
        self.nanos.store(nanos.max(Self::NANOS_MIN), Ordering::Relaxed);
    }
}
