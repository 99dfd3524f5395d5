//! How often a reader looks for more, while a stream comes.
//!
//! A reader as fast as its writer would find one message at each look, and each look takes the
//! cache line with the writer's position away from the writer: both then run at the speed of that
//! line's travels. One that gives up its core for a moment before it looks finds many at once.
//! Whether that is so is found out by trying.

/// A look that finds fewer messages is a poor one.
const FEW: usize = 16;
/// So many poor looks lead to a try, at first.
const POOR_LOOKS: u32 = 16;
/// After tries that were in vain: at most so many.
const POOR_LOOKS_MAX: u32 = 1024;
/// So many poor looks in a row show that a try was in vain.
const POOR_LOOKS_SLOW: u32 = 4;

/// The pace of one reader.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    is_slow: bool,
    /// How many more poor looks change that.
    left: u32,
    /// How many poor looks lead to the next try.
    until_try: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { is_slow: false, left: POOR_LOOKS, until_try: POOR_LOOKS }
    }

    /// To be called before a look, by who would wait if it found nothing.
    #[inline]
    pub(crate) fn before_look(&mut self) {
        #[cfg(not(loom))]
        if self.is_slow && !crate::spin::offer_core() {
            // Others than the writer had the core meanwhile.
            *self = Self { is_slow: false, left: POOR_LOOKS_MAX, until_try: POOR_LOOKS_MAX };
        }
    }

    /// A look found so many messages, at least one.
    pub(crate) fn found(&mut self, count: usize) {
        if count >= FEW {
            if self.is_slow {
                self.until_try = POOR_LOOKS;
            }
            self.left = if self.is_slow { POOR_LOOKS_SLOW } else { self.until_try };
            return;
        }
        self.left -= 1;
        if self.left > 0 {
            return;
        }
        self.is_slow = !self.is_slow;
        if self.is_slow {
            self.left = POOR_LOOKS_SLOW;
            self.until_try = (self.until_try * 2).min(POOR_LOOKS_MAX);
        } else {
            self.left = self.until_try;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, looks: u32, found: usize) -> bool {
        (0..looks).for_each(|_| pace.found(found));
        pace.is_slow
    }

    #[test]
    fn poor_looks_lead_to_a_try_and_rich_ones_keep_it() {
        let mut pace = Pace::new();
        assert!(!after(&mut pace, POOR_LOOKS - 1, 1));
        assert!(after(&mut pace, 1, 1));
        assert!(after(&mut pace, 1000, FEW));
        assert!(!after(&mut pace, POOR_LOOKS_SLOW, 1));
        assert!(after(&mut pace, POOR_LOOKS, 1), "a try that was worth it is made again soon");
    }

    #[test]
    fn tries_in_vain_become_rare() {
        let mut pace = Pace::new();
        let looks = 100_000;
        let slow = (0..looks).filter(|_| after(&mut pace, 1, 1)).count();
        assert!(slow > 100 && slow < looks / 100, "{slow} of {looks} looks");
    }
}
