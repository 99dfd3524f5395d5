//! Which cores the threads of a pool may run on: with one alone, spinning is in vain.

use std::io;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::{Mutex, PoisonError};

/// The union of the cores of all threads that were added.
pub(crate) struct Cores {
    #[cfg(not(loom))]
    many: AtomicBool,
    #[cfg(not(loom))]
    mask: Mutex<Mask>,
}

impl Cores {
    pub(crate) fn of_current_thread() -> Self {
        let cores = Self {
            #[cfg(not(loom))]
            many: AtomicBool::new(false),
            #[cfg(not(loom))]
            mask: Mutex::new(Mask::default()),
        };
        cores.add_current_thread();
        cores
    }

    /// Adds the cores that the calling thread may run on.
    #[cfg(not(loom))]
    pub(crate) fn add_current_thread(&self) {
        let mut mask = self.mask.lock().unwrap_or_else(PoisonError::into_inner);
        mask.add(&Mask::of_current_thread());
        self.many.store(mask.count() > 1, Ordering::Relaxed);
    }

    #[cfg(loom)]
    pub(crate) fn add_current_thread(&self) {}

    /// Whether two of the threads can run at the same time.
    #[cfg(not(loom))]
    pub(crate) fn are_many(&self) -> bool {
        self.many.load(Ordering::Relaxed)
    }
}

/// Ties the calling thread to one core.
#[cfg(target_os = "linux")]
pub(crate) fn pin_current_thread(core: usize) -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};

    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).map_err(io::Error::from)
}

/// Ties the calling thread to one core: Linux alone has the call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin_current_thread(_core: usize) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
type Mask = linux::Mask;
#[cfg(all(any(not(target_os = "linux"), miri), not(loom)))]
type Mask = portable::Mask;

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
mod linux {
    use rustix::thread::{CpuSet, sched_getaffinity};

    /// A set of cores, by number.
    pub(super) struct Mask(CpuSet);

    impl Default for Mask {
        fn default() -> Self {
            Self(CpuSet::new())
        }
    }

    impl Mask {
        /// Empty where it can't be told, so that the thread counts for no core.
        pub(super) fn of_current_thread() -> Self {
            Self(sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new()))
        }

        pub(super) fn add(&mut self, other: &Self) {
            for core in (0..CpuSet::MAX_CPU).filter(|&core| other.0.is_set(core)) {
                self.0.set(core);
            }
        }

        pub(super) fn count(&self) -> u32 {
            self.0.count()
        }
    }
}

#[cfg(all(any(not(target_os = "linux"), miri), not(loom)))]
mod portable {
    /// How many cores there are, where it can't be told which.
    #[derive(Default)]
    pub(super) struct Mask(u32);

    impl Mask {
        pub(super) fn of_current_thread() -> Self {
            let count = std::thread::available_parallelism().map_or(1, |count| count.get());
            Self(u32::try_from(count).unwrap_or(u32::MAX))
        }

        pub(super) fn add(&mut self, other: &Self) {
            self.0 = self.0.max(other.0);
        }

        pub(super) fn count(&self) -> u32 {
            self.0
        }
    }
}
