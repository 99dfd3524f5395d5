//! Bounded channels from many senders, in the worker or on other threads, to one receiver.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receiver_alive: bool,
    receiver_waker: Option<Waker>,
    sender_wakers: VecDeque<Waker>,
    threads_waiting: usize,
    receiver_threads: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    space: Condvar,
    values: Condvar,
    capacity: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends values. Clones share the channel; any thread may hold one.
pub struct Sender<T>(Arc<Shared<T>>);

/// Receives values, in the order in which they were sent.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Why [`Sender::try_send`] gave the value back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// The channel holds as many values as it may.
    #[error("the channel is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiver is gone")]
    Closed(T),
}

/// The receiver is gone; here is the value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver is gone")]
pub struct SendError<T>(pub T);

/// A channel that holds at most `capacity` values (at least one).
///
/// A sender on another thread wakes the receiver's runtime at most once until that has looked.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            senders: 1,
            receiver_alive: true,
            receiver_waker: None,
            sender_wakers: VecDeque::new(),
            threads_waiting: 0,
            receiver_threads: 0,
        }),
        space: Condvar::new(),
        values: Condvar::new(),
        capacity: capacity.max(1),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// The value, if the channel is full or the receiver gone.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let state = self.0.lock();
        if !state.receiver_alive {
            return Err(TrySendError::Closed(value));
        }
        if state.queue.len() >= self.0.capacity {
            return Err(TrySendError::Full(value));
        }
        self.push(state, value);
        Ok(())
    }

    /// Sends, and waits for space on a thread that may block. Not for use in a runtime's task.
    ///
    /// # Errors
    /// The value, if the receiver is gone.
    pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        while state.receiver_alive && state.queue.len() >= self.0.capacity {
            state.threads_waiting += 1;
            state = self.0.space.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.threads_waiting -= 1;
        }
        if !state.receiver_alive {
            return Err(SendError(value));
        }
        self.push(state, value);
        Ok(())
    }

    /// Sends, and waits for space. If it is dropped before it resolves, nothing was sent.
    ///
    /// # Errors
    /// The value, if the receiver is gone.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        let mut waiting = Waiting { shared: &self.0, waker: None };
        std::future::poll_fn(|cx| {
            let mut state = waiting.shared.lock();
            let Some(item) = value.take() else { return Poll::Pending };
            if !state.receiver_alive {
                return Poll::Ready(Err(SendError(item)));
            }
            if state.queue.len() < waiting.shared.capacity {
                self.push(state, item);
                return Poll::Ready(Ok(()));
            }
            value = Some(item);
            if !state.sender_wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.sender_wakers.push_back(cx.waker().clone());
            }
            waiting.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.0.lock().receiver_alive
    }

    fn push(&self, mut state: MutexGuard<'_, State<T>>, value: T) {
        state.queue.push_back(value);
        let waker = state.receiver_waker.take();
        let thread = state.receiver_threads > 0;
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if thread {
            self.0.values.notify_one();
        }
    }
}

/// A sender in line for space; if it leaves the line unserved, the next one is told.
struct Waiting<'a, T> {
    shared: &'a Shared<T>,
    waker: Option<Waker>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let Some(own) = self.waker.take() else { return };
        let mut state = self.shared.lock();
        state.sender_wakers.retain(|waker| !waker.will_wake(&own));
        // The space it was woken for, and did not take, is another's.
        if state.queue.len() < self.shared.capacity
            && let Some(next) = state.sender_wakers.pop_front()
        {
            drop(state);
            next.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.senders -= 1;
            if state.senders > 0 {
                return;
            }
            state.receiver_waker.take()
        };
        self.0.values.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when all senders are gone and the channel is empty. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if let Some(value) = state.queue.pop_front() {
                self.freed(state, 1);
                return Poll::Ready(Some(value));
            }
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.receiver_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits for at least one value and moves all that are there to the end of `into`.
    /// Returns how many; 0 when all senders are gone and the channel is empty. Cancel safe.
    pub async fn recv_many(&mut self, into: &mut Vec<T>) -> usize {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            let count = state.queue.len();
            if count > 0 {
                into.extend(state.queue.drain(..));
                self.freed(state, count);
                return Poll::Ready(count);
            }
            if state.senders == 0 {
                return Poll::Ready(0);
            }
            state.receiver_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next value if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        let value = state.queue.pop_front()?;
        self.freed(state, 1);
        Some(value)
    }

    /// The next value, waited for on a thread that may block. Not for use in a runtime's task.
    pub fn blocking_recv(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            if let Some(value) = state.queue.pop_front() {
                self.freed(state, 1);
                return Some(value);
            }
            if state.senders == 0 {
                return None;
            }
            state.receiver_threads += 1;
            state = self.0.values.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.receiver_threads -= 1;
        }
    }

    /// Values that are in the channel.
    pub fn len(&self) -> usize {
        self.0.lock().queue.len()
    }

    /// Whether no value is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells those who wait for space that there is some, as many as there is space for.
    fn freed(&self, mut state: MutexGuard<'_, State<T>>, count: usize) {
        if state.sender_wakers.is_empty() {
            let threads = state.threads_waiting;
            drop(state);
            if threads > 0 {
                self.0.space.notify_all();
            }
            return;
        }
        let count = count.min(state.sender_wakers.len());
        let wakers: Vec<Waker> = state.sender_wakers.drain(..count).collect();
        let threads = state.threads_waiting;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if threads > 0 {
            self.0.space.notify_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (wakers, values) = {
            let mut state = self.0.lock();
            state.receiver_alive = false;
            (std::mem::take(&mut state.sender_wakers), std::mem::take(&mut state.queue))
        };
        drop(values);
        self.0.space.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}
