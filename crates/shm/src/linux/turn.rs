//! One direction of a pair, used by one caller at a time.
//!
//! With tokio, callers are tasks as well as threads. tokio's own mutex hands over in order, and
//! takes a lock of its own for that at every release; here an uncontended turn is one exchange to
//! take it and one to end it. The state is that of a futex mutex: free, taken, or taken while
//! others wait. A caller that has waited always leaves it at the last, so that whoever waits behind
//! it is told in turn.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, current, park};

use tokio::sync::Notify;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const AWAITED: u32 = 2;

/// A half that several tasks or threads share.
#[derive(Debug)]
pub(crate) struct Turn<T> {
    state: AtomicU32,
    freed: Notify,
    half: UnsafeCell<T>,
}

// SAFETY: the half is reached by one caller at a time, on whichever thread that runs.
unsafe impl<T: Send> Sync for Turn<T> {}

/// The half, until this is dropped.
pub(crate) struct Taken<'a, T>(&'a Turn<T>);

// SAFETY: a reference to it gives a reference to the half, no more.
unsafe impl<T: Sync> Sync for Taken<'_, T> {}

impl<T> Turn<T> {
    pub(crate) fn new(half: T) -> Self {
        Self { state: AtomicU32::new(FREE), freed: Notify::new(), half: UnsafeCell::new(half) }
    }

    /// `None` while another caller has its turn.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Taken<'_, T>> {
        self.state
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| Taken(self))
    }

    #[inline]
    pub(crate) async fn take(&self) -> Taken<'_, T> {
        match self.try_take() {
            Some(taken) => taken,
            None => self.take_later().await,
        }
    }

    #[cold]
    async fn take_later(&self) -> Taken<'_, T> {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Before the state says that somebody waits, or the answer to it might be missed.
            freed.as_mut().enable();
            if self.state.swap(AWAITED, Ordering::Acquire) == FREE {
                return Taken(self);
            }
            freed.await;
        }
    }

    pub(crate) fn take_blocking(&self) -> Taken<'_, T> {
        if let Some(taken) = self.try_take() {
            return taken;
        }
        let waker = Waker::from(Arc::new(Unpark(current())));
        let mut context = Context::from_waker(&waker);
        let mut taking = pin!(self.take_later());
        loop {
            match taking.as_mut().poll(&mut context) {
                Poll::Ready(taken) => return taken,
                Poll::Pending => park(),
            }
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.half.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.half.into_inner()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while this exists, its caller alone has its turn.
        unsafe { &*self.0.half.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { &mut *self.0.half.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) == AWAITED {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll::Ready;

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_waits_is_served_after_who_came_in_between() {
        let turn = Turn::new(0);
        let first = turn.try_take().unwrap();
        let (mut second, mut third) = (pin!(turn.take()), pin!(turn.take()));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        drop(first);
        drop(turn.try_take().unwrap());
        let Ready(taken) = poll(second.as_mut()) else { panic!("the second was not told") };
        assert!(poll(third.as_mut()).is_pending());
        drop(taken);
        assert!(poll(third.as_mut()).is_ready(), "the third was not told");
    }

    #[test]
    fn a_caller_that_was_told_and_leaves_tells_the_next() {
        let turn = Turn::new(0);
        let first = turn.try_take().unwrap();
        let mut second = Box::pin(turn.take());
        let mut third = pin!(turn.take());
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        drop(first);
        drop(second);
        assert!(poll(third.as_mut()).is_ready());
        assert!(poll(pin!(turn.take()).as_mut()).is_ready(), "the third has gone");
    }

    #[test]
    fn threads_take_turns() {
        let turn = Turn::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
                        *turn.take_blocking() += 1;
                    }
                });
            }
        });
        assert_eq!(turn.into_inner(), if cfg!(miri) { 200 } else { 80_000 });
    }
}
