//! Whether more comes in than the workers can do.

use crate::config::Overload;
use crate::deadline::{NEVER, Nanos, nanos};

/// Watches the queue, and says when to serve the newest first: see [`Overload`].
#[derive(Debug)]
pub(crate) struct OverloadWatch {
    /// Since when the queue was not empty.
    busy_since: Nanos,
    /// Whether a job waited for more than half of its budget since then.
    pressed: bool,
    on: bool,
    last_refused: Nanos,
}

impl OverloadWatch {
    pub(crate) fn new() -> Self {
        Self { busy_since: NEVER, pressed: false, on: false, last_refused: 0 }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn queue_filled(&mut self, now: Nanos) {
        self.busy_since = self.busy_since.min(now);
    }

    /// An overload goes on: callers that come in bursts leave the queue empty for a moment, and
    /// would else be served too late at each beginning anew.
    pub(crate) fn queue_emptied(&mut self) {
        self.busy_since = NEVER;
        self.pressed = false;
    }

    /// A job left the queue that had waited for so long, out of this budget.
    pub(crate) fn waited(&mut self, waited: Nanos, budget: Nanos) {
        self.pressed |= budget != NEVER && waited > budget / 2;
    }

    pub(crate) fn refused(&mut self, now: Nanos) {
        self.last_refused = now;
        self.pressed = true;
    }

    /// Looks at the time. Returns true when the overload begins.
    pub(crate) fn turn(&mut self, now: Nanos, options: &Overload) -> bool {
        if !self.on && !self.pressed {
            return false;
        }
        let interval = nanos(options.interval);
        if self.on {
            self.on = now.saturating_sub(self.last_refused) < interval;
            if !self.on {
                self.busy_since = if self.busy_since == NEVER { NEVER } else { now };
                self.pressed = false;
            }
            return false;
        }
        let begins = self.busy_since != NEVER && now.saturating_sub(self.busy_since) >= interval;
        if begins {
            self.on = true;
            self.last_refused = now;
        }
        begins
    }
}

/// How long a job of this budget may wait in an overloaded pool.
pub(crate) fn wait_limit(options: &Overload, budget: Nanos) -> Nanos {
    if budget == NEVER { NEVER } else { nanos(options.wait).max(budget / 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_long_queue_alone_is_no_overload() {
        let options = Overload::default();
        let mut watch = OverloadWatch::new();
        watch.queue_filled(0);
        for ms in 1..1000 {
            watch.waited(5000 * MS, 10_000 * MS);
            assert!(!watch.turn(ms * MS, &options));
        }
        watch.waited(5001 * MS, 10_000 * MS);
        assert!(watch.turn(1000 * MS, &options));
    }

    #[test]
    fn ends_when_nothing_is_refused_for_a_while() {
        let options = Overload::default();
        let mut watch = OverloadWatch::new();
        watch.queue_filled(0);
        watch.refused(50 * MS);
        assert!(!watch.turn(99 * MS, &options));
        assert!(watch.turn(100 * MS, &options));
        watch.refused(150 * MS);
        watch.turn(249 * MS, &options);
        assert!(watch.is_on());
        watch.turn(250 * MS, &options);
        assert!(!watch.is_on());
        watch.refused(300 * MS);
        assert!(watch.turn(350 * MS, &options));
        // The queue is empty for a moment between two bursts.
        watch.queue_emptied();
        watch.queue_filled(360 * MS);
        watch.turn(449 * MS, &options);
        assert!(watch.is_on());
        watch.queue_emptied();
        watch.turn(450 * MS, &options);
        assert!(!watch.is_on());
        assert!(!watch.turn(10_000 * MS, &options), "an empty queue is no overload");
    }

    #[test]
    fn patient_jobs_may_wait() {
        let options = Overload::default();
        assert_eq!(wait_limit(&options, NEVER), NEVER);
        assert_eq!(wait_limit(&options, 50 * MS), 5 * MS);
        assert_eq!(wait_limit(&options, 1000 * MS), 100 * MS);
    }
}
