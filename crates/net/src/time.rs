//! Waiting for a time.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::error::Elapsed;
use crate::runtime;
use crate::sleeper::Sleeper;
use crate::slots::Key;

/// Resolves at a time. Dropping it takes the timer out.
///
/// A timer fires at the first turn of the runtime after its deadline; mio's driver waits in
/// whole milliseconds, rounded up. Where a thread that was stopped continues, tasks are told first
/// of the events that came meanwhile, then of the timers that are due.
pub struct Sleep {
    deadline: Instant,
    timer: Option<Key>,
    local: PhantomData<Rc<()>>,
}

impl Sleep {
    /// When it resolves.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn disarm(&mut self) {
        if let Some(key) = self.timer.take() {
            let sleeper = runtime::with(|core| core.timers().borrow_mut().remove(key));
            drop(sleeper);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// If no runtime runs on this thread.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let timer = self.timer;
        let registered = runtime::must(|core| {
            if core.now() >= deadline {
                return None;
            }
            let mut timers = core.timers().borrow_mut();
            match timer {
                Some(key) if timers.renew(key, cx.waker()) => Some(key),
                _ => Some(timers.insert(deadline, Sleeper::of(cx.waker()))),
            }
        });
        match registered {
            Some(key) => {
                self.timer = Some(key);
                Poll::Pending
            }
            None => {
                self.disarm();
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Sleeps for a time, counted from this turn's reading of the clock. Cancel safe.
pub fn sleep(duration: Duration) -> Sleep {
    let now = runtime::now();
    // A time too far to be represented is as good as one in thirty years.
    let far = Duration::from_secs(30 * 365 * 86_400);
    sleep_until(now.checked_add(duration).unwrap_or_else(|| now + far))
}

/// Sleeps until a time. Cancel safe.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None, local: PhantomData }
}

/// The future's output, if it is there within the time; else the future is dropped.
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    within(sleep(duration), future)
}

/// The future's output, if it is there by the deadline; else the future is dropped.
pub fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    within(sleep_until(deadline), future)
}

async fn within<F: Future>(sleep: Sleep, future: F) -> Result<F::Output, Elapsed> {
    let (mut sleep, mut future) = (pin!(sleep), pin!(future));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
