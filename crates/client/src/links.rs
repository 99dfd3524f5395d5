//! The links of a client, and the choice between them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use remuda_reconnect::random_seed;
use tokio::sync::Notify;

use crate::ConnectError;
use crate::link::Link;

/// All links of a client: at least one.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Arc<Link>>,
    /// Told when one of them comes up or fails.
    changes: Arc<Notify>,
    picks: AtomicU64,
}

impl Links {
    pub(crate) fn new(links: Vec<Arc<Link>>, changes: Arc<Notify>) -> Links {
        Links { links, changes, picks: AtomicU64::new(random_seed()) }
    }

    pub(crate) fn all(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// A link that is up; waits for one. Cancel safe.
    ///
    /// # Errors
    ///
    /// Why none will ever be up.
    pub(crate) async fn pick(&self) -> Result<&Link, ConnectError> {
        loop {
            if let Some(link) = self.choose() {
                return Ok(link);
            }
            // Listen before looking again, so that no change falls in between.
            let mut changed = pin!(self.changes.notified());
            changed.as_mut().enable();
            if let Some(link) = self.choose() {
                return Ok(link);
            }
            if let Some(error) = self.all_over() {
                return Err(error);
            }
            changed.await;
        }
    }

    /// Waits until one is up, or the first attempt of each has failed.
    pub(crate) async fn first_up(&self) -> Result<(), ConnectError> {
        loop {
            let mut changed = pin!(self.changes.notified());
            changed.as_mut().enable();
            if self.choose().is_some() {
                return Ok(());
            }
            let errors: Vec<_> = self.links.iter().map(|link| link.last_error()).collect();
            if let Some(errors) = errors.into_iter().collect::<Option<Vec<_>>>()
                && let Some(first) = errors.into_iter().next()
            {
                return Err(first);
            }
            changed.await;
        }
    }

    /// Why a call that waits has no link.
    pub(crate) fn why_none(&self) -> Option<Arc<str>> {
        if self.links.iter().any(|link| link.is_up()) {
            return None;
        }
        let error = self.links.iter().find_map(|link| link.last_error());
        Some(error.map_or_else(|| Arc::from("still connecting"), |error| error.to_string().into()))
    }

    fn all_over(&self) -> Option<ConnectError> {
        let mut first = None;
        for link in &self.links {
            let error = link.over()?;
            first.get_or_insert(error);
        }
        first
    }

    /// Of two at random, the one with less under way for what its peer can do ("the power of two
    /// choices": Mitzenmacher, 1996). Nearly as good as asking all, and no herd runs to the one
    /// that was idle a moment ago.
    fn choose(&self) -> Option<&Link> {
        let [only] = &self.links[..] else { return self.choose_of_two() };
        only.is_up().then_some(only)
    }

    fn choose_of_two(&self) -> Option<&Link> {
        let count = self.links.len();
        let random = mix(self.picks.fetch_add(1, Ordering::Relaxed));
        let first = random as u32 as usize % count;
        let second = (first + 1 + (random >> 32) as usize % (count - 1)) % count;
        let (first_link, second_link) = (&*self.links[first], &*self.links[second]);
        match (first_link.is_up(), second_link.is_up()) {
            (true, true) if is_lighter(second_link, first_link) => Some(second_link),
            (true, _) => Some(first_link),
            (false, true) => Some(second_link),
            (false, false) => {
                let after = (0..count).map(|step| &*self.links[(first + step) % count]);
                after.into_iter().find(|link| link.is_up())
            }
        }
    }
}

/// Compares what is under way a place, without dividing.
fn is_lighter(one: &Link, other: &Link) -> bool {
    let weighed = |link: &Link, by: &Link| link.in_flight() as u64 * u64::from(by.capacity());
    weighed(one, other) < weighed(other, one)
}

/// SplitMix64's finalizer (Steele, Lea and Flood, 2014): a counter in, well spread bits out.
fn mix(counter: u64) -> u64 {
    let mut bits = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
