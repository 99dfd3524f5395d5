//! What is left of a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// Whole milliseconds, rounded up, so that a wait of less than one is no wait of none.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// What is left until `deadline`, in milliseconds; `None` when it has passed.
pub(crate) fn millis_until(deadline: Instant) -> Option<u64> {
    match millis(deadline.saturating_duration_since(Instant::now())) {
        0 => None,
        left => Some(left),
    }
}

#[cfg(test)]
mod tests {
    use super::millis;
    use std::time::Duration;

    #[test]
    fn fractions_are_rounded_up() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(250)), 250);
        assert_eq!(millis(Duration::from_micros(250_001)), 251);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
