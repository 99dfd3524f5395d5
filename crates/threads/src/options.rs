//! How a worker's thread is to be.

/// A worker's name, core and stack size.
///
/// ```
/// use remuda_threads::{WorkerOptions, WorkerPool};
///
/// let mut pool: WorkerPool<String, ()> = WorkerPool::new(8);
/// let options = WorkerOptions::new().name("parser").stack_size(256 * 1024);
/// pool.execute_with(options, |tx, _rx| {
///     let name = std::thread::current().name().unwrap_or_default().to_owned();
///     tx.send(name).ok();
/// })?;
/// assert_eq!(pool.stop_and_join(), ["parser"]);
/// # Ok::<(), remuda_threads::SpawnError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct WorkerOptions {
    pub(crate) name: Option<String>,
    pub(crate) core: Option<usize>,
    pub(crate) stack_size: Option<usize>,
}

impl WorkerOptions {
    /// A thread like any other, named `worker-N` by the number of its [`WorkerId`].
    ///
    /// [`WorkerId`]: crate::WorkerId
    pub fn new() -> Self {
        Self::default()
    }

    /// The thread's name, which panic messages and debuggers show. Linux shows its first 15 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The one core, counted from 0, on which the thread runs. Without it, the thread runs where
    /// the one that starts it may. Linux only.
    pub fn core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// The size of the thread's stack in bytes; std's default (2 MiB) without it.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }
}
