//! One worker as the manager sees it: its queues, its thread, its end.

use std::fmt;

use crate::ring::Consumer;
use crate::sync::thread::JoinHandle;
use crate::{DownMsg, SendError, Sender, WorkerId};

/// A worker of a pool, for messages to it alone; [`WorkerPool::get`](crate::WorkerPool::get) finds
/// it.
pub struct Worker<Up, Down> {
    pub(crate) id: WorkerId,
    pub(crate) name: String,
    pub(crate) lane: Consumer<Up>,
    pub(crate) down: Sender<DownMsg<Down>>,
    pub(crate) thread: Option<JoinHandle<()>>,
    /// It said that nothing follows, and everything was read.
    pub(crate) ended: bool,
    /// Where the burst ends that is being read.
    pub(crate) burst_end: usize,
}

impl<Up, Down> Worker<Up, Down> {
    /// Which one it is.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// The name of its thread.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends it a message. Never waits.
    ///
    /// # Errors
    /// The message comes back when the worker has dropped its receiver, has ended, or was sent a
    /// [`DownMsg::Stop`] before.
    #[inline]
    pub fn send(&self, message: DownMsg<Down>) -> Result<(), SendError<DownMsg<Down>>> {
        self.down.send(message)
    }

    /// The sending end of its downward queue.
    pub fn sender(&self) -> &Sender<DownMsg<Down>> {
        &self.down
    }

    /// Whether it has dropped its sender or ended, and every message of it was read.
    pub fn is_finished(&self) -> bool {
        self.ended || self.lane.is_closed() && !self.has_messages()
    }

    fn has_messages(&self) -> bool {
        self.lane.tail() != self.lane.head()
    }

    /// Whether a look at its queue is worth it: a message, or its end.
    pub(crate) fn has_news(&self) -> bool {
        !self.ended && (self.has_messages() || self.lane.is_closed())
    }

    /// Takes its first message.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Up> {
        let message = self.lane.pop();
        if message.is_some() {
            self.lane.release();
        } else if !self.ended {
            return self.take_last();
        }
        message
    }

    /// Takes its first message if that was there when its queue was last looked at.
    #[inline]
    pub(crate) fn take_seen(&mut self) -> Option<Up> {
        let message = self.lane.pop_seen()?;
        self.lane.release();
        Some(message)
    }

    /// Its queue was found empty: takes a message that came just before its end, or notes the end.
    #[cold]
    fn take_last(&mut self) -> Option<Up> {
        if !self.lane.is_closed() {
            return None;
        }
        let message = self.lane.pop();
        self.lane.release();
        self.ended = message.is_none();
        message
    }

    /// Tells it to stop, if it wasn't told yet.
    pub(crate) fn stop(&self) {
        // It may have dropped its receiver or have ended: nothing is left to be told then.
        let _ = self.down.send(DownMsg::Stop);
    }

    /// Whether its thread has ended, so that joining it doesn't wait.
    #[cfg(not(loom))]
    pub(crate) fn can_be_joined(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// loom can't tell: threads are joined when the pool stops.
    #[cfg(loom)]
    pub(crate) fn can_be_joined(&self) -> bool {
        false
    }

    /// Waits for the end of its thread. Gives what that panicked with outside of the job.
    pub(crate) fn join(&mut self) -> std::thread::Result<()> {
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl<Up, Down> fmt::Debug for Worker<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
