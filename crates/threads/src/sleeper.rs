//! How a thread waits: it spins briefly, then parks; and how the other side wakes it.

use std::time::Instant;

use crate::cores::Cores;
use crate::sync::{AtomicUsize, Mutex, Ordering, load_fenced, lock, store_fenced, thread};

/// Looks at the awaited thing before parking, when there is more than one core.
///
/// A pause takes some 70 ns on current x86, so this is about as long as the wake-up of a parked
/// thread on another core, which it saves.
#[cfg(not(loom))]
const SPINS: usize = 100;
/// Offers the core to other threads that many times after spinning, before parking.
#[cfg(not(loom))]
const YIELDS: usize = 4;

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
    thread: Mutex<Option<thread::Thread>>,
    hook: Mutex<Option<WakeHook>>,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self { state: AtomicUsize::new(AWAKE), thread: Mutex::new(None), hook: Mutex::new(None) }
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
                if let Some(thread) = &*lock(&self.thread) {
                    thread.unpark();
                }
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
    pub(crate) fn sleep(&self, deadline: Option<Instant>, mut ready: impl FnMut() -> bool) {
        self.register();
        store_fenced(&self.state, PARKED);
        while !ready() && park_until(deadline) {
            if self.state.load(Ordering::Acquire) == AWAKE {
                return;
            }
        }
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Spins, then parks, as [`sleep`](Self::sleep) does.
    pub(crate) fn wait(
        &self,
        cores: &Cores,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) {
        if !spin(cores, &mut ready) {
            self.sleep(deadline, ready);
        }
    }

    /// Sets what is called when an armed waiter would be woken.
    pub(crate) fn set_hook(&self, hook: Option<WakeHook>) {
        *lock(&self.hook) = hook;
    }

    /// Asks for one call of the hook at the next wake; calls it at once if `ready` holds.
    pub(crate) fn arm(&self, ready: impl FnOnce() -> bool) {
        store_fenced(&self.state, ARMED);
        if ready() {
            self.wake_sleeping();
        }
    }

    /// The waiter is the calling thread from now on: a pool may have moved to another.
    fn register(&self) {
        let current = thread::current();
        let mut known = lock(&self.thread);
        if known.as_ref().is_none_or(|thread| thread.id() != current.id()) {
            *known = Some(current);
        }
    }
}

/// Whether `ready` came to hold while spinning. On one core nobody could make it so meanwhile.
#[cfg(not(loom))]
fn spin(cores: &Cores, ready: &mut impl FnMut() -> bool) -> bool {
    if !cores.are_many() {
        return false;
    }
    for _ in 0..SPINS {
        crate::sync::pause();
        if ready() {
            return true;
        }
    }
    for _ in 0..YIELDS {
        thread::yield_now();
        if ready() {
            return true;
        }
    }
    false
}

/// loom explores every interleaving, and spinning would only add some that end alike.
#[cfg(loom)]
fn spin(_cores: &Cores, _ready: &mut impl FnMut() -> bool) -> bool {
    false
}

/// Parks the thread; `false` if the deadline has passed.
#[cfg(not(loom))]
fn park_until(deadline: Option<Instant>) -> bool {
    match deadline {
        None => thread::park(),
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
    }
    true
}

/// loom has no clock: a deadline is never reached.
#[cfg(loom)]
fn park_until(_deadline: Option<Instant>) -> bool {
    thread::park();
    true
}
