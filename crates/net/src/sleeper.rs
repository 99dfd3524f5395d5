//! Who waits for something of this thread's: mostly one of its own tasks, which needs no waker.

use std::cell::Cell;
use std::ptr;
use std::task::{RawWakerVTable, Waker};

/// Somebody to be woken. A task that waits by its own waker is known by its name, so that it is
/// noted and woken without counting references; anybody else (a task's own executor, say) by
/// a clone of the waker.
pub(crate) enum Sleeper {
    /// A task of this thread's runtime.
    Task(u64),
    Other(Waker),
}

/// The task that is being polled, and what its waker is made of.
#[derive(Clone, Copy)]
struct Polled {
    task: u64,
    data: *const (),
    vtable: *const RawWakerVTable,
}

impl Polled {
    /// No waker has a null table.
    const NONE: Self = Self { task: 0, data: ptr::null(), vtable: ptr::null() };
}

thread_local! {
    static POLLED: Cell<Polled> = const { Cell::new(Polled::NONE) };
}

/// While this lives, `waker` stands for the task. The waker must live as long, so that its
/// address is nobody else's.
pub(crate) struct Polling<'a>(&'a Waker);

impl<'a> Polling<'a> {
    pub(crate) fn begin(task: u64, waker: &'a Waker) -> Self {
        POLLED.set(Polled { task, data: waker.data(), vtable: waker.vtable() });
        Self(waker)
    }

    pub(crate) fn waker(&self) -> &'a Waker {
        self.0
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        POLLED.set(Polled::NONE);
    }
}

impl Sleeper {
    /// Whom this waker wakes.
    #[inline]
    pub(crate) fn of(waker: &Waker) -> Self {
        let polled = POLLED.get();
        if polled.data == waker.data() && ptr::eq(polled.vtable, waker.vtable()) {
            Self::Task(polled.task)
        } else {
            Self::Other(waker.clone())
        }
    }
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Task(task), Self::Task(other)) => task == other,
            (Self::Other(waker), Self::Other(other)) => waker.will_wake(other),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Nothing(#[allow(dead_code)] u8);

    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn only_the_waker_of_the_task_that_is_polled_is_known_by_name() {
        let [own, other] = [0, 1].map(|number| Waker::from(Arc::new(Nothing(number))));
        let is_task = |waker: &Waker| matches!(Sleeper::of(waker), Sleeper::Task(7));
        assert!(!is_task(&own));
        let polling = Polling::begin(7, &own);
        assert!(is_task(&own) && is_task(&own.clone()) && is_task(polling.waker()));
        assert!(!is_task(&other) && !is_task(Waker::noop()));
        assert!(Sleeper::of(&own) == Sleeper::of(&own) && Sleeper::of(&own) != Sleeper::of(&other));
        drop(polling);
        assert!(!is_task(&own));
    }
}
