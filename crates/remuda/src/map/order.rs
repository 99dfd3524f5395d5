//! Brings results back into the order of their jobs (`--keep-order`).

use std::collections::VecDeque;

/// Entries that came before their turn, held until it comes.
///
/// Its size is bounded by whoever feeds it: no job is started that lies further from
/// [`Reorder::next`] than the window.
#[derive(Debug)]
pub(crate) struct Reorder<T> {
    next: u64,
    waiting: VecDeque<Option<T>>,
}

impl<T> Reorder<T> {
    /// The first entry that leaves is number `first`.
    pub(crate) fn starting_at(first: u64) -> Self {
        Self { next: first, waiting: VecDeque::new() }
    }

    /// The number of the entry that leaves next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes in entry `number`, of which none was taken in before.
    pub(crate) fn insert(&mut self, number: u64, entry: T) {
        let place = (number - self.next) as usize;
        if place >= self.waiting.len() {
            self.waiting.resize_with(place + 1, || None);
        }
        self.waiting[place] = Some(entry);
    }

    /// True if it is `number`'s turn: it needn't be inserted, and the one behind it is next.
    pub(crate) fn take_turn(&mut self, number: u64) -> bool {
        if number != self.next {
            return false;
        }
        self.waiting.pop_front();
        self.next += 1;
        true
    }

    /// The next entry in order, if it is there.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let entry = self.waiting.front_mut()?.take()?;
        self.waiting.pop_front();
        self.next += 1;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_order_in_is_one_order_out(order in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut reorder = Reorder::starting_at(0);
            let mut out = Vec::new();
            for number in order {
                if number % 3 == 0 && reorder.take_turn(number) {
                    out.push(number);
                } else {
                    reorder.insert(number, number);
                }
                while let Some(entry) = reorder.pop() {
                    out.push(entry);
                }
                prop_assert_eq!(reorder.next(), out.len() as u64);
            }
            prop_assert_eq!(out, (0..40).collect::<Vec<_>>());
        }
    }
}
