//! Bodies under which workers died: `serve` refuses them for a while.

use crate::config::POISON_LIST_SIZE;
use crate::deadline::Nanos;

#[derive(Clone, Copy, Debug)]
struct Suspect {
    fingerprint: u64,
    deaths: u32,
    until: Nanos,
}

/// The last [`POISON_LIST_SIZE`] bodies under which a worker died, each until its quarantine is
/// over. Empty in a healthy pool, so a scan is all the index it needs.
#[derive(Debug, Default)]
pub(crate) struct PoisonList {
    suspects: Vec<Suspect>,
}

impl PoisonList {
    pub(crate) fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    /// A worker died under this body at `now`. Returns how many did within their quarantine.
    pub(crate) fn record(&mut self, now: Nanos, fingerprint: u64, quarantine: Nanos) -> u32 {
        self.suspects.retain(|suspect| suspect.until > now);
        let until = now.saturating_add(quarantine);
        // Taken out and put in at the end: the front is the one that was charged least recently.
        let known = self.suspects.iter().position(|s| s.fingerprint == fingerprint);
        let deaths = known.map_or(0, |at| self.suspects.remove(at).deaths) + 1;
        if self.suspects.len() >= POISON_LIST_SIZE {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect { fingerprint, deaths, until });
        deaths
    }

    /// Whether `limit` workers died under this body, the last of them not long ago.
    pub(crate) fn refuses(&self, now: Nanos, fingerprint: u64, limit: u32) -> bool {
        let found = self.suspects.iter().find(|s| s.fingerprint == fingerprint);
        found.is_some_and(|suspect| suspect.until > now && suspect.deaths >= limit)
    }

    pub(crate) fn clear(&mut self) {
        self.suspects.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_after_the_limit_and_for_a_while() {
        let mut list = PoisonList::default();
        list.record(0, 7, 100);
        list.record(10, 7, 100);
        assert!(!list.refuses(10, 7, 3));
        list.record(20, 7, 100);
        assert!(list.refuses(20, 7, 3));
        assert!(!list.refuses(20, 8, 3));
        assert!(list.refuses(119, 7, 3));
        assert!(!list.refuses(120, 7, 3), "the quarantine is over");
        assert_eq!(list.record(121, 7, 100), 1, "and forgotten");
    }

    #[test]
    fn is_bounded() {
        let mut list = PoisonList::default();
        for fingerprint in 0..3 * POISON_LIST_SIZE as u64 {
            list.record(0, fingerprint, 100);
        }
        assert_eq!(list.suspects.len(), POISON_LIST_SIZE);
        assert!(!list.refuses(0, 0, 1), "the oldest is forgotten");
        assert!(list.refuses(0, 3 * POISON_LIST_SIZE as u64 - 1, 1));
    }
}
