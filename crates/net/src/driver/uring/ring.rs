//! The submission and completion queues: one `enter` a turn.

use std::collections::VecDeque;
use std::io;

use io_uring::{IoUring, cqueue, squeue};

use crate::error::{NetError, Result};

use super::enter::{Entrance, Wait};

pub(super) struct Ring {
    pub(super) uring: IoUring,
    entrance: Entrance,
    /// Entries that found no room while the kernel took none.
    backlog: VecDeque<squeue::Entry>,
    /// How often the kernel was entered.
    pub(super) enters: u64,
}

impl Ring {
    pub(super) fn new(uring: IoUring) -> Self {
        let entrance = Entrance::of(&uring);
        Self { uring, entrance, backlog: VecDeque::new(), enters: 0 }
    }

    /// Puts an entry in the queue, to be submitted with the turn's `enter`.
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            if self.backlog.is_empty() {
                // Makes room. That it fails (EBUSY, EINTR, EAGAIN) is backpressure.
                self.enters += 1;
                let _ = self.uring.submit();
                if self.try_push(&entry) {
                    return;
                }
            }
            self.backlog.push_back(entry);
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: whatever an entry points to is owned by `InFlight`, `Silent` or the buffer ring until
        // its completion has come, or none can come any more; entries that point to nothing need no care.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    #[cold]
    fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Whether there are completions, or the kernel has work for this thread's `enter`.
    pub(super) fn is_ready(&mut self) -> bool {
        let queue = self.uring.submission();
        if queue.taskrun() || queue.cq_overflow() {
            return true;
        }
        drop(queue);
        !self.uring.completion().is_empty()
    }

    /// Submits, and waits for a completion.
    #[inline]
    pub(super) fn enter(&mut self, wait: Wait) -> Result<()> {
        if !self.backlog.is_empty() {
            self.push_backlog();
        }
        let wait = match wait {
            // What is there already is looked at first, and no entry stays behind for a wait.
            _ if !self.backlog.is_empty() || !self.uring.completion().is_empty() => Wait::No,
            wait => wait,
        };
        let queue = self.uring.submission();
        let (count, work) = (queue.len(), queue.taskrun() || queue.cq_overflow());
        drop(queue);
        if count == 0 && !work && matches!(wait, Wait::No) {
            return Ok(());
        }
        self.enters += 1;
        // What the entries point to is covered by `try_push`.
        let entered = self.entrance.enter(&self.uring, count as u32, wait);
        match entered {
            Err(error) if !is_passing(&error) => {
                Err(NetError::Io { what: "waiting for io_uring's completions", source: error })
            }
            _ => Ok(()),
        }
    }

    /// Whether the kernel has taken all entries, and hides no completions for want of room.
    pub(super) fn is_settled(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.is_empty() && !queue.cq_overflow() && self.backlog.is_empty()
    }

    /// To be called before it is dropped.
    pub(super) fn close(&mut self) {
        self.entrance.close(&self.uring);
    }

    #[inline]
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    /// Takes the completions that are there by now.
    #[inline]
    pub(super) fn completions(&mut self) -> impl ExactSizeIterator<Item = cqueue::Entry> {
        self.uring.completion()
    }
}

/// Whether a failed `enter` is the end of a wait or backpressure, and no error.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN, libc::EBADR];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}
