//! A turn's reading of the clock.

use std::cell::Cell;
use std::time::Instant;

/// One reading a turn, taken when it is first asked for: many turns need none.
#[derive(Default)]
pub(crate) struct Clock(Cell<Option<Instant>>);

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        self.0.get().unwrap_or_else(|| {
            let now = Instant::now();
            self.0.set(Some(now));
            now
        })
    }

    pub(crate) fn begin_turn(&self) {
        self.0.set(None);
    }
}
