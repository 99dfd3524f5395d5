//! How many receive buffers the kernel may have at a time.
//!
//! The ring of buffers is used from its first to its last. What lies in it at one time is walked
//! through again and again: a wide window of long receives is more memory than the processor's
//! cache holds, so that every byte is copied to memory that is cold, and read again when it is
//! cold again. A narrow window of short ones has receives end for want of a buffer.

/// Buffers at first.
const FIRST: u16 = 8;
/// Bytes received at one time that mostly stay in a core's own cache until they are sent on.
const WARM_BYTES: usize = 256 << 10;
/// However long the receives are, so many connections may bring something in one turn.
const LEAST: u16 = 4;
/// Buffers after which it is looked at how much they held.
const SAMPLE: u16 = 64;

pub(super) struct Window {
    width: u16,
    /// How wide it may be, by what the last sample held.
    limit: u16,
    /// All buffers that there are.
    count: u16,
    /// Buffers of the sample that is being taken, and the bytes in them.
    buffers: u16,
    bytes: usize,
}

impl Window {
    pub(super) fn new(count: u16) -> Self {
        Self { width: FIRST.min(count), limit: count, count, buffers: 0, bytes: 0 }
    }

    #[inline]
    pub(super) fn width(&self) -> u16 {
        self.width
    }

    /// A buffer came back with so many bytes.
    #[inline]
    pub(super) fn taken(&mut self, len: usize) {
        self.buffers += 1;
        self.bytes += len;
        if self.buffers >= SAMPLE {
            self.judge();
        }
    }

    /// The kernel found no buffer for one connection.
    pub(super) fn was_too_narrow(&mut self) {
        self.width = self.width.saturating_add(1).min(self.limit);
    }

    #[inline(never)]
    fn judge(&mut self) {
        let each = self.bytes / usize::from(self.buffers);
        let warm = u16::try_from(WARM_BYTES / each.max(1)).unwrap_or(u16::MAX);
        self.limit = warm.max(LEAST).min(self.count);
        self.width = self.width.min(self.limit);
        (self.buffers, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u16 = 128;

    fn after(window: &mut Window, lens: impl Iterator<Item = usize>) -> u16 {
        for len in lens {
            window.taken(len);
            window.was_too_narrow();
        }
        window.width()
    }

    #[test]
    fn short_receives_that_find_no_buffer_widen_it_to_all_that_there_are() {
        let mut window = Window::new(COUNT);
        assert_eq!(after(&mut window, [64; 500].into_iter()), COUNT);
        // A long one among them changes nothing.
        let mixed = (0..500).map(|at| if at % 100 == 0 { 64 << 10 } else { 64 });
        assert_eq!(after(&mut window, mixed), COUNT);
    }

    #[test]
    fn long_receives_narrow_it_and_short_ones_widen_it_again() {
        let mut window = Window::new(COUNT);
        after(&mut window, [64; 500].into_iter());
        let width = after(&mut window, [64 << 10; 500].into_iter());
        assert_eq!(usize::from(width) * (64 << 10), WARM_BYTES);
        assert_eq!(after(&mut window, [1 << 20; 500].into_iter()), LEAST);
        assert_eq!(after(&mut window, [64; 500].into_iter()), COUNT);
    }

    #[test]
    fn it_begins_narrow_and_widens_by_one_for_each_that_found_no_buffer() {
        let mut window = Window::new(COUNT);
        assert_eq!(window.width(), FIRST);
        window.was_too_narrow();
        assert_eq!(window.width(), FIRST + 1);
    }

    #[test]
    fn a_whole_sample_of_long_receives_narrows_it_at_once() {
        let mut window = Window::new(COUNT);
        (1..SAMPLE).for_each(|_| window.taken(64 << 10));
        assert_eq!(window.width(), FIRST);
        window.taken(64 << 10);
        assert_eq!(usize::from(window.width()) * (64 << 10), WARM_BYTES);
    }

    #[test]
    fn receives_of_a_byte_or_none_are_short_ones() {
        for len in [0, 1] {
            assert_eq!(after(&mut Window::new(COUNT), [len; 500].into_iter()), COUNT);
        }
    }

    #[test]
    fn few_buffers_are_all_that_it_is_ever_wide() {
        let mut window = Window::new(2);
        assert_eq!(window.width(), 2);
        window.was_too_narrow();
        assert_eq!(window.width(), 2);
        assert_eq!(after(&mut window, [1 << 20; 500].into_iter()), 2);
        assert_eq!(after(&mut window, [64; 500].into_iter()), 2);
    }
}
