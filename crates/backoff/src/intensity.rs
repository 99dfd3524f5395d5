//! The limit on how often something that dies is started again.

use std::collections::VecDeque;
use std::time::Duration;

/// What [`RestartIntensity::record`] says of a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a restart that was refused must not be made"]
pub enum Verdict {
    /// Start it again.
    Restart,
    /// It died too often in too short a time: starting it again won't help.
    GiveUp,
}

impl Verdict {
    /// Whether it may be started again.
    pub fn may_restart(self) -> bool {
        self == Verdict::Restart
    }
}

/// Allows so many restarts in any period of a given length, and no more.
///
/// The rule is that of Erlang/OTP's supervisors ("Maximum Restart Intensity" in its design
/// principles): when more than `max` restarts fall into the last `period`, both ends included,
/// the answer is [`Verdict::GiveUp`]. Erlang's default is 1 in 5 s, systemd's is 5 in 10 s.
///
/// Restarts that were refused count too, so the answer becomes [`Verdict::Restart`] again only
/// when fewer than `max` were asked for within the last `period`. It keeps at most `max` times in
/// memory, 16 bytes each.
///
/// ```
/// use remuda_backoff::{RestartIntensity, Verdict};
/// use std::time::Duration;
///
/// let mut intensity = RestartIntensity::new(1, Duration::from_secs(5));
/// assert_eq!(intensity.record(Duration::from_secs(0)), Verdict::Restart);
/// assert_eq!(intensity.record(Duration::from_secs(6)), Verdict::Restart);
/// assert_eq!(intensity.record(Duration::from_secs(9)), Verdict::GiveUp);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartIntensity {
    max: u32,
    period: Duration,
    latest: VecDeque<Duration>,
}

impl RestartIntensity {
    /// How many restarts the default allows in [`PERIOD_DEFAULT`](Self::PERIOD_DEFAULT).
    pub const MAX_DEFAULT: u32 = 5;
    /// The period of the default.
    pub const PERIOD_DEFAULT: Duration = Duration::from_secs(10);

    /// At most `max` restarts in any `period`. With a `max` of zero, none is ever allowed.
    pub fn new(max: u32, period: Duration) -> Self {
        Self { max, period, latest: VecDeque::new() }
    }

    /// Something died at `now`: may it be started again? A time before one that was given already
    /// is taken as that one.
    pub fn record(&mut self, now: Duration) -> Verdict {
        if self.max == 0 {
            return Verdict::GiveUp;
        }
        let now = self.latest.back().map_or(now, |&last| last.max(now));
        let window_is_full = self.latest.len() == self.max as usize;
        // Only the last `max` matter: if the oldest of them is in the period, all of them are.
        let oldest = if window_is_full { self.latest.pop_front() } else { None };
        self.latest.push_back(now);
        match oldest {
            Some(oldest) if now - oldest <= self.period => Verdict::GiveUp,
            _ => Verdict::Restart,
        }
    }

    /// The most restarts allowed in a period.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// The length of the period.
    pub fn period(&self) -> Duration {
        self.period
    }
}

impl Default for RestartIntensity {
    /// 5 in 10 s, like systemd.
    fn default() -> Self {
        Self::new(Self::MAX_DEFAULT, Self::PERIOD_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_goes_back_is_taken_as_the_latest() {
        let mut intensity = RestartIntensity::new(1, Duration::from_secs(5));
        assert!(intensity.record(Duration::from_secs(10)).may_restart());
        assert!(!intensity.record(Duration::from_secs(3)).may_restart());
        assert!(!intensity.record(Duration::from_secs(15)).may_restart(), "5 s after 10 s");
        assert!(intensity.record(Duration::from_secs(21)).may_restart());
    }

    #[test]
    fn default_is_five_in_ten_seconds() {
        let mut intensity = RestartIntensity::default();
        assert_eq!((intensity.max(), intensity.period()), (5, Duration::from_secs(10)));
        let restarts = (0..20).filter(|_| intensity.record(Duration::ZERO).may_restart());
        assert_eq!(restarts.count(), 5);
    }
}
