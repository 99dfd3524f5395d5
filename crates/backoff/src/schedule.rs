//! The delay before the next attempt: exponential, capped, with full jitter.

use crate::Rng;
use std::time::Duration;

/// Decides how long to wait before trying again, and when to stop trying.
///
/// The delay before a retry is random between zero and `min(cap, base * 2^n)`, where `n` counts
/// the failures in a row before the last one ("full jitter": Marc Brooker, "Exponential Backoff
/// And Jitter", AWS Architecture Blog, 2015). Its mean is half of that ceiling. Everything follows
/// from the options, the seed and the calls made: give each client a seed of its own, or all of
/// them come back at once.
///
/// # What to call
///
/// The first attempt is made without asking. From then on:
/// - [`succeeded`](Self::succeeded) when an attempt brought a link,
/// - [`failed`](Self::failed) when an attempt failed, or when the link ended,
/// - [`after`](Self::after) when the peer said how long to stay away,
/// - [`next_delay`](Self::next_delay) for the time to wait before the next attempt, or `None` for
///   no further attempt. Where neither `succeeded` nor `failed` was called since the last delay,
///   it counts the attempt as failed; where the link was up, as ended.
///
/// A link that dies at once is not a success: the failures in a row are forgotten only when a
/// link has lived for [`reset_after`](Self::reset_after). Without that, a server that accepts and
/// closes is asked again at full speed for ever.
///
/// Time is a `Duration` since any fixed origin. A time before one that was given already counts
/// as no time passed.
///
/// ```
/// use remuda_backoff::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(1);
/// let ceilings = [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000];
/// for ceiling in ceilings.map(Duration::from_millis) {
///     backoff.failed(Duration::ZERO);
///     assert_eq!(backoff.ceiling(), ceiling);
///     assert!(backoff.next_delay(Duration::ZERO).is_some_and(|delay| delay <= ceiling));
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    after_cap: Duration,
    reset_after: Duration,
    max_attempts: Option<u32>,
    max_elapsed: Option<Duration>,
    rng: Rng,
    phase: Phase,
    failures: u32,
    failing_since: Option<Duration>,
    told_to_wait: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// An attempt is under way, and nothing is known of it yet.
    Trying,
    /// A link has been up since then.
    Up(Duration),
    /// The last attempt failed, or its link ended.
    Down,
}

impl Backoff {
    /// The ceiling of the first delay, unless [`base`](Self::base) says otherwise.
    pub const BASE_DEFAULT: Duration = Duration::from_millis(100);
    /// The ceiling of every delay, unless [`cap`](Self::cap) says otherwise.
    pub const CAP_DEFAULT: Duration = Duration::from_secs(10);
    /// How long a link must live to count, unless [`reset_after`](Self::reset_after) says otherwise.
    pub const RESET_AFTER_DEFAULT: Duration = Duration::from_secs(10);
    /// The longest delay taken from a peer, unless [`after_cap`](Self::after_cap) says otherwise.
    pub const AFTER_CAP_DEFAULT: Duration = Duration::from_secs(3600);

    /// The defaults, no limit on attempts or time, and the jitter that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            base: Self::BASE_DEFAULT,
            cap: Self::CAP_DEFAULT,
            after_cap: Self::AFTER_CAP_DEFAULT,
            reset_after: Self::RESET_AFTER_DEFAULT,
            max_attempts: None,
            max_elapsed: None,
            rng: Rng::new(seed),
            phase: Phase::Trying,
            failures: 0,
            failing_since: None,
            told_to_wait: None,
        }
    }

    /// The ceiling of the first delay; it doubles with each further failure. Zero means no delay
    /// at all, except what a peer asks for. Default: 100 ms.
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// The ceiling that no delay exceeds (except one that a peer asked for). Default: 10 s.
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How many attempts may fail in a row: with 1, nothing is retried that never lived.
    /// The end of a link that lived for [`reset_after`](Self::reset_after) is not a failed
    /// attempt. Zero is taken as 1. Default: no limit.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// For how long to retry, counted from the first failure in a row: no attempt starts later.
    /// A delay that would last longer is cut to what remains; one that a peer asked for is not
    /// cut, the retries end. Default: no limit.
    pub fn max_elapsed(mut self, elapsed: Duration) -> Self {
        self.max_elapsed = Some(elapsed);
        self
    }

    /// How long a link must have lived for the failures before it to be forgotten. Default: 10 s.
    pub fn reset_after(mut self, lifetime: Duration) -> Self {
        self.reset_after = lifetime;
        self
    }

    /// The longest delay that [`after`](Self::after) takes from a peer; a longer one is cut to
    /// it. Default: one hour.
    pub fn after_cap(mut self, cap: Duration) -> Self {
        self.after_cap = cap;
        self
    }

    /// An attempt brought a link, at `now`. A link that was up already keeps its age.
    pub fn succeeded(&mut self, now: Duration) {
        if !matches!(self.phase, Phase::Up(_)) {
            self.phase = Phase::Up(now);
            self.told_to_wait = None;
        }
    }

    /// An attempt failed, or the link ended, at `now`. Said twice of the same attempt, it counts
    /// once.
    pub fn failed(&mut self, now: Duration) {
        let lived = match self.phase {
            Phase::Down => return,
            Phase::Trying => false,
            Phase::Up(since) => now.saturating_sub(since) >= self.reset_after,
        };
        self.phase = Phase::Down;
        if lived {
            self.failures = 0;
            self.failing_since = Some(now);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.failing_since.get_or_insert(now);
        }
    }

    /// The peer said how long to stay away (`Retry-After`, say): the next delay is that, or
    /// [`after_cap`](Self::after_cap) if it is less, plus the jitter that is due anyway, since
    /// the peer tells everybody the same. Said twice, the longer one holds.
    pub fn after(&mut self, delay: Duration) {
        let delay = delay.min(self.after_cap);
        self.told_to_wait = Some(self.told_to_wait.map_or(delay, |earlier| earlier.max(delay)));
    }

    /// How long to wait, from `now`, before the next attempt; `None` when there is to be none:
    /// the attempts are used up, or the time is.
    pub fn next_delay(&mut self, now: Duration) -> Option<Duration> {
        self.failed(now);
        let remaining = self.remaining(now)?;
        let told = self.told_to_wait.unwrap_or_default();
        if told > remaining {
            return None;
        }
        self.told_to_wait = None;
        self.phase = Phase::Trying;
        let jitter = self.rng.up_to(self.ceiling());
        Some(told.saturating_add(jitter).min(remaining))
    }

    /// The longest that the next delay can be, what a peer asked for left aside:
    /// `min(cap, base * 2^n)`.
    pub fn ceiling(&self) -> Duration {
        // A duration has 94 bits of nanoseconds: after so many doublings, it is at the cap or zero.
        let doublings = self.failures.saturating_sub(1).min(94);
        let doubled = |ceiling: Duration, _| ceiling.saturating_mul(2).min(self.cap);
        (0..doublings).fold(self.base.min(self.cap), doubled)
    }

    /// How many attempts in a row have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What is left for retries: `None` when the attempts or the time are used up.
    fn remaining(&self, now: Duration) -> Option<Duration> {
        if self.max_attempts.is_some_and(|max| self.failures >= max) {
            return None;
        }
        let (Some(max), Some(since)) = (self.max_elapsed, self.failing_since) else {
            return Some(Duration::MAX);
        };
        max.checked_sub(now.saturating_sub(since))
    }
}
