//! Whether it pays to wake a consumer before there is a message for it.

/// After so many wakes in vain in a row, one in 2^7 is tried.
const MISSES_MAX: u32 = 7;
/// So many successes in a row make up for one wake in vain, which costs as much as many of them
/// gain.
const REVIVING: u32 = 16;

/// What came of waking the consumer ahead of messages.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// It was woken for the next message.
    awaited: bool,
    misses: u32,
    successes: u32,
    skip: u32,
}

impl Ahead {
    /// Whether to wake it now.
    pub(super) fn pays(&mut self) -> bool {
        if self.awaited {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }

    /// It was woken, and the message is to follow.
    pub(super) fn begin(&mut self) {
        self.awaited = true;
    }

    /// The message is there. Gives whether the consumer was woken for it, and had not gone to sleep
    /// again by then: `sleeps` says that.
    #[inline]
    pub(super) fn end(&mut self, sleeps: bool) -> bool {
        std::mem::take(&mut self.awaited) && self.judge(sleeps)
    }

    fn judge(&mut self, sleeps: bool) -> bool {
        if sleeps {
            self.misses = (self.misses + 1).min(MISSES_MAX);
            self.successes = 0;
        } else if self.misses > 0 {
            self.successes += 1;
            if self.successes == REVIVING {
                self.misses -= 1;
                self.successes = 0;
            }
        }
        self.skip = (1 << self.misses) - 1;
        !sleeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often the consumer of a thousand messages is woken ahead. `slept` says for the n-th time
    /// whether it slept again.
    fn woken(ahead: &mut Ahead, slept: impl Fn(u32) -> bool) -> u32 {
        let mut woken = 0;
        for _ in 0..1000 {
            if ahead.pays() {
                woken += 1;
                ahead.begin();
            }
            let slept = slept(woken);
            assert!(!(ahead.end(slept) && slept), "it slept");
        }
        woken
    }

    #[test]
    fn wakes_in_vain_become_rare_and_success_revives_them() {
        let mut ahead = Ahead::default();
        let in_vain = woken(&mut ahead, |_| true);
        assert!((8..20).contains(&in_vain), "{in_vain}");
        for _ in 0..MISSES_MAX * REVIVING {
            while !ahead.pays() {}
            ahead.begin();
            assert!(ahead.end(false));
        }
        assert!(ahead.pays() && ahead.pays());
        assert!(!ahead.end(false), "it was not woken for this one");
    }

    #[test]
    fn a_success_now_and_then_is_not_worth_the_others() {
        let woken = woken(&mut Ahead::default(), |n| n % 2 == 0);
        assert!(woken < 40, "{woken}");
    }
}
