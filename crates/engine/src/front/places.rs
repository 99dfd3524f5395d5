//! The jobs that a client waits for, each at a place that the job knows.

use remuda_dispatch::JobId;

/// The first place is here, and not in memory of its own: where there are many clients, most have
/// one job at a time, and each line of memory that a job has to fetch counts.
#[derive(Debug, Default)]
pub(crate) struct Places {
    first: Option<JobId>,
    count: u32,
    /// The places from 1 on.
    more: Vec<Option<JobId>>,
    /// Those of them that are free.
    free: Vec<u32>,
}

impl Places {
    /// How many jobs there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// A place for a job, which is either [`set`](Self::set) next or not used.
    pub(crate) fn find(&mut self) -> u32 {
        if self.first.is_none() {
            return 0;
        }
        self.free.last().copied().unwrap_or_else(|| {
            self.more.push(None);
            let place = self.more.len() as u32;
            self.free.push(place);
            place
        })
    }

    /// Puts a job at the place that was found for it.
    pub(crate) fn set(&mut self, place: u32, job: JobId) {
        let Some(slot) = self.slot(place) else { return };
        *slot = Some(job);
        self.count += 1;
        if place > 0 {
            self.free.pop();
        }
    }

    /// The job at a place has ended. It is not read, which would be waited for.
    pub(crate) fn release(&mut self, place: u32) {
        let Some(slot) = self.slot(place) else { return };
        debug_assert!(slot.is_some(), "a job ends once");
        *slot = None;
        self.count -= 1;
        if place > 0 {
            self.free.push(place);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = JobId> {
        self.first.iter().chain(self.more.iter().flatten()).copied()
    }

    fn slot(&mut self, place: u32) -> Option<&mut Option<JobId>> {
        match place.checked_sub(1) {
            None => Some(&mut self.first),
            Some(index) => self.more.get_mut(index as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use remuda_dispatch::{Config, Dispatch, JobOptions, Payload};

    #[derive(Debug)]
    struct Nothing;

    impl Payload for Nothing {
        fn size(&self) -> usize {
            0
        }

        fn fingerprint(&self) -> u64 {
            0
        }
    }

    fn jobs() -> impl FnMut() -> JobId {
        let mut pool = Dispatch::<_, ()>::new(Config::default(), 1).unwrap();
        move || pool.submit(Duration::ZERO, Nothing, JobOptions::default()).unwrap()
    }

    fn put(places: &mut Places, job: JobId) -> u32 {
        let place = places.find();
        places.set(place, job);
        place
    }

    #[test]
    fn a_place_is_used_again_once_its_job_has_ended() {
        let (mut places, mut job) = (Places::default(), jobs());
        let taken: Vec<_> = (0..3).map(|_| put(&mut places, job())).collect();
        assert_eq!(taken, [0, 1, 2]);
        for place in [1, 0] {
            places.release(place);
            assert_eq!(places.count(), 2);
            assert_eq!(put(&mut places, job()), place);
        }
        assert_eq!(places.iter().count(), 3);
    }

    #[test]
    fn a_place_that_was_found_for_a_job_that_was_refused_is_found_again() {
        let (mut places, mut job) = (Places::default(), jobs());
        for expected in 0..3 {
            assert_eq!((places.find(), places.find()), (expected, expected));
            put(&mut places, job());
        }
        assert_eq!(places.count(), 3);
    }
}
