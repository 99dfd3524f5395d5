//! How other threads reach a runtime: a line of woken tasks, and an eventfd for one that sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{NetError, Result};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

pub(crate) struct Remote {
    /// What the runtime's thread is at. Only the one who turns `ASLEEP` into `NOTIFIED`
    /// writes to the eventfd: one wake-up, however many threads send.
    state: AtomicU8,
    woken: Mutex<Vec<u64>>,
    eventfd: OwnedFd,
}

impl Remote {
    pub(crate) fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = eventfd(0, flags).map_err(NetError::sys("making an eventfd"))?;
        Ok(Self { state: AtomicU8::new(AWAKE), woken: Mutex::default(), eventfd })
    }

    pub(crate) fn push(&self, id: u64) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // It can only fail when the counter is near 2^64, and then it is readable anyway.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Whether a task was woken from another thread since the last turn.
    pub(crate) fn is_notified(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Says that the runtime's thread is about to sleep; false if there is work for it.
    #[inline]
    pub(crate) fn fall_asleep(&self) -> bool {
        let (from, to) = (AWAKE, ASLEEP);
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Says that it is awake, and hands the tasks woken meanwhile to `wake`.
    #[inline]
    pub(crate) fn wake_up(&self, wake: impl FnMut(u64)) {
        if self.state.load(Ordering::Relaxed) == AWAKE {
            return;
        }
        if self.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED {
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(wake);
        }
    }
}

impl AsFd for Remote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_woken_once_however_many_send() {
        let remote = Remote::new().unwrap();
        let count = |remote: &Remote| {
            let mut bytes = [0; 8];
            rustix::io::read(&remote.eventfd, &mut bytes).map(|_| u64::from_ne_bytes(bytes))
        };
        let mut woken = Vec::new();
        // Awake: no system call at all.
        remote.push(1);
        assert!(count(&remote).is_err());
        // Work that came before it fell asleep keeps it awake.
        assert!(!remote.fall_asleep());
        remote.wake_up(|id| woken.push(id));
        assert!(remote.fall_asleep());
        remote.push(2);
        remote.push(3);
        remote.push(4);
        assert_eq!(count(&remote), Ok(1));
        remote.wake_up(|id| woken.push(id));
        assert_eq!(woken, [1, 2, 3, 4]);
        remote.push(5);
        assert!(count(&remote).is_err(), "it has not slept since");
    }
}
