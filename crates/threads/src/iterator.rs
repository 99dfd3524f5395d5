//! The two ways to read many messages: all that is there now, and all until the end.

use std::fmt;
use std::iter::FusedIterator;

use crate::{DownMsg, SendError, UpMsg, WorkerId, WorkerPool};

/// The messages that were sent before [`WorkerPool::recv_burst`] was called.
///
/// It never waits. What is sent after that call stays for the next one, however fast it comes, so
/// every burst ends: it gives at most what the queues hold. Where the burst ends is a position in
/// each worker's queue, taken at the call; no clock is read.
///
/// It borrows the pool. To answer messages while reading them, use its own
/// [`broadcast_one`](Self::broadcast_one) and [`send`](Self::send):
///
/// ```
/// use remuda_threads::{DownMsg, WorkerPool, recv_break};
///
/// let mut pool: WorkerPool<u32, u32> = WorkerPool::new(64);
/// pool.execute_many(2, |tx, rx| {
///     loop {
///         let number = recv_break!(rx);
///         if tx.send(number).is_err() {
///             break;
///         }
///     }
/// })?;
/// pool.broadcast(DownMsg::Other(1));
/// let first = pool.recv()?;
/// pool.broadcast_one(DownMsg::Other(first + 1))?;
/// let mut burst = pool.recv_burst();
/// while let Some(number) = burst.next() {
///     burst.broadcast_one(DownMsg::Other(number + 1))?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It can't outlive the pool:
///
/// ```compile_fail,E0505
/// let mut pool: remuda_threads::WorkerPool<u32, u32> = remuda_threads::WorkerPool::new(1);
/// let burst = pool.recv_burst();
/// drop(pool);
/// burst.count();
/// ```
pub struct RecvBurstIterator<'pool, Up, Down> {
    pool: &'pool mut WorkerPool<Up, Down>,
    /// Whose queue is being read.
    reading: usize,
}

impl<'pool, Up, Down> RecvBurstIterator<'pool, Up, Down> {
    pub(crate) fn new(pool: &'pool mut WorkerPool<Up, Down>) -> Self {
        for worker in &mut pool.workers {
            worker.burst_end = worker.lane.tail();
        }
        Self { pool, reading: 0 }
    }

    /// The next message and who sent it.
    #[inline]
    pub fn next_msg(&mut self) -> Option<UpMsg<Up>> {
        while let Some(worker) = self.pool.workers.get_mut(self.reading) {
            if worker.lane.head() != worker.burst_end
                && let Some(body) = worker.take()
            {
                return Some(UpMsg { worker: worker.id, body });
            }
            self.reading += 1;
            if self.reading == self.pool.workers.len() {
                self.pool.arm_hook();
            }
        }
        None
    }

    /// As [`WorkerPool::broadcast_one`].
    ///
    /// # Errors
    /// As [`WorkerPool::broadcast_one`].
    #[inline]
    pub fn broadcast_one(
        &mut self,
        message: DownMsg<Down>,
    ) -> Result<WorkerId, SendError<DownMsg<Down>>> {
        self.pool.broadcast_one(message)
    }

    /// Sends a message to one worker, such as the one whose message was just read.
    ///
    /// # Errors
    /// The message comes back when that worker is gone or has dropped its receiver.
    pub fn send(
        &mut self,
        worker: impl Into<WorkerId>,
        message: DownMsg<Down>,
    ) -> Result<(), SendError<DownMsg<Down>>> {
        match self.pool.get(worker) {
            Some(worker) => worker.send(message),
            None => Err(SendError(message)),
        }
    }
}

impl<Up, Down> Iterator for RecvBurstIterator<'_, Up, Down> {
    type Item = Up;

    #[inline]
    fn next(&mut self) -> Option<Up> {
        self.next_msg().map(|message| message.body)
    }
}

impl<Up, Down> FusedIterator for RecvBurstIterator<'_, Up, Down> {}

/// All messages that are left when a pool stops; joins the threads at its end.
///
/// [`next`](Iterator::next) waits for messages of workers that haven't ended yet, so that none of
/// them waits for room in its queue for ever. Dropping it before its end reads and drops the rest
/// and joins all the same, but drops the workers' panics too.
///
/// # Panics
/// At its end, with the payload of the first worker that panicked, after all threads were joined,
/// unless [`WorkerPool::take_panic`] took it before or the worker was restarted.
pub struct RecvAllIterator<Up, Down> {
    pool: WorkerPool<Up, Down>,
}

impl<Up, Down> RecvAllIterator<Up, Down> {
    pub(crate) fn new(pool: WorkerPool<Up, Down>) -> Self {
        Self { pool }
    }
}

impl<Up, Down> Iterator for RecvAllIterator<Up, Down> {
    type Item = Up;

    fn next(&mut self) -> Option<Up> {
        if let Ok(message) = self.pool.recv() {
            return Some(message);
        }
        if let Some(payload) = self.pool.join_all() {
            std::panic::resume_unwind(payload);
        }
        None
    }
}

impl<Up, Down> FusedIterator for RecvAllIterator<Up, Down> {}

impl<Up, Down> fmt::Debug for RecvBurstIterator<'_, Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBurstIterator").finish_non_exhaustive()
    }
}

impl<Up, Down> fmt::Debug for RecvAllIterator<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvAllIterator").finish_non_exhaustive()
    }
}
