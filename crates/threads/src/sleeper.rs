//! How a thread waits: it spins briefly (see spin.rs), then parks; and how the other side wakes it.

use std::time::Instant;

use crate::cores::Cores;
#[cfg(not(loom))]
use crate::spin::Spinner;
#[cfg(not(loom))]
use crate::sync::Padded;
use crate::sync::{
    AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, load_fenced, lock, store_fenced, wait,
};

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
    spinner: Padded<Spinner>,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicUsize::new(AWAKE),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            hook: Mutex::new(None),
            #[cfg(not(loom))]
            spinner: Padded(Spinner::new()),
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

    /// Spins briefly, then parks as [`sleep`](Self::sleep) does.
    pub(crate) fn wait(
        &self,
        cores: &Cores,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) {
        if !self.spin(cores, &mut ready) {
            self.sleep(deadline, ready);
        }
    }

    /// Whether `ready` came to hold while spinning.
    #[cfg(not(loom))]
    pub(crate) fn spin(&self, cores: &Cores, ready: &mut impl FnMut() -> bool) -> bool {
        self.spinner.spin(cores, ready)
    }

    /// loom explores every interleaving, and spinning would only add some that end alike.
    #[cfg(loom)]
    pub(crate) fn spin(&self, _cores: &Cores, _ready: &mut impl FnMut() -> bool) -> bool {
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

/// Sleeps until the bell rings; `None` if the deadline has passed.
fn sleep_until<'bed>(
    bell: &Condvar,
    bed: MutexGuard<'bed, ()>,
    deadline: Option<Instant>,
) -> Option<MutexGuard<'bed, ()>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) { None } else { Some(wait(bell, bed, left)) }
}
