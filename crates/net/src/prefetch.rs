//! Fetching memory into the processor's cache before it is needed. Of many connections none is there
//! when something comes for it, and to wait for memory takes longer than most of what is done with it.

/// Begins to fetch the line of memory that `at` begins in, whatever is there.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(at: *const T) {
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
