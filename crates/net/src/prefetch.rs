//! Fetching memory into the processor's cache before it is needed. Of many connections, and of many
//! jobs, none is there when its turn comes, and to wait for memory takes longer than most of what is
//! done with it.

/// What the processor fetches at once, in bytes. One that fetches more has some of it fetched twice.
const LINE: usize = 64;

/// Begins to fetch `at` into the processor's cache, and does not wait for it: for what is looked at
/// soon, after something else. A hint, and on processors but x86-64 nothing. It fetches all of a `T`,
/// but not what that points to.
#[inline]
pub fn prefetch<T>(at: &T) {
    let first = std::ptr::from_ref(at).cast::<u8>();
    prefetch_line(first);
    for line in 1..size_of::<T>().div_ceil(LINE) {
        prefetch_line(first.wrapping_add(line * LINE));
    }
}

/// The same of the line alone that `at` begins in, whatever is there.
#[inline]
pub(crate) fn prefetch_line<T: ?Sized>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is part of every processor of the architecture. It is a hint, which
        // neither faults nor changes anything, whatever lies at the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}
