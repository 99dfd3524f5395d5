//! Jobs in a row: the queue, and what a call holds.

use crate::job::Job;
use crate::slab::{NONE, Slab};

/// A list through the jobs' own links, so that a job is put in and taken out anywhere in O(1) and
/// without allocation. A job is in one list at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobList {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) len: u32,
}

impl JobList {
    pub(crate) fn new() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push_back<J>(&mut self, jobs: &mut Slab<Job<J>>, index: u32) {
        let job = &mut jobs[index];
        job.prev = self.last;
        job.next = NONE;
        match self.last {
            NONE => self.first = index,
            last => jobs[last].next = index,
        }
        self.last = index;
        self.len += 1;
    }

    pub(crate) fn push_front<J>(&mut self, jobs: &mut Slab<Job<J>>, index: u32) {
        let job = &mut jobs[index];
        job.prev = NONE;
        job.next = self.first;
        match self.first {
            NONE => self.last = index,
            first => jobs[first].prev = index,
        }
        self.first = index;
        self.len += 1;
    }

    pub(crate) fn remove<J>(&mut self, jobs: &mut Slab<Job<J>>, index: u32) {
        let (prev, next) = (jobs[index].prev, jobs[index].next);
        match prev {
            NONE => self.first = next,
            prev => jobs[prev].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => jobs[next].prev = prev,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(list: &JobList, jobs: &Slab<Job<u32>>) -> Vec<u32> {
        let mut found = Vec::new();
        let mut index = list.first;
        while index != NONE {
            found.push(index);
            index = jobs[index].next;
        }
        assert_eq!(found.len(), list.len as usize);
        assert_eq!(list.last, found.last().copied().unwrap_or(NONE));
        found
    }

    #[test]
    fn takes_out_anywhere() {
        let mut jobs = Slab::new();
        let mut list = JobList::new();
        for n in 0..5 {
            let index = jobs.insert(Job::new(n, 0));
            list.push_back(&mut jobs, index);
        }
        list.remove(&mut jobs, 2);
        list.remove(&mut jobs, 0);
        list.remove(&mut jobs, 4);
        assert_eq!(content(&list, &jobs), [1, 3]);
        list.push_front(&mut jobs, 4);
        assert_eq!(content(&list, &jobs), [4, 1, 3]);
        for index in [1, 3, 4] {
            list.remove(&mut jobs, index);
        }
        assert_eq!(content(&list, &jobs), []);
    }
}
