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

/// For how long the worker may look for a call before it sleeps, from `REMUDA_SPIN_US`. `None` if no
/// pool says so.
pub(crate) fn spin() -> Option<Duration> {
    std::env::var("REMUDA_SPIN_US").ok()?.parse().ok().map(Duration::from_micros)
}
