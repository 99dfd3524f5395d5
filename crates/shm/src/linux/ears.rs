//! Waiting on tokio for the doorbell, the peer's end and the cancellation token.

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::error::ShmError;
use crate::linux::bell::Bell;
use crate::linux::life::Life;
use crate::linux::link::Link;

/// The descriptors of one direction, registered with the runtime that first waited for them.
///
/// Each direction registers duplicates of its own: an edge that one direction takes must not be
/// missed by the other.
#[derive(Debug)]
pub(crate) struct Ears {
    bell: AsyncFd<OwnedFd>,
    life: AsyncFd<OwnedFd>,
}

impl Ears {
    fn new(bell: &Bell, life: &Life) -> Result<Self, ShmError> {
        let doing = "register with the runtime";
        let own = |descriptor: BorrowedFd<'_>| {
            let descriptor = descriptor.try_clone_to_owned().map_err(ShmError::system(doing))?;
            // SAFETY: the descriptor is open, and owned by the `AsyncFd` from here on.
            unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
                .map_err(ShmError::system(doing))
        };
        let (rung, life) = (own(bell.as_fd())?, own(life.as_fd())?);
        bell.watch_forever();
        Ok(Self { bell: rung, life })
    }

    /// Ready when the doorbell was rung or the peer's end hung up.
    fn poll(&self, context: &mut Context<'_>, life: &Life) -> Poll<Result<(), ShmError>> {
        let failed = ShmError::system("wait for the doorbell");
        match self.bell.poll_read_ready(context) {
            Poll::Ready(Ok(mut rung)) => {
                rung.clear_ready();
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(failed(error))),
            Poll::Pending => {}
        }
        while let Poll::Ready(ready) = self.life.poll_read_ready(context) {
            match ready {
                Ok(_) if life.is_gone() => return Poll::Ready(Ok(())),
                // The peer wrote to a socket on which nothing is ever sent.
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(failed(error))),
            }
        }
        Poll::Pending
    }
}

impl Link {
    /// Waits until the doorbell rings, the peer is gone, the token is cancelled, or `deadline`.
    pub(crate) async fn listen(&mut self, deadline: Option<Instant>) -> Result<(), ShmError> {
        if self.side.life.is_known_gone() {
            return Ok(());
        }
        let (ears, fresh) = match self.ears.take() {
            Some(ears) => (ears, false),
            None => (Ears::new(&self.side.own, &self.side.life)?, true),
        };
        // Put back at once: a future that is dropped while it waits must not lose them.
        let ears = &*self.ears.insert(ears);
        let mut cancelled = pin!(self.cancel.as_ref().map(CancellationToken::cancelled));
        let mut late = pin!(deadline.map(|deadline| sleep_until(deadline.into())));
        let heard = poll_fn(|context| {
            let given_up =
                is_ready(cancelled.as_mut(), context) || is_ready(late.as_mut(), context);
            if given_up { Poll::Ready(Ok(())) } else { ears.poll(context, &self.side.life) }
        })
        .await;
        if heard.is_err() {
            self.ears = None;
            if !fresh {
                // Their runtime has ended. The caller looks again, and registers with its own.
                return Ok(());
            }
        }
        heard
    }
}

fn is_ready<F: Future<Output = ()>>(
    future: Pin<&mut Option<F>>,
    context: &mut Context<'_>,
) -> bool {
    future.as_pin_mut().is_some_and(|future| future.poll(context).is_ready())
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Blocks in `sleep`, whose doorbell also rings when the token is cancelled.
pub(crate) fn ring_when_cancelled<E>(
    token: Option<&CancellationToken>,
    bell: &Arc<Bell>,
    sleep: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let Some(token) = token else { return sleep() };
    let waker = Waker::from(Arc::clone(bell));
    let mut cancelled = pin!(token.cancelled());
    match cancelled.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(()) => Ok(()),
        Poll::Pending => sleep(),
    }
}
