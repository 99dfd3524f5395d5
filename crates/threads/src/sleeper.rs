//! How a thread waits: it spins briefly, then parks; and how the other side wakes it.

use std::time::Instant;

use crate::cores::Cores;
#[cfg(not(loom))]
use crate::sync::Padded;
use crate::sync::{
    AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, load_fenced, lock, store_fenced, wait,
};

/// The most pauses before parking, when there is more than one core.
///
/// A pause takes some 70 ns on current x86, so this is about as long as the wake-up of a parked
/// thread on another core, which it saves.
///
/// miri takes long for each.
#[cfg(not(loom))]
const SPINS_MAX: usize = if cfg!(miri) { 2 } else { 100 };
/// The fewest pauses: about as long as the answer of a thread that is awake takes.
#[cfg(not(loom))]
const SPINS_MIN: usize = if cfg!(miri) { 1 } else { 8 };
/// One in so many waits spins to the most, however few were worth it before: two threads that
/// both learned to park at once would never find out that both could spin again.
#[cfg(not(loom))]
const PROBE_EVERY: usize = 32;

/// Pauses between two looks at something whose answer is awaited, at first. They become more as
/// the wait gets longer: a look takes a cache line away from the one who is to write the answer.
pub(crate) const ANSWER_PAUSES: usize = 1;
/// Pauses between two looks for room in a full queue. Each look takes the line with the reader's
/// position away from the reader, which makes room all the while.
pub(crate) const ROOM_PAUSES: usize = 16;

/// The waiter is awake, or about to look for itself.
const AWAKE: usize = 0;
/// The waiter's thread is parked.
const PARKED: usize = 1;
/// The waiter went on to other things, and wants its hook called.
const ARMED: usize = 2;

/// What a waiting manager is told by, instead of being unparked.
pub(crate) type WakeHook = std::sync::Arc<dyn Fn() + Send + Sync>;

/// One waiter's bed and its bell. At most one thread waits at it at a time.
pub(crate) struct Sleeper {
    state: AtomicUsize,
    /// Held by the waiter from its last look at `state` until it sleeps.
    bed: Mutex<()>,
    bell: Condvar,
    hook: Mutex<Option<WakeHook>>,
    /// The waiter writes it each time, and those who would wake it read `state` each time.
    #[cfg(not(loom))]
    patience: Padded<Patience>,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicUsize::new(AWAKE),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            hook: Mutex::new(None),
            #[cfg(not(loom))]
            patience: Padded(Patience::new()),
        }
    }

    /// Wakes the waiter if it isn't awake. What it waits for was published by
    /// [`store_fenced`] just before.
    #[inline]
    pub(crate) fn wake(&self) {
        if load_fenced(&self.state) != AWAKE {
            self.wake_sleeping();
        }
    }

    #[cold]
    fn wake_sleeping(&self) {
        match self.state.swap(AWAKE, Ordering::AcqRel) {
            PARKED => {
                // The waiter has seen the state, or sleeps: it can't be between the two.
                drop(lock(&self.bed));
                self.bell.notify_one();
            }
            ARMED => {
                // Called without the lock: a hook may set another hook.
                let hook = lock(&self.hook).clone();
                if let Some(hook) = hook {
                    hook();
                }
            }
            _ => {}
        }
    }

    /// Parks until woken, or until `deadline`; not at all if `ready` holds.
    ///
    /// A return says nothing about `ready`: the caller looks again.
    pub(crate) fn sleep(&self, deadline: Option<Instant>, ready: impl FnOnce() -> bool) {
        store_fenced(&self.state, PARKED);
        if !ready() {
            let mut bed = Some(lock(&self.bed));
            while let Some(held) = bed.take()
                && self.state.load(Ordering::Acquire) == PARKED
            {
                bed = sleep_until(&self.bell, held, deadline);
            }
        }
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// Spins, with so many pauses between two looks and more as time goes on, then parks as [`sleep`](Self::sleep) does.
    pub(crate) fn wait(
        &self,
        cores: &Cores,
        pauses: usize,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) {
        if !self.spin(cores, pauses, &mut ready) {
            self.sleep(deadline, ready);
        }
    }

    /// Whether `ready` came to hold while spinning. On one core nobody could make it so meanwhile.
    #[cfg(not(loom))]
    fn spin(&self, cores: &Cores, pauses: usize, ready: &mut impl FnMut() -> bool) -> bool {
        if !cores.are_many() {
            return false;
        }
        let mut next_look = pauses;
        for spin in 1..=self.patience.next() {
            crate::sync::pause();
            if spin < next_look {
                continue;
            }
            if ready() {
                self.patience.succeeded(spin);
                return true;
            }
            next_look = spin + pauses.max(spin / 2);
        }
        self.patience.failed();
        false
    }

    /// loom explores every interleaving, and spinning would only add some that end alike.
    #[cfg(loom)]
    fn spin(&self, _cores: &Cores, _pauses: usize, _ready: &mut impl FnMut() -> bool) -> bool {
        false
    }

    /// Sets what is called when an armed waiter would be woken.
    pub(crate) fn set_hook(&self, hook: Option<WakeHook>) {
        let before = std::mem::replace(&mut *lock(&self.hook), hook);
        // What it captured may do anything in its drop: not under the lock.
        drop(before);
    }

    /// Asks for one call of the hook at the next wake; calls it at once if `ready` holds.
    pub(crate) fn arm(&self, ready: impl FnOnce() -> bool) {
        store_fenced(&self.state, ARMED);
        if ready() {
            self.wake_sleeping();
        }
    }
}

/// How long it was worth to spin lately. The waiter alone writes it.
#[cfg(not(loom))]
struct Patience {
    spins: AtomicUsize,
    waits: AtomicUsize,
}

#[cfg(not(loom))]
impl Patience {
    fn new() -> Self {
        Self { spins: AtomicUsize::new(SPINS_MAX), waits: AtomicUsize::new(0) }
    }

    /// How long to spin in this wait.
    fn next(&self) -> usize {
        let waits = self.waits.load(Ordering::Relaxed).wrapping_add(1);
        self.waits.store(waits, Ordering::Relaxed);
        let is_probe = waits.is_multiple_of(PROBE_EVERY);
        if is_probe { SPINS_MAX } else { self.spins.load(Ordering::Relaxed) }
    }

    /// It came after so many spins: leave room for one that comes later.
    fn succeeded(&self, after: usize) {
        let spins = self.spins.load(Ordering::Relaxed).max(after * 4).min(SPINS_MAX);
        self.spins.store(spins, Ordering::Relaxed);
    }

    /// It didn't come, and the core could have served another thread.
    fn failed(&self) {
        let spins = self.spins.load(Ordering::Relaxed) / 2;
        self.spins.store(spins.max(SPINS_MIN), Ordering::Relaxed);
    }
}

/// Sleeps until the bell rings; `None` if the deadline has passed.
fn sleep_until<'bed>(
    bell: &Condvar,
    bed: MutexGuard<'bed, ()>,
    deadline: Option<Instant>,
) -> Option<MutexGuard<'bed, ()>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) { None } else { Some(wait(bell, bed, left)) }
}
