//! When a wait ends at the latest: by one timeout operation, which stays with the kernel from
//! wait to wait. Most waits end long before their deadline, and the kernel would start and stop
//! a timer of each wait's own every time.

use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types::Timespec};

#[derive(Default)]
pub(super) struct Timer {
    /// When the operation that the kernel has ends, if it has one.
    ends: Option<Instant>,
    /// What the operation points to: the kernel reads it when it takes the entry.
    span: Box<Timespec>,
}

impl Timer {
    /// Whether the operation ends a wait by then.
    pub(super) fn ends_by(&self, deadline: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= deadline)
    }

    /// The operation that ends a wait at `deadline`, which is `left` away; `None` while another
    /// is under way.
    pub(super) fn start(&mut self, deadline: Instant, left: Duration) -> Option<squeue::Entry> {
        if self.ends.is_some() {
            return None;
        }
        self.ends = Some(deadline);
        *self.span = Timespec::from(left);
        Some(opcode::Timeout::new(&raw const *self.span).build())
    }

    /// Its completion came.
    pub(super) fn over(&mut self) {
        self.ends = None;
    }
}
