//! The one place that knows whether atomics, cells and threads are std's or loom's.
//!
//! Everything else in the crate imports them from here, so loom checks the code that ships.

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread,
};

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// std's cell with the interface of loom's, so that loom can watch every access.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Keeps what one thread writes often off the cache lines that another reads often.
///
/// 128 bytes, since x86 fetches lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Locks, whatever happened to the thread that held the lock before.
///
/// The crate's locks guard single assignments and pushes, which a panic cannot leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the bell, for `left` at the longest. May return for no reason.
#[cfg(not(loom))]
pub(crate) fn wait<'bed>(
    bell: &Condvar,
    bed: MutexGuard<'bed, ()>,
    left: Option<Duration>,
) -> MutexGuard<'bed, ()> {
    match left {
        None => bell.wait(bed).unwrap_or_else(PoisonError::into_inner),
        Some(left) => bell.wait_timeout(bed, left).unwrap_or_else(PoisonError::into_inner).0,
    }
}

/// loom has no clock: the time never runs out.
#[cfg(loom)]
pub(crate) fn wait<'bed>(
    bell: &Condvar,
    bed: MutexGuard<'bed, ()>,
    _left: Option<Duration>,
) -> MutexGuard<'bed, ()> {
    bell.wait(bed).unwrap_or_else(PoisonError::into_inner)
}

/// Stores `value` so that no later [`load_fenced`] of this thread can pass the store.
///
/// Two threads that each store one word by this function and then load the other's word by
/// [`load_fenced`] can't both miss the other's store. Sleeping and waking rest on it.
#[inline]
pub(crate) fn store_fenced(word: &AtomicUsize, value: usize) {
    // An exchange on every machine: it reads the latest value, so the stores of a word that two
    // threads write are in one order for loom too.
    // On x86 the exchange is the fence, and cheaper than the one behind a store. A SeqCst exchange
    // and a SeqCst load on each side are all in the one total order, which the promise above
    // needs; loom doesn't model that order for loads, and miri lets a SeqCst load see what was
    // stored by another order before a SeqCst store. Both get the fence like other machines.
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    word.swap(value, Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
    {
        word.swap(value, Ordering::AcqRel);
        fence();
    }
}

/// The full fence between a store that isn't [`store_fenced`] and a [`load_fenced`].
#[inline]
pub(crate) fn fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// The counterpart of [`store_fenced`].
#[inline]
pub(crate) fn load_fenced(word: &AtomicUsize) -> usize {
    word.load(Ordering::SeqCst)
}

/// Tells the processor that this thread waits in a loop.
#[cfg(not(loom))]
pub(crate) fn pause() {
    std::hint::spin_loop();
}
