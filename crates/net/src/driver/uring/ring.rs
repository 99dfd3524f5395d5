//! The submission and completion queues: one `enter` a turn.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use crate::error::{NetError, Result};

pub(super) struct Ring {
    pub(super) uring: IoUring,
    /// Entries that found no room while the kernel took none.
    backlog: VecDeque<squeue::Entry>,
    /// How often the kernel was entered.
    pub(super) enters: u64,
}

impl Ring {
    pub(super) fn new(uring: IoUring) -> Self {
        Self { uring, backlog: VecDeque::new(), enters: 0 }
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
        // SAFETY: whatever an entry points to is owned by `InFlight` or the buffer ring until
        // its completion has come; entries that point to nothing need no care.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

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

    /// Submits, and waits for a completion at most so long.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.push_backlog();
        let entered = match timeout {
            Some(Duration::ZERO) => self.enter_without_wait(),
            // What is there already is looked at first.
            _ if !self.uring.completion().is_empty() => self.enter_without_wait(),
            None => {
                self.enters += 1;
                self.uring.submit_and_wait(1).map(drop)
            }
            Some(timeout) => {
                self.enters += 1;
                let time = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(1, &args).map(drop)
            }
        };
        match entered {
            Err(error) if !is_passing(&error) => {
                Err(NetError::Io { what: "waiting for io_uring's completions", source: error })
            }
            _ => Ok(()),
        }
    }

    fn enter_without_wait(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        let (count, work) = (queue.len(), queue.taskrun() || queue.cq_overflow());
        drop(queue);
        if count == 0 && !work {
            return Ok(());
        }
        self.enters += 1;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument structure is passed; the entries are covered by `try_push`.
        unsafe { self.uring.submitter().enter::<()>(count as u32, 0, flags, None) }.map(drop)
    }

    /// Moves the completions that are there to `into`.
    pub(super) fn completions(&mut self, into: &mut Vec<cqueue::Entry>) {
        into.extend(self.uring.completion());
    }
}

/// Whether a failed `enter` is the end of a wait or backpressure, and no error.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN, libc::EBADR];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}
