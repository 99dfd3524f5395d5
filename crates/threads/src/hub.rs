//! What all threads of one pool share.

use std::collections::VecDeque;

use crate::WorkerPanic;
use crate::cores::Cores;
use crate::sleeper::Sleeper;
use crate::sync::{AtomicBool, Mutex, Ordering, fence, lock};

/// Reports of panics after which the worker was restarted that are kept, unless they're read by
/// [`take_panic`](crate::WorkerPool::take_panic). The oldest goes first.
pub const RESTART_REPORTS_MAX: usize = 64;

pub(crate) struct Hub {
    /// Where the manager waits for messages.
    pub(crate) bell: Sleeper,
    pub(crate) cores: Cores,
    /// Whether the manager waits in `recv`: looked at where the buffer's length is 0.
    receiving: AtomicBool,
    panics: Mutex<VecDeque<WorkerPanic>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            bell: Sleeper::new(),
            cores: Cores::of_current_thread(),
            receiving: AtomicBool::new(false),
            panics: Mutex::new(VecDeque::new()),
        }
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving.load(Ordering::Acquire)
    }

    pub(crate) fn set_receiving(&self, receiving: bool) {
        self.receiving.store(receiving, Ordering::Release);
    }

    /// Leaves word of a panic and wakes the manager.
    pub(crate) fn report(&self, panic: WorkerPanic) {
        let surplus = {
            let mut panics = lock(&self.panics);
            panics.push_back(panic);
            let restarts = panics.iter().filter(|panic| panic.restarted).count();
            let oldest = panics.iter().position(|panic| panic.restarted);
            oldest.filter(|_| restarts > RESTART_REPORTS_MAX).and_then(|at| panics.remove(at))
        };
        // A payload's own drop may do anything: never under the lock.
        drop(surplus);
        fence();
        self.bell.wake();
    }

    /// The oldest panic that wasn't taken.
    pub(crate) fn take_panic(&self) -> Option<WorkerPanic> {
        lock(&self.panics).pop_front()
    }

    /// The oldest panic that ended its worker and wasn't taken.
    pub(crate) fn take_fatal_panic(&self) -> Option<WorkerPanic> {
        let mut panics = lock(&self.panics);
        let at = panics.iter().position(|panic| !panic.restarted)?;
        panics.remove(at)
    }

    pub(crate) fn has_panics(&self) -> bool {
        !lock(&self.panics).is_empty()
    }
}
