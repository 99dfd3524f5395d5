//! One direction of a pair, used by one thread at a time.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A half that several threads share.
#[derive(Debug)]
pub(crate) struct Turn<T>(Mutex<T>);

impl<T> Turn<T> {
    pub(crate) fn new(half: T) -> Self {
        Self(Mutex::new(half))
    }

    /// `None` while another caller has its turn.
    pub(crate) fn try_take(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(half) => Some(half),
            // A caller's panic leaves a half as it would leave an owned one: usable.
            Err(TryLockError::Poisoned(half)) => Some(half.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn take_blocking(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
