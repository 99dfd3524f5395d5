//! Who is to be woken once nothing is borrowed any more: a waker may run any code.

use std::collections::VecDeque;
use std::task::Waker;

use crate::sleeper::Sleeper;

/// Tasks of this thread and others apart, each in the order in which they were noted. Mostly there
/// are tasks alone, which are put in line without a look at each one's kind.
#[derive(Default)]
pub(crate) struct Wakes {
    tasks: Vec<u64>,
    others: VecDeque<Waker>,
}

impl Wakes {
    #[inline]
    pub(crate) fn push(&mut self, sleeper: Sleeper) {
        match sleeper {
            Sleeper::Task(id) => self.tasks.push(id),
            Sleeper::Other(waker) => self.others.push_back(waker),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.others.is_empty()
    }

    /// Takes all tasks, by their names.
    #[inline]
    pub(crate) fn take_tasks(&mut self, wake: impl FnOnce(&[u64])) {
        if !self.tasks.is_empty() {
            wake(&self.tasks);
            self.tasks.clear();
        }
    }

    /// Takes the first of the others.
    #[inline]
    pub(crate) fn next_other(&mut self) -> Option<Waker> {
        if self.others.is_empty() { None } else { self.others.pop_front() }
    }
}

impl Extend<Sleeper> for Wakes {
    #[inline]
    fn extend<I: IntoIterator<Item = Sleeper>>(&mut self, sleepers: I) {
        sleepers.into_iter().for_each(|sleeper| self.push(sleeper));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once_in_the_order_in_which_it_was_noted() {
        let mut wakes = Wakes::default();
        wakes.push(Sleeper::Task(1));
        wakes.extend([Sleeper::Other(Waker::noop().clone()), Sleeper::Task(2)]);
        let mut taken = Vec::new();
        wakes.take_tasks(|ids| taken.extend_from_slice(ids));
        assert_eq!(taken, [1, 2]);
        assert!(!wakes.is_empty() && wakes.next_other().is_some());
        assert!(wakes.is_empty() && wakes.next_other().is_none());
        wakes.take_tasks(|_| panic!("they were taken"));
    }
}
