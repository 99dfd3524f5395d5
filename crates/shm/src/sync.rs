//! Atomics, fences and cells: those of the standard library, or loom's under `--cfg loom`, so that
//! loom checks the ring that ships and not a copy of it.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{Arc, atomic::AtomicU64},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, atomic::AtomicU64};

/// `std::cell::UnsafeCell` with the access methods of loom's.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Orders every store before it ahead of every load after it, as seen by the other side.
///
/// A release store followed by a load, even a `SeqCst` load, may be reordered; both the one who
/// publishes and the one who parks therefore pass through here before they look at each other.
#[inline]
pub(crate) fn full_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(all(not(loom), any(miri, not(target_arch = "x86_64"))))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    // `mfence` also waits for every earlier load, and takes about twice as long as a locked
    // instruction, which is a full barrier for ordinary memory as well.
    #[cfg(all(not(loom), not(miri), target_arch = "x86_64"))]
    // SAFETY: a locked `or` with zero leaves the word at the top of the stack as it was. Without
    // `nomem` the compiler moves no memory access across it.
    unsafe {
        std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack));
    }
}
