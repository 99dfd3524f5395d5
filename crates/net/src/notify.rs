//! A bell that any thread can ring and one task waits for.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// A bell. Clones share it; any thread may ring it. Rings that come before anyone waits are
/// kept as one. The runtime that waits is woken at most once until it has looked.
#[derive(Clone, Default)]
pub struct Notifier(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rung: bool,
    waker: Option<Waker>,
}

impl Notifier {
    /// A bell that was not rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings.
    pub fn notify(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.rung = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Resolves when it was rung since this last resolved. One task at a time may wait:
    /// of two, the one that waited last is woken. Cancel safe.
    pub async fn notified(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut state.rung) {
                return Poll::Ready(());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
