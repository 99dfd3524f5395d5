//! How long a worker takes for a job, and how much it is therefore handed at a time.

use crate::config::{BATCH_WORK, HAND_AHEAD_JOBS, HAND_AHEAD_WORK};
use crate::deadline::{NEVER, Nanos};

/// A shorter service time than this is not believed: it is the clock's grain.
const SERVICE_FLOOR: Nanos = 500;

const HAND_AHEAD: Nanos = HAND_AHEAD_WORK.as_nanos() as Nanos;
const BATCH: Nanos = BATCH_WORK.as_nanos() as Nanos;

/// So many answers that come at once are a worker's that did its jobs one behind the other while it
/// had a processor.
const AT_ONCE: u32 = 8;

/// A sample moves a worker's mean by one part in so many of the difference.
const PART: Nanos = 4;

/// The mean time that a job takes, the recent ones counting most: each sample moves it by a
/// quarter of the difference. The way there and back is part of a sample, so for tiny jobs it
/// begins too high and comes down as batches grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceTime(Nanos);

/// The same over all workers of a pool, which run one program: each is a part of the mean.
///
/// Where workers wait for a processor, one that gets a job at a time seems slow, and by its own
/// mean would never get more. A job that began behind another is the better measure: its worker
/// ran already. The time of one that found its worker idle may be a wait, for as long as the others
/// need for what they may have: up to there it makes the mean smaller, but never larger. So may that
/// of one whose worker lost its processor meanwhile, which [`LastAnswer`] tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolServiceTime(ServiceTime);

/// What a worker's last answer that took its time says of a job's: judged by those that follow.
///
/// A worker that waits for a processor in the midst of its jobs seems slow, too. If the answers to
/// many that stood behind come together with the one that took long, it was a wait, as jobs that take
/// long end one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastAnswer {
    took: Nanos,
    jobs: u32,
    idle: bool,
    /// Answers that came together with it.
    behind: u32,
}

impl PoolServiceTime {
    pub(crate) fn unknown() -> Self {
        Self(ServiceTime::unknown())
    }

    /// One of so many workers answered: what its answer before said is judged.
    pub(crate) fn answered(
        &mut self,
        workers: u32,
        last: &mut LastAnswer,
        (took, jobs, idle): (Nanos, u32, bool),
    ) {
        // The first that is known counts at once: nothing is to be handed ahead by its followers alone.
        if took == 0 || self.0.mean().is_none() {
            last.behind += 1;
            self.sample(workers, took, jobs, idle);
            return;
        }
        let before = std::mem::replace(last, LastAnswer { took, jobs, idle, behind: 0 });
        let may_be_wait = before.behind >= AT_ONCE && before.took <= longest_wait(workers);
        if before.took > 0 && !may_be_wait {
            self.sample(workers, before.took, before.jobs, before.idle);
        }
    }

    /// One of so many workers, which was `idle` before, took so long for `jobs` jobs.
    fn sample(&mut self, workers: u32, took: Nanos, jobs: u32, idle: bool) {
        let sample = took / Nanos::from(jobs.max(1));
        let may_be_wait = idle && took <= longest_wait(workers);
        if !may_be_wait || self.0.mean().is_none_or(|mean| sample < mean) {
            self.0.take(took, jobs, PART * Nanos::from(workers.max(1)));
        }
    }

    /// Whether one more job may be handed ahead to one of so many workers, whose own time is `own`
    /// and which has `ahead` of them: none until that is known, since what its first job needs is no
    /// measure.
    pub(crate) fn takes_ahead(self, workers: u32, own: ServiceTime, ahead: u32) -> bool {
        own.mean().is_some_and(|mean| mean <= longest_wait(workers))
            && (own.takes_ahead(ahead) || self.0.takes_ahead(ahead))
    }
}

/// How long one of so many workers may wait for a processor that the others use.
fn longest_wait(workers: u32) -> Nanos {
    HAND_AHEAD * Nanos::from(workers)
}

impl ServiceTime {
    pub(crate) fn unknown() -> Self {
        Self(NEVER)
    }

    pub(crate) fn mean(self) -> Option<Nanos> {
        (self.0 != NEVER).then_some(self.0)
    }

    /// `jobs` jobs took so long together.
    pub(crate) fn sample(&mut self, took: Nanos, jobs: u32) {
        self.take(took, jobs, PART);
    }

    fn take(&mut self, took: Nanos, jobs: u32, part: Nanos) {
        let sample = took / Nanos::from(jobs.max(1));
        self.0 = match self.0 {
            NEVER => sample,
            mean if sample > mean => mean + (sample - mean) / part,
            mean => mean - (mean - sample) / part,
        };
    }

    /// Whether one more job may be handed to an ordered worker ahead of its turn, behind `ahead`
    /// others. It is asked for each job, so there is no division in it.
    pub(crate) fn takes_ahead(self, ahead: u32) -> bool {
        let work = |mean: Nanos| mean.max(SERVICE_FLOOR).saturating_mul(Nanos::from(ahead) + 1);
        ahead < HAND_AHEAD_JOBS && self.mean().is_some_and(|mean| work(mean) <= HAND_AHEAD)
    }

    /// How many jobs one batch may carry, of the `offer` that the worker declared. Below two:
    /// single jobs.
    pub(crate) fn batch(self, offer: u32) -> u32 {
        self.fits(BATCH, offer)
    }

    /// Whether a call of so many jobs that has run for `age` is one behind which no job should be
    /// put.
    pub(crate) fn is_long(self, age: Nanos, jobs: u32) -> bool {
        let expected = self.mean().unwrap_or(NEVER).saturating_mul(Nanos::from(jobs));
        let patience = if jobs > 1 { expected.saturating_mul(2) } else { 0 };
        age > HAND_AHEAD.max(patience)
    }

    fn fits(self, work: Nanos, most: u32) -> u32 {
        match self.mean() {
            None => 0,
            Some(mean) => (work / mean.max(SERVICE_FLOOR)).min(Nanos::from(most)) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Nanos = 1000;

    /// How many jobs are handed ahead.
    fn handed(takes: impl Fn(u32) -> bool) -> u32 {
        (0..).find(|ahead| !takes(*ahead)).unwrap()
    }

    impl ServiceTime {
        fn ahead(self) -> u32 {
            handed(|ahead| self.takes_ahead(ahead))
        }
    }

    impl PoolServiceTime {
        fn ahead(self, workers: u32, own: ServiceTime) -> u32 {
            handed(|ahead| self.takes_ahead(workers, own, ahead))
        }
    }

    #[test]
    fn nothing_ahead_until_it_is_known() {
        assert_eq!(ServiceTime::unknown().ahead(), 0);
        assert_eq!(ServiceTime::unknown().batch(1000), 0);
    }

    #[test]
    fn hands_ahead_two_hundred_microseconds_or_thirty_two_jobs() {
        let of = |took| {
            let mut service = ServiceTime::unknown();
            service.sample(took, 1);
            service.ahead()
        };
        assert_eq!(of(US), 32);
        assert_eq!(of(10 * US), 20);
        assert_eq!(of(150 * US), 1);
        assert_eq!(of(201 * US), 0);
    }

    #[test]
    fn a_wait_for_a_processor_is_no_work() {
        let (mut pool, mut own) = (PoolServiceTime::unknown(), ServiceTime::unknown());
        assert_eq!(pool.ahead(4, own), 0, "nothing is known");
        pool.sample(4, 5 * US, 1, false);
        assert_eq!(pool.ahead(4, own), 0, "nothing is known of this worker");
        own.sample(800 * US, 1);
        for _ in 0..1000 {
            pool.sample(4, 800 * US, 1, true);
        }
        assert_eq!((own.ahead(), pool.ahead(4, own)), (0, 32), "it waited for the three others");
        assert_eq!(pool.ahead(3, own), 0, "that is no wait for two");
        (0..5).for_each(|_| pool.sample(4, 801 * US, 1, true));
        assert_eq!(pool.ahead(4, own), 0, "nor is this one for three");
    }

    #[test]
    fn what_began_behind_another_is_work() {
        let (mut pool, mut own) = (PoolServiceTime::unknown(), ServiceTime::unknown());
        own.sample(300 * US, 1);
        pool.sample(2, US, 1, true);
        assert_eq!(pool.ahead(2, own), 32);
        (0..9).for_each(|_| pool.sample(2, 300 * US, 1, false));
        assert_eq!(pool.ahead(2, own), 0);
    }

    #[test]
    fn a_wait_in_the_midst_of_jobs_is_no_work() {
        let (mut pool, mut own) = (PoolServiceTime::unknown(), ServiceTime::unknown());
        own.sample(US, 1);
        let mut last = LastAnswer::default();
        let mut burst = |answers: u32, took| {
            for answer in 0..answers {
                let took = if answer == 0 { took } else { 0 };
                pool.answered(4, &mut last, (took, 1, false));
            }
            pool
        };
        burst(2, 150 * US);
        assert_eq!(burst(0, 0).ahead(4, ServiceTime(150 * US)), 1, "the first one counts");
        (0..1000).for_each(|_| _ = burst(9, 700 * US));
        own.sample(800 * US, 1);
        assert_eq!(burst(1, US).ahead(4, own), 32, "the three others had the processor");
        (0..50).for_each(|_| _ = burst(1, 700 * US));
        assert_eq!(burst(1, 700 * US).ahead(4, own), 0, "each of them took so long");
    }

    #[test]
    fn a_batch_grows_to_four_hundred_microseconds() {
        let mut service = ServiceTime::unknown();
        service.sample(26 * US, 1);
        let mut size = service.batch(1024);
        assert_eq!(size, 15);
        for _ in 0..20 {
            // 25 us for the way there and back, 1 us a job.
            service.sample(25 * US + Nanos::from(size) * US, size);
            size = service.batch(1024);
        }
        assert!(size > 300, "{size}");
        assert_eq!(service.batch(64), 64, "the worker's own limit holds");
    }

    #[test]
    fn one_long_job_ends_handing_ahead() {
        let mut service = ServiceTime::unknown();
        service.sample(10 * US, 1);
        assert!(!service.is_long(200 * US, 1));
        assert!(service.is_long(201 * US, 1));
        assert!(!service.is_long(800 * US, 40));
        assert!(service.is_long(801 * US, 40));
        service.sample(1_000_000 * US, 1);
        assert_eq!(service.ahead(), 0);
        assert_eq!(service.batch(1024), 0);
    }
}
