//! Work that blocks, on threads of its own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::{NetError, Result};
use crate::oneshot;

/// A piece of blocking work.
pub type BlockingJob = Box<dyn FnOnce() + Send>;

/// Runs work that blocks, on threads that are not the runtime's.
pub trait BlockingExecutor: Send + Sync {
    /// Takes the job, or hands it back if it can't be run.
    ///
    /// # Errors
    /// The job, if the executor is full or stopped.
    fn execute(&self, job: BlockingJob) -> std::result::Result<(), BlockingJob>;
}

/// The default executor: a few threads, started as needed, that end when idle.
pub struct SmallPool {
    shared: Arc<Shared>,
}

/// Threads of [`SmallPool`] unless it is told otherwise.
pub const SMALL_POOL_THREADS: usize = 4;
/// Jobs that may wait in [`SmallPool`].
pub const SMALL_POOL_QUEUE: usize = 1_024;
/// How long a thread of [`SmallPool`] waits for a job before it ends.
pub const SMALL_POOL_IDLE: Duration = Duration::from_secs(10);

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<BlockingJob>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

impl Default for SmallPool {
    fn default() -> Self {
        Self::new(SMALL_POOL_THREADS)
    }
}

impl SmallPool {
    /// A pool of at most `threads` threads (at least one).
    pub fn new(threads: usize) -> Self {
        let shared =
            Shared { state: Mutex::default(), work: Condvar::new(), threads_max: threads.max(1) };
        Self { shared: Arc::new(shared) }
    }
}

impl BlockingExecutor for SmallPool {
    fn execute(&self, job: BlockingJob) -> std::result::Result<(), BlockingJob> {
        let mut state = self.shared.lock();
        if state.queue.len() >= SMALL_POOL_QUEUE {
            return Err(job);
        }
        state.queue.push_back(job);
        if state.idle < state.queue.len() && state.threads < self.shared.threads_max {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("remuda-blocking".into());
            if thread.spawn(move || shared.run()).is_ok() {
                state.threads += 1;
            } else if state.threads == 0 {
                // Nothing would ever run it; the last job in is the one that was just pushed.
                return state.queue.pop_back().map_or(Ok(()), Err);
            }
        }
        self.shared.work.notify_one();
        Ok(())
    }
}

impl Drop for SmallPool {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                // A job that panics ends with its waiter told; the thread goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            if state.stopped {
                break;
            }
            state.idle += 1;
            let (guard, wait) = self
                .work
                .wait_timeout(state, SMALL_POOL_IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if wait.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

/// The result of [`spawn_blocking`](crate::spawn_blocking), to be awaited. Dropping it lets the work run on.
pub struct BlockingHandle<T> {
    receiver: Result<oneshot::Receiver<T>>,
}

impl<T> Future for BlockingHandle<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.receiver {
            Ok(receiver) => Pin::new(receiver).poll(cx).map_err(|_| NetError::Blocking),
            Err(error) => Poll::Ready(Err(std::mem::replace(error, NetError::Blocking))),
        }
    }
}

/// Hands `work` to the executor.
pub(crate) fn run_on<T: Send + 'static>(
    executor: &dyn BlockingExecutor,
    work: impl FnOnce() -> T + Send + 'static,
) -> BlockingHandle<T> {
    let (sender, receiver) = oneshot::channel();
    let job: BlockingJob = Box::new(move || drop(sender.send(work())));
    let taken = executor.execute(job).map_err(|_| NetError::Blocking);
    BlockingHandle { receiver: taken.map(|()| receiver) }
}

pub(crate) fn refused<T>(error: NetError) -> BlockingHandle<T> {
    BlockingHandle { receiver: Err(error) }
}
