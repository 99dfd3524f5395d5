//! The pool's options, with their defaults and limits.

use std::time::Duration;

/// The most expected work that is handed to an ordered worker ahead of its turn: by its own mean, or
/// by that of all the pool's own workers where that is shorter.
pub const HAND_AHEAD_WORK: Duration = Duration::from_micros(200);
/// The most jobs that are handed to an ordered worker ahead of their turn, batches apart.
pub const HAND_AHEAD_JOBS: u32 = 32;
/// The most expected work that one batch carries.
pub const BATCH_WORK: Duration = Duration::from_micros(400);
/// The most workers that a pool spawns.
pub const NUM_WORKERS_MAX: u32 = 4096;
/// The most jobs that `max_queue_size` may allow.
pub const QUEUE_SIZE_MAX: usize = 1 << 26;
/// The most bytes that the bodies of one batch have together: batches are for tiny jobs.
pub const BATCH_BODY_BYTES: usize = 64 * 1024;
/// So many samples in a row must be over `max_worker_memory` before a worker is replaced: one
/// alone may be the peak of a large job.
pub const MEMORY_SAMPLES: u32 = 3;
/// A worker may grow by this share of its first sample, in per cent, whatever the limit says: else
/// a limit below what a fresh worker needs would replace workers for ever.
pub const MEMORY_HEADROOM_PERCENT: u64 = 25;
/// How many bodies the poison list holds; the oldest is forgotten first.
pub const POISON_LIST_SIZE: usize = 1024;
/// So many starts in a row, times `num_workers`, must have failed before [`Config::give_up`] takes
/// effect.
pub const GIVE_UP_STARTS: u32 = 3;

/// The pool's options. Where a name is RoadRunner's, so is its meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many workers are kept. Zero is allowed: a pool of attached peers. Default: 1. At most
    /// [`NUM_WORKERS_MAX`].
    pub num_workers: u32,
    /// How many jobs may wait in the queue. Those that workers have don't count, nor does one for
    /// each idle worker; those that come back from a lost worker may exceed it. Default: 4096. At most [`QUEUE_SIZE_MAX`].
    pub max_queue_size: usize,
    /// Whether a job may be run again. Default: at most once.
    pub delivery: Delivery,
    /// A job under which so many workers died is `poisoned`. Zero turns it off. Default: 3.
    pub poison_after: u32,
    /// How long a body under which `poison_after` workers died is refused at once. `None` turns it
    /// off. A death counts if it is clear whose it is: a worker that isn't ordered must have had no
    /// other job. Default: `None`.
    pub quarantine: Option<Duration>,
    /// After about so many jobs a worker is replaced: it serves on until its replacement is
    /// ready. `None`: never. Default: `None`.
    pub max_jobs: Option<u64>,
    /// By how many per cent of itself `max_jobs` is lowered at most, at random for each worker, so
    /// that they aren't all replaced at the same time. Default: 10. At most 100.
    pub max_jobs_jitter: u32,
    /// How long a worker may take from its spawn until it is ready. Default: 60 s.
    pub allocate_timeout: Duration,
    /// How long a worker may take to end when it was asked to; then it is killed. Default: 60 s.
    pub destroy_timeout: Duration,
    /// How long a new worker may take to be ready in a reset. Default: 60 s.
    pub reset_timeout: Duration,
    /// How long a worker that declared `cancel` may take to answer a job that it was told to
    /// cancel. After it, a job that was cancelled by its client ends as `cancelled` whatever the
    /// worker does, and a worker whose job is over its execution limit is killed. Default: 1 s.
    pub cancel_grace: Duration,
    /// When workers that serve well are replaced.
    pub supervisor: Supervisor,
    /// How workers that die without having answered anything are started again.
    pub restart: Restart,
    /// Whether the pool gives up when [`GIVE_UP_STARTS`] times `num_workers` starts in a row
    /// failed and none was ever ready. Default: `false`, to keep trying.
    pub give_up: bool,
    /// What to do when more comes in than the workers can do. `None`: first come, first served,
    /// until the queue is full. Default: `None`.
    pub overload: Option<Overload>,
}

/// When workers that serve well are replaced. All off by default, and where they are zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Supervisor {
    /// A worker is replaced at this age.
    pub ttl: Option<Duration>,
    /// A worker that had no job for so long is replaced.
    pub idle_ttl: Option<Duration>,
    /// A job may run for so long; then its worker is killed. A job's own `exec_timeout` counts if
    /// it is shorter.
    pub exec_ttl: Option<Duration>,
    /// A worker of which [`MEMORY_SAMPLES`] samples in a row were over so many bytes is replaced.
    pub max_worker_memory: Option<u64>,
}

/// How often a job may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A job that may have started is never started again.
    AtMostOnce,
    /// A job is run again after the failures that `retry_on` names.
    AtLeastOnce {
        /// The tries in all. Zero: as many as it takes, but `poison_after` ends it; allowed if
        /// nothing but `lost` is retried.
        tries: u32,
        /// After which failures it is run again.
        retry_on: RetryOn,
    },
}

/// After which failures a job is run again under [`Delivery::AtLeastOnce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// Its worker was lost.
    pub lost: bool,
    /// It was over its execution limit. A client's budget that is spent is never a reason to try
    /// again.
    pub timeout: bool,
    /// The worker answered with an error.
    pub error: bool,
}

/// The delay before a worker is started again that died without having answered anything: a
/// random time, of at most `base` after the first such death of its slot, and of at most twice as
/// much after each further one in a row, up to a cap.
///
/// The cap is small for a worker that had a job. It could start, so the next one will, and the job
/// that it died of has lost one of its tries: the jobs themselves bound how often that happens,
/// and those that are sound don't wait for the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// The largest first delay. Default: 100 ms.
    pub base: Duration,
    /// The largest delay after a worker that was never ready, or had no job. Default: 10 s.
    pub cap: Duration,
    /// The largest delay after a worker that had a job, if it is less than `cap`. Default: 250 ms.
    pub busy_cap: Duration,
}

/// What to do when more comes in than the workers can do, after CoDel for request queues (Ben
/// Maurer, "Fail at Scale", ACM Queue 2015).
///
/// When the queue was not empty for `interval`, and meanwhile a job waited for more than half of
/// its client's budget, the newest job is served first, and a job with a deadline is refused with
/// `queue_timeout` once it waited for `wait` (or a tenth of its budget, if that is longer). It
/// ends when nothing was refused so for `interval`. Jobs without a deadline
/// wait as long as it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// Default: 100 ms.
    pub interval: Duration,
    /// Default: 5 ms.
    pub wait: Duration,
}

/// An option that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `num_workers` is over its limit.
    #[error("num_workers is {0}, the most is {NUM_WORKERS_MAX}")]
    NumWorkers(u32),
    /// `max_queue_size` is over its limit.
    #[error("max_queue_size is {0}, the most is {QUEUE_SIZE_MAX}")]
    QueueSize(usize),
    /// `max_jobs_jitter` is over 100 per cent.
    #[error("max_jobs_jitter is {0} per cent, the most is 100")]
    Jitter(u32),
    /// A worker that may do no job at all.
    #[error("max_jobs is 0: leave it out, or allow at least one job")]
    MaxJobs,
    /// Jobs that kill their workers would run for ever.
    #[error(
        "tries are unlimited and poison_after is 0: set one of them, or a job that kills its worker runs for ever"
    )]
    Endless,
}

impl Config {
    /// Says whether the options fit together.
    ///
    /// # Errors
    /// The first option that is over its limit, or two that contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.num_workers > NUM_WORKERS_MAX {
            return Err(ConfigError::NumWorkers(self.num_workers));
        }
        if self.max_queue_size > QUEUE_SIZE_MAX {
            return Err(ConfigError::QueueSize(self.max_queue_size));
        }
        if self.max_jobs_jitter > 100 {
            return Err(ConfigError::Jitter(self.max_jobs_jitter));
        }
        if self.max_jobs == Some(0) {
            return Err(ConfigError::MaxJobs);
        }
        match self.delivery {
            Delivery::AtLeastOnce { tries: 0, retry_on }
                if self.poison_after == 0 || retry_on.timeout || retry_on.error =>
            {
                Err(ConfigError::Endless)
            }
            _ => Ok(()),
        }
    }
}

impl Delivery {
    /// `map`'s default: a lost worker's jobs run again until they are poisoned; other failures are
    /// final.
    pub const AT_LEAST_ONCE: Self = Self::AtLeastOnce {
        tries: 0,
        retry_on: RetryOn { lost: true, timeout: false, error: false },
    };
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_workers: 1,
            max_queue_size: 4096,
            delivery: Delivery::AtMostOnce,
            poison_after: 3,
            quarantine: None,
            max_jobs: None,
            max_jobs_jitter: 10,
            allocate_timeout: Duration::from_secs(60),
            destroy_timeout: Duration::from_secs(60),
            reset_timeout: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(1),
            supervisor: Supervisor::default(),
            restart: Restart::default(),
            give_up: false,
            overload: None,
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(10),
            busy_cap: Duration::from_millis(250),
        }
    }
}

impl Restart {
    /// The largest delay after a worker that died without having answered anything, when it was
    /// `last` after the one before it (zero: there was none).
    pub(crate) fn ceiling(&self, last: Duration, had_jobs: bool) -> Duration {
        let cap = if had_jobs { self.cap.min(self.busy_cap) } else { self.cap };
        let grown = if last.is_zero() { self.base } else { last.saturating_mul(2) };
        grown.min(cap)
    }
}

impl Default for Overload {
    fn default() -> Self {
        Self { interval: Duration::from_millis(100), wait: Duration::from_millis(5) }
    }
}
