//! A seed for the jitter, where no simulation gives one.

use std::hash::{BuildHasher, RandomState};

/// A seed that differs from process to process and from call to call, so that clients that lose
/// their server together don't come back together.
///
/// It comes from the keys that std draws from the system's generator for its hash maps; it is not
/// fit for secrets.
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}
