//! Waiting for any descriptor: an eventfd, a pipe, a pidfd.

use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::{NetError, Result};
use crate::runtime;
use crate::sleeper::Sleeper;
use crate::slots::Key;
use crate::state::Watch;

/// A descriptor that is waited for again and again, registered once.
///
/// After [`ready`](Self::ready), read (or write) until the kernel would block before waiting
/// again: what is left over may not be reported anew.
pub struct ReadyFd {
    key: Key,
    local: PhantomData<Rc<()>>,
}

impl ReadyFd {
    /// Waits for a descriptor to be readable. A duplicate of it is kept.
    ///
    /// # Errors
    /// If it can't be duplicated or registered (a regular file can't), or no runtime runs here.
    pub fn readable(fd: &impl AsFd) -> Result<Self> {
        Self::new(fd, false)
    }

    /// Waits for a descriptor to be writable, as [`readable`](Self::readable).
    ///
    /// # Errors
    /// As `readable`.
    pub fn writable(fd: &impl AsFd) -> Result<Self> {
        Self::new(fd, true)
    }

    fn new(fd: &impl AsFd, write: bool) -> Result<Self> {
        let duplicate = fd.as_fd().try_clone_to_owned();
        let fd: OwnedFd = duplicate.map_err(NetError::io("duplicating a descriptor"))?;
        let watch = Watch::new(fd, write);
        let key = runtime::with_io(|state, driver| {
            let key = state.watches.insert(watch);
            match driver.watch(state, key) {
                Ok(()) => Ok(key),
                Err(error) => {
                    state.watches.remove(key);
                    Err(error)
                }
            }
        });
        let key = key.unwrap_or(Err(NetError::NoRuntime))?;
        Ok(Self { key, local: PhantomData })
    }

    /// Resolves when it is ready, or became so since this last resolved. Cancel safe.
    ///
    /// # Errors
    /// If the runtime has ended, or the kernel refuses to watch the descriptor.
    pub async fn ready(&self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_ready(cx.waker())).await
    }

    pub(crate) fn poll_ready(&self, waker: &Waker) -> Poll<Result<()>> {
        let polled = runtime::with_io(|state, driver| {
            let Some(watch) = state.watches.get_mut(self.key) else {
                return Poll::Ready(Err(NetError::Cancelled));
            };
            if std::mem::take(&mut watch.ready) {
                return Poll::Ready(Ok(()));
            }
            watch.waker = Some(Sleeper::of(waker));
            match driver.watch(state, self.key) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        });
        polled.unwrap_or(Poll::Ready(Err(NetError::NoRuntime)))
    }
}

impl Drop for ReadyFd {
    fn drop(&mut self) {
        runtime::with_io(|state, driver| driver.unwatch(state, self.key));
    }
}

/// Resolves once when a descriptor is ready. Dropping it stops the watching.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Readiness {
    ready: Result<ReadyFd>,
}

impl Future for Readiness {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.ready {
            Ok(fd) => fd.poll_ready(cx.waker()),
            Err(error) => Poll::Ready(Err(std::mem::replace(error, NetError::Closed))),
        }
    }
}

/// Resolves when the descriptor can be read (or has ended). It is duplicated and registered for
/// this once; to wait often, use [`ReadyFd`].
pub fn readable(fd: &impl AsFd) -> Readiness {
    Readiness { ready: ReadyFd::readable(fd) }
}

/// Resolves when the descriptor can be written, as [`readable`].
pub fn writable(fd: &impl AsFd) -> Readiness {
    Readiness { ready: ReadyFd::writable(fd) }
}

/// Resolves when the process that the pidfd names has ended. It is not reaped by this.
pub fn child_exited(pidfd: &impl AsFd) -> Readiness {
    readable(pidfd)
}
