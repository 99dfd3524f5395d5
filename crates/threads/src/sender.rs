//! The sending ends: a worker's, which is bounded, and the manager's, which isn't.

use std::fmt;
use std::rc::Rc;
use std::thread;

use crate::hub::Hub;
use crate::ring::{Producer, PushError};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::{DownMsg, SendError, TrySendError, chain};

/// The bounded end of an upward queue; [`WorkerSender`] wraps it.
pub struct SyncSender<Up> {
    ring: Producer<Up>,
    hub: Arc<Hub>,
    /// A message waits until it's taken: the buffer's length is 0.
    rendezvous: bool,
}

impl<Up> SyncSender<Up> {
    pub(crate) fn new(ring: Producer<Up>, hub: Arc<Hub>, rendezvous: bool) -> Self {
        Self { ring, hub, rendezvous }
    }

    /// As [`WorkerSender::send`].
    #[inline]
    pub fn send(&self, message: Up) -> Result<(), SendError<Up>> {
        match self.ring.push(message) {
            Ok(()) => self.hub.bell.wake(),
            Err(PushError::Closed(message)) => return Err(SendError(message)),
            Err(PushError::Full(message)) => self.send_when_free(message)?,
        }
        if self.rendezvous {
            self.wait(Producer::is_emptied, Producer::is_emptied);
        }
        Ok(())
    }

    #[cold]
    fn send_when_free(&self, mut message: Up) -> Result<(), SendError<Up>> {
        loop {
            self.wait(Producer::has_much_space, Producer::has_space);
            match self.ring.push(message) {
                Ok(()) => break,
                Err(PushError::Closed(message)) => return Err(SendError(message)),
                Err(PushError::Full(again)) => message = again,
            }
        }
        self.hub.bell.wake();
        Ok(())
    }

    /// Spins for what is `wanted`, and then parks if even what is `needed` isn't there.
    fn wait(&self, wanted: impl Fn(&Producer<Up>) -> bool, needed: impl Fn(&Producer<Up>) -> bool) {
        let space = self.ring.space();
        if !space.spin(&self.hub.cores, &mut || wanted(&self.ring)) {
            while !needed(&self.ring) {
                space.sleep(None, || needed(&self.ring));
            }
        }
    }

    /// As [`WorkerSender::try_send`].
    #[inline]
    pub fn try_send(&self, message: Up) -> Result<(), TrySendError<Up>> {
        if self.rendezvous && !self.hub.is_receiving() && !self.ring.is_closed() {
            return Err(TrySendError::Full(message));
        }
        match self.ring.push(message) {
            Ok(()) => {
                self.hub.bell.wake();
                Ok(())
            }
            Err(PushError::Full(message)) => Err(TrySendError::Full(message)),
            Err(PushError::Closed(message)) => Err(TrySendError::Disconnected(message)),
        }
    }

    /// Tells the manager that nothing follows.
    pub(crate) fn close(&self) {
        self.ring.close();
        self.hub.bell.wake();
    }
}

/// A worker's end of its upward queue. Dropping it says that nothing follows.
///
/// It stays in the worker's thread (it isn't `Send`), so it's gone when the thread has ended,
/// however it ended; the stop of a pool rests on that.
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<remuda_threads::WorkerSender<u32>>();
/// ```
///
/// Under [`execute_restarting`](crate::WorkerPool::execute_restarting) the queue stays open when
/// one run of the job drops its end, for the next one.
pub struct WorkerSender<Up> {
    sender: Rc<SyncSender<Up>>,
    /// Whether the drop of this end leaves the queue open.
    lasting: bool,
}

impl<Up> WorkerSender<Up> {
    pub(crate) fn new(sender: &Rc<SyncSender<Up>>, lasting: bool) -> Self {
        Self { sender: Rc::clone(sender), lasting }
    }

    /// Sends a message to the manager; waits while as many of this worker's messages are unread
    /// as the pool's [`buffer_length`](crate::WorkerPool::buffer_length), spinning briefly and
    /// then parked. With a length of 0 it waits until the manager has taken this message.
    ///
    /// A pool that stops reads all messages before it joins: waiting here is always safe.
    ///
    /// # Errors
    /// The message comes back when the manager has detached this worker and will read nothing
    /// more: end the thread. A message that is in the buffer at that moment is handed to who
    /// detached the worker.
    #[inline]
    pub fn send(&self, message: Up) -> Result<(), SendError<Up>> {
        self.sender.send(message)
    }

    /// Sends a message to the manager if there's room for it, without waiting.
    ///
    /// With a buffer of length 0 there is room while the manager waits in
    /// [`recv`](crate::WorkerPool::recv) or [`recv_timeout`](crate::WorkerPool::recv_timeout).
    ///
    /// # Errors
    /// [`TrySendError::Full`] while there's no room, [`TrySendError::Disconnected`] when the
    /// manager has detached this worker. The message comes back in both.
    #[inline]
    pub fn try_send(&self, message: Up) -> Result<(), TrySendError<Up>> {
        self.sender.try_send(message)
    }
}

impl<Up> Drop for WorkerSender<Up> {
    fn drop(&mut self) {
        // In a panic the queue's end waits for the word of it, which the thread leaves.
        if !self.lasting && !thread::panicking() {
            self.sender.close();
        }
    }
}

/// The manager's end of a worker's downward queue, which has no bound: a `Stop` can always be
/// sent.
pub struct Sender<Message> {
    chain: chain::Producer<Message>,
    /// Whether a `Stop` was sent: the worker isn't restarted any more.
    stopping: Arc<AtomicBool>,
}

impl<Down> Sender<DownMsg<Down>> {
    pub(crate) fn new(chain: chain::Producer<DownMsg<Down>>, stopping: Arc<AtomicBool>) -> Self {
        Self { chain, stopping }
    }

    /// Sends a message to the worker. Never waits. Nothing can be sent after a
    /// [`DownMsg::Stop`].
    ///
    /// # Errors
    /// The message comes back when the worker has dropped its receiver, has ended, or was sent a
    /// `Stop` before.
    #[inline]
    pub fn send(&self, message: DownMsg<Down>) -> Result<(), SendError<DownMsg<Down>>> {
        if self.chain.was_ended() {
            return Err(SendError(message));
        }
        let is_stop = matches!(message, DownMsg::Stop);
        if is_stop {
            self.stopping.store(true, Ordering::Release);
        }
        let sent = self.chain.push(message).map_err(SendError);
        if is_stop {
            self.chain.close();
        }
        sent
    }

    /// Whether the worker would still get a message.
    pub fn is_open(&self) -> bool {
        !self.chain.was_ended() && !self.chain.is_closed()
    }
}

impl<Up> fmt::Debug for SyncSender<Up> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<Up> fmt::Debug for WorkerSender<Up> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSender").finish_non_exhaustive()
    }
}

impl<Message> fmt::Debug for Sender<Message> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
