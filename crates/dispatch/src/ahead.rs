//! What is looked at soon. Where thousands of jobs are in flight few of them are in the processor's
//! cache, and to wait for memory takes longer than most of what is done with a job. Their order is
//! known ahead, so that the driver can have what comes next fetched meanwhile.

use crate::Payload;
use crate::dispatch::Dispatch;

/// So many places that will be used again are ahead of the one that is used next: jobs come many at a
/// time, and memory takes longer than to take in one.
const FREE_AHEAD: usize = 4;

impl<J: Payload, R> Dispatch<J, R> {
    /// A job is about to be put into a free place.
    #[inline]
    pub(crate) fn fetch_free(&self) {
        if let Some(place) = self.jobs.free_after(FREE_AHEAD) {
            J::fetch(place);
        }
    }

    /// The queue's first job was taken out of it. The one that is first now was fetched the last time.
    #[inline]
    pub(crate) fn fetch_queued(&self) {
        let Some(first) = self.jobs.get(self.queue.first) else { return };
        if let Some(payload) = &first.payload {
            payload.fetch_parts();
        }
        if let Some(second) = self.jobs.place(first.next) {
            J::fetch(second);
        }
    }

    /// A worker has answered the call before this one, which it has begun. The one behind it was
    /// fetched the last time.
    #[inline]
    pub(crate) fn fetch_calls(&self, begun: u32) {
        let Some(next) = self.calls.get(self.calls[begun].next) else { return };
        if let Some(job) = self.jobs.place(next.jobs.first) {
            J::fetch(job);
        }
        if let Some(call) = self.calls.place(next.next) {
            J::fetch(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::time::Duration;

    use crate::{Action, CallId, Config, JobOptions, Offer, Reply, WorkerId};

    thread_local! {
        static FETCHED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
        static PARTS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }

    #[derive(Debug)]
    struct Noting(u32);

    impl Payload for Noting {
        fn size(&self) -> usize {
            1
        }

        fn fingerprint(&self) -> u64 {
            0
        }

        fn fetch<T>(at: &T) {
            FETCHED.with_borrow_mut(|all| all.push(std::ptr::from_ref(at).addr()));
        }

        fn fetch_parts(&self) {
            PARTS.with_borrow_mut(|all| all.push(self.0));
        }
    }

    type Pool = Dispatch<Noting, ()>;

    const JOBS: u32 = 32;

    fn was_fetched<T>(place: Option<&T>) -> bool {
        let at = std::ptr::from_ref(place.unwrap()).addr();
        FETCHED.with_borrow(|all| all.contains(&at))
    }

    fn forget() {
        FETCHED.with_borrow_mut(Vec::clear);
        PARTS.with_borrow_mut(Vec::clear);
    }

    /// A pool with a worker that is ready, and these jobs, all in the queue.
    fn pool(offer: Offer) -> (Pool, WorkerId) {
        let config = Config { num_workers: 1, ..Config::default() };
        let mut pool = Pool::new(config, 1).unwrap();
        let Some(Action::Spawn { worker, .. }) = pool.poll_action() else { panic!("no worker") };
        pool.ready(Duration::ZERO, worker, offer);
        for n in 0..JOBS {
            pool.submit(Duration::ZERO, Noting(n), JobOptions::default()).unwrap();
        }
        forget();
        (pool, worker)
    }

    /// The place of the next call that is sent.
    fn send(pool: &mut Pool) -> Option<u32> {
        loop {
            if let Action::Send { call, .. } = pool.poll_action()? {
                return call.find(&pool.calls);
            }
        }
    }

    #[test]
    fn a_job_is_fetched_before_its_turn() {
        let (mut pool, _) = pool(Offer { capacity: JOBS, ordered: false, ..Offer::default() });
        for n in 0..JOBS {
            let job = pool.queue.first;
            let was_fetched =
                (was_fetched(pool.jobs.place(job)), PARTS.with_borrow(|all| all.contains(&n)));
            // None was taken out of the queue before the first, and one before the second.
            assert_eq!(was_fetched, (n > 1, n > 0), "job {n}");
            let call = send(&mut pool).unwrap();
            assert_eq!(pool.calls[call].jobs.first, job);
        }
    }

    #[test]
    fn what_a_worker_has_ahead_is_fetched_while_it_answers() {
        let (mut pool, worker) = pool(Offer::default());
        // The first one is so short that the worker gets all others ahead.
        let first = send(&mut pool).unwrap();
        let answer = |pool: &mut Pool, n: u64, call| {
            let id = CallId::of(&pool.calls, call);
            pool.replied(Duration::from_micros(n), worker, id, [Reply::Done(())]).unwrap();
        };
        answer(&mut pool, 1, first);
        let calls: Vec<_> = std::iter::from_fn(|| send(&mut pool)).collect();
        assert_eq!(calls.len() as u32, JOBS - 1);
        forget();
        for (n, call) in (0..).zip(calls) {
            let (call_place, job) = (pool.calls.place(call), pool.calls[call].jobs.first);
            let were_fetched = (was_fetched(call_place), was_fetched(pool.jobs.place(job)));
            assert_eq!(were_fetched, (n > 2, n > 1), "call {n}");
            answer(&mut pool, n + 2, call);
        }
    }

    #[test]
    fn a_place_that_is_used_again_is_fetched_before() {
        let (mut pool, worker) = pool(Offer { capacity: JOBS, ordered: false, ..Offer::default() });
        let calls: Vec<_> = std::iter::from_fn(|| send(&mut pool)).collect();
        for call in calls {
            let id = CallId::of(&pool.calls, call);
            pool.replied(Duration::ZERO, worker, id, [Reply::Done(())]).unwrap();
        }
        while pool.poll_action().is_some() {}
        forget();
        for n in 0..JOBS as usize {
            pool.submit(Duration::ZERO, Noting(0), JobOptions::default()).unwrap();
            let place = pool.jobs.place(pool.queue.last);
            assert_eq!(was_fetched(place), n >= FREE_AHEAD, "job {n}");
        }
    }
}
