//! A flag that many tasks can wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};

/// Tells tasks to stop. Clones share the flag; any thread may set it. It can't be unset.
#[derive(Clone, Default)]
pub struct CancellationToken(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: Vec<(u64, Waker)>,
    children: Vec<Weak<Inner>>,
}

impl CancellationToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is cancelled with this one, and can be cancelled alone.
    pub fn child_token(&self) -> Self {
        let child = Self::default();
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cancelled() {
            child.0.cancelled.store(true, Ordering::Release);
        } else {
            waiting.children.retain(|child| child.strong_count() > 0);
            waiting.children.push(Arc::downgrade(&child.0));
        }
        drop(waiting);
        child
    }

    /// Sets the flag and wakes all who wait for it.
    pub fn cancel(&self) {
        let (wakers, children) = {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.cancelled.store(true, Ordering::Release);
            (std::mem::take(&mut waiting.wakers), std::mem::take(&mut waiting.children))
        };
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        for child in children.iter().filter_map(Weak::upgrade) {
            Self(child).cancel();
        }
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Resolves when the flag is set. Cancel safe.
    pub async fn cancelled(&self) {
        let mut place = Place { inner: &self.0, id: None };
        std::future::poll_fn(|cx| {
            if place.inner.cancelled.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let mut waiting = place.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // Between the first look and the lock the flag may have been set.
            if place.inner.cancelled.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let id = place.id.unwrap_or_else(|| {
                waiting.next += 1;
                waiting.next
            });
            place.id = Some(id);
            match waiting.wakers.iter_mut().find(|(other, _)| *other == id) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => waiting.wakers.push((id, cx.waker().clone())),
            }
            Poll::Pending
        })
        .await;
    }
}

/// A waiter's entry, taken out when the waiter is dropped.
struct Place<'a> {
    inner: &'a Inner,
    id: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.wakers.retain(|(other, _)| *other != id);
        }
    }
}
