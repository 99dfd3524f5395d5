//! What a pool tells a worker by its environment.

use std::time::Duration;

/// The name of the worker in the pool's log and status, from `REMUDA_WORKER_ID`.
///
/// Each start has another one. `None` if no pool started this process.
#[must_use]
pub fn worker_id() -> Option<String> {
    std::env::var("REMUDA_WORKER_ID").ok()
}

/// The worker's place in the pool, from `REMUDA_WORKER_SLOT`: 0 to `num_workers - 1`.
///
/// A worker that replaces another has the same slot, so it can stand for a GPU or a port. `None` if
/// no pool started this process.
#[must_use]
pub fn worker_slot() -> Option<usize> {
    std::env::var("REMUDA_WORKER_SLOT").ok()?.parse().ok()
}

/// The longest that a pool lets a worker look for a call.
const SPIN_LIMIT: Duration = Duration::from_secs(1);

/// For how long the worker may look for a call before it sleeps, from `REMUDA_SPIN_US`. `None` if no
/// pool says so.
pub(crate) fn spin() -> Option<Duration> {
    spin_of(&std::env::var("REMUDA_SPIN_US").ok()?)
}

fn spin_of(text: &str) -> Option<Duration> {
    Some(Duration::from_micros(text.parse().ok()?).min(SPIN_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_names_are_read() {
        if std::env::var_os("REMUDA_WORKER_SLOT").is_some() {
            assert_eq!((worker_id().as_deref(), worker_slot()), (Some("17"), Some(3)));
            return;
        }
        assert_eq!((worker_id(), worker_slot()), (None, None));
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.env("REMUDA_WORKER_ID", "17").env("REMUDA_WORKER_SLOT", "3");
        let ran = again.arg("a_pools_names_are_read").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn no_worker_looks_for_longer_than_a_pool_can_mean() {
        assert_eq!(spin_of("50"), Some(Duration::from_micros(50)));
        assert_eq!(spin_of("0"), Some(Duration::ZERO));
        assert_eq!(spin_of(&u64::MAX.to_string()), Some(SPIN_LIMIT));
        for nonsense in ["", "-1", "1.5", "soon", " 5", "99999999999999999999"] {
            assert_eq!(spin_of(nonsense), None, "{nonsense}");
        }
    }
}
