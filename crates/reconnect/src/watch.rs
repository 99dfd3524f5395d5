//! A value that others can watch: the newest one, without a runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where a value is published. Dropping it tells every [`Watch`] that no other will follow.
#[derive(Debug)]
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

/// Sees what a [`Publisher`] publishes: always the newest value; those in between may be missed.
#[derive(Debug)]
pub struct Watch<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    seen: u64,
}

#[derive(Debug)]
struct Shared<T>(Mutex<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    value: T,
    version: u64,
    is_over: bool,
    next_id: u64,
    /// At most one for each watch, under the watch's id.
    waiting: BTreeMap<u64, Waker>,
}

impl<T> Shared<T> {
    /// What the lock guards is whole after each statement, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(self: &Arc<Self>) -> Watch<T> {
        let mut inner = self.lock();
        inner.next_id += 1;
        Watch { shared: Arc::clone(self), id: inner.next_id, seen: inner.version }
    }

    fn update(&self, change: impl FnOnce(&mut Inner<T>)) {
        let mut inner = self.lock();
        change(&mut inner);
        let waiting = std::mem::take(&mut inner.waiting);
        // A waker may run anything, this watch included.
        drop(inner);
        for waker in waiting.into_values() {
            waker.wake();
        }
    }
}

impl<T: Clone> Publisher<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Self {
        let waiting = BTreeMap::new();
        let inner = Inner { value, version: 0, is_over: false, next_id: 0, waiting };
        Self { shared: Arc::new(Shared(Mutex::new(inner))) }
    }

    /// Replaces the value, and wakes all who wait for a change.
    pub fn publish(&self, value: T) {
        self.shared.update(|inner| {
            inner.value = value;
            inner.version += 1;
        });
    }

    /// A watch that has seen the value as it is.
    pub fn watch(&self) -> Watch<T> {
        self.shared.watch()
    }

    /// The value as it is.
    pub fn latest(&self) -> T {
        self.shared.lock().value.clone()
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.shared.update(|inner| inner.is_over = true);
    }
}

impl<T: Clone> Watch<T> {
    /// The newest value.
    pub fn latest(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// Whether the publisher is gone: the value is then the last one.
    pub fn is_over(&self) -> bool {
        self.shared.lock().is_over
    }

    /// Waits for a value that this watch hasn't seen, and returns the newest; `None` when the
    /// publisher is gone and its last value was seen.
    ///
    /// Cancel-safe: a value whose wait was dropped is returned by the next call.
    pub async fn changed(&mut self) -> Option<T> {
        Changed { watch: self }.await
    }

    /// Waits for a value that `is_wanted` accepts, the present one included; `None` when the
    /// publisher is gone and its last value was not accepted.
    ///
    /// Cancel-safe.
    pub async fn until(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let mut value = self.latest();
        while !is_wanted(&value) {
            value = self.changed().await?;
        }
        Some(value)
    }
}

/// A clone has seen what the original has seen.
impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self { seen: self.seen, ..self.shared.watch() }
    }
}

struct Changed<'a, T> {
    watch: &'a mut Watch<T>,
}

impl<T: Clone> Future for Changed<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let watch = &mut *self.watch;
        let mut inner = watch.shared.lock();
        if watch.seen != inner.version {
            watch.seen = inner.version;
            return Poll::Ready(Some(inner.value.clone()));
        }
        if inner.is_over {
            return Poll::Ready(None);
        }
        inner.waiting.insert(watch.id, context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        self.watch.shared.lock().waiting.remove(&self.watch.id);
    }
}
