//! The socket that both sides hold open: when one ends, the other's hangs up.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{CloseReason, ShmError};

/// How long a side that never sleeps goes on before it asks the kernel whether the peer lives. The
/// clock it asks is read without a system call, and ticks every 1 to 4 ms.
const CHECK_INTERVAL: Duration = Duration::from_millis(4);

/// One side's end of the socket, and what it said.
#[derive(Debug)]
pub(crate) struct Life {
    socket: OwnedFd,
    gone: AtomicBool,
    reason: OnceLock<CloseReason>,
}

/// Both ends of a fresh socket.
pub(crate) fn life_pair() -> Result<(Life, OwnedFd), ShmError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (own, peer) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(ShmError::system("make a socket"))?;
    Ok((Life::new(own), peer))
}

impl Life {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, gone: AtomicBool::new(false), reason: OnceLock::new() }
    }

    /// Whether the peer is known to be gone, without asking the kernel.
    #[inline]
    pub(crate) fn is_known_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Takes the peer for gone, whatever the kernel says.
    pub(crate) fn give_up(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Remembers what closed the pair, unless it was closed by something else before.
    pub(crate) fn note(&self, reason: CloseReason) {
        // The first reason stays.
        let _ = self.reason.set(reason);
    }

    /// What closed the pair.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.reason.get().copied()
    }

    /// Asks the kernel whether the peer is gone.
    pub(crate) fn is_gone(&self) -> bool {
        if !self.is_known_gone() {
            let mut hung_up = [PollFd::new(&self.socket, PollFlags::RDHUP)];
            // An interrupted or failed poll says nothing; the next one will.
            if poll(&mut hung_up, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
                self.gone.store(true, Ordering::Relaxed);
            }
        }
        self.is_known_gone()
    }
}

impl AsFd for Life {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks now and then whether the peer is gone; for each direction its own.
#[derive(Debug)]
pub(crate) struct Pulse {
    life: Arc<Life>,
    asks: bool,
    checked: Cell<Duration>,
}

impl Pulse {
    pub(crate) fn new(life: Arc<Life>, asks: bool) -> Self {
        Self { life, asks, checked: Cell::new(Duration::ZERO) }
    }

    /// Whether the peer is gone, as of at most a few milliseconds ago; or as of when this side was
    /// told, where it doesn't ask.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        if !self.asks {
            return self.life.is_known_gone();
        }
        let now = coarse_now();
        if now.saturating_sub(self.checked.get()) < CHECK_INTERVAL {
            return self.life.is_known_gone();
        }
        self.checked.set(now);
        self.life.is_gone()
    }
}

#[inline]
fn coarse_now() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    // The monotonic clock counts from boot, and is never negative.
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
