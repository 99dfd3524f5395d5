//! How many calls run at once, over all connections.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A counting semaphore.
#[derive(Debug)]
pub(crate) struct Permits {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Threads that wait. Without one there is nobody to wake, which would be a system call.
    waiting: usize,
}

impl Permits {
    pub(crate) fn new(count: usize) -> Permits {
        Permits { state: Mutex::new(State { free: count, waiting: 0 }), freed: Condvar::new() }
    }

    /// Waits until one is free and holds it until the guard is dropped.
    pub(crate) fn acquire(&self) -> Permit<'_> {
        let mut state = self.state();
        while state.free == 0 {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.free -= 1;
        Permit(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that could panic runs under the lock, so its value is right even if poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call's right to run.
pub(crate) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.free += 1;
        if state.waiting > 0 {
            self.0.freed.notify_one();
        }
    }
}
