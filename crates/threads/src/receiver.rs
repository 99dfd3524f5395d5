//! A worker's end of its downward queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::hub::Hub;
use crate::pace::Pace;
use crate::sync::Arc;
use crate::{DownMsg, RecvError, RecvTimeoutError, TryRecvError, chain};

/// What a worker is told comes out here; see [`WorkerReceiver`](crate::WorkerReceiver).
///
/// [`recv_break!`](crate::recv_break) and [`try_recv_break!`](crate::try_recv_break) are made of
/// [`next_other`](Self::next_other) and [`try_next_other`](Self::try_next_other), and handle
/// `Stop`, `Pause` and `Continue`; `recv` and its siblings give every message as it is.
///
/// It stays in the worker's thread, like [`WorkerSender`](crate::WorkerSender). Dropping it
/// refuses messages to this worker; a stop works all the same.
pub struct Receiver<Message> {
    inbox: Rc<Inbox<Message>>,
    /// Whether the drop of this end leaves the queue open.
    lasting: bool,
}

/// What outlives the runs of a restarted job.
pub(crate) struct Inbox<Message> {
    chain: chain::Consumer<Message>,
    hub: Arc<Hub>,
    /// Messages that came during a pause.
    held: RefCell<VecDeque<Message>>,
    /// A `Stop` was read: it's the last message, though the queue may be closed a moment later.
    stopped: Cell<bool>,
    pace: Cell<Pace>,
}

/// The worker was told to stop, or the pool is gone: end soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manager has stopped this worker: return from its job")]
pub struct Stopped;

impl<Message> Inbox<Message> {
    pub(crate) fn new(chain: chain::Consumer<Message>, hub: Arc<Hub>) -> Self {
        Self {
            chain,
            hub,
            held: RefCell::new(VecDeque::new()),
            stopped: Cell::new(false),
            pace: Cell::new(Pace::new()),
        }
    }

    pub(crate) fn close(&self) {
        self.chain.close();
    }

    fn held(&self) -> Option<Message> {
        self.held.borrow_mut().pop_front()
    }
}

impl<Down> Inbox<DownMsg<Down>> {
    #[inline]
    fn pop(&self) -> Option<DownMsg<Down>> {
        let is_look = self.chain.seen() == 0;
        let message = self.chain.pop();
        if is_look && message.is_some() {
            let mut pace = self.pace.get();
            pace.found(self.chain.seen() + 1);
            self.pace.set(pace);
        }
        message
    }

    fn try_recv(&self) -> Result<DownMsg<Down>, TryRecvError> {
        if self.stopped.get() {
            return Err(TryRecvError::Disconnected);
        }
        let mut message = self.pop();
        if message.is_none() {
            if !self.chain.is_ended() {
                return Err(TryRecvError::Empty);
            }
            // What was sent before the end came with it.
            message = self.chain.pop();
        }
        self.stopped.set(matches!(message, Some(DownMsg::Stop)));
        message.ok_or(TryRecvError::Disconnected)
    }

    fn wait(&self, deadline: Option<Instant>) {
        self.chain.arrival().wait(&self.hub.cores, deadline, || self.chain.has_news());
    }

    fn recv(&self) -> Result<DownMsg<Down>, RecvError> {
        if self.chain.seen() == 0 {
            let mut pace = self.pace.get();
            pace.before_look();
            self.pace.set(pace);
        }
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => self.wait(None),
            }
        }
    }
}

impl<Down> Receiver<DownMsg<Down>> {
    pub(crate) fn new(inbox: &Rc<Inbox<DownMsg<Down>>>, lasting: bool) -> Self {
        Self { inbox: Rc::clone(inbox), lasting }
    }

    /// Waits for a message, spinning briefly and then parked.
    ///
    /// # Errors
    /// [`RecvError`] when nothing will come any more: after a [`DownMsg::Stop`], or when the
    /// manager is gone.
    pub fn recv(&self) -> Result<DownMsg<Down>, RecvError> {
        self.inbox.held().map_or_else(|| self.inbox.recv(), Ok)
    }

    /// Takes a message if there's one, without waiting.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] if there's none at the moment, [`TryRecvError::Disconnected`] when
    /// none will come any more.
    #[inline]
    pub fn try_recv(&self) -> Result<DownMsg<Down>, TryRecvError> {
        self.inbox.held().map_or_else(|| self.inbox.try_recv(), Ok)
    }

    /// Waits for a message, for `timeout` at the longest.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] when none came in time, [`RecvTimeoutError::Disconnected`]
    /// when none will come any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<DownMsg<Down>, RecvTimeoutError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(RecvTimeoutError::Timeout);
            }
            self.inbox.wait(deadline);
        }
    }

    /// Waits for the next [`DownMsg::Other`] and gives what's in it; waits through a pause too.
    ///
    /// What comes during a pause is given after it, in its order; a `Stop` ends the pause and
    /// drops it.
    ///
    /// # Errors
    /// [`Stopped`] after a [`DownMsg::Stop`], or when the manager is gone.
    pub fn next_other(&self) -> Result<Down, Stopped> {
        loop {
            match self.recv() {
                Ok(DownMsg::Other(body)) => return Ok(body),
                Ok(DownMsg::Continue) => {}
                Ok(DownMsg::Pause) => self.wait_for_continue()?,
                Ok(DownMsg::Stop) | Err(RecvError) => return Err(Stopped),
            }
        }
    }

    /// The content of the next [`DownMsg::Other`] if there's one, without waiting for it; but a
    /// pause is waited through as in [`next_other`](Self::next_other).
    ///
    /// # Errors
    /// [`Stopped`] after a [`DownMsg::Stop`], or when the manager is gone.
    pub fn try_next_other(&self) -> Result<Option<Down>, Stopped> {
        loop {
            match self.try_recv() {
                Ok(DownMsg::Other(body)) => return Ok(Some(body)),
                Ok(DownMsg::Continue) => {}
                Ok(DownMsg::Pause) => self.wait_for_continue()?,
                Err(TryRecvError::Empty) => return Ok(None),
                Ok(DownMsg::Stop) | Err(TryRecvError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn wait_for_continue(&self) -> Result<(), Stopped> {
        // A pause is read only when nothing is held, so what's held stays in its order.
        loop {
            match self.inbox.recv() {
                Ok(DownMsg::Continue) => return Ok(()),
                Ok(DownMsg::Pause) => {}
                Ok(other @ DownMsg::Other(_)) => self.inbox.held.borrow_mut().push_back(other),
                Ok(DownMsg::Stop) | Err(RecvError) => {
                    self.inbox.held.borrow_mut().clear();
                    return Err(Stopped);
                }
            }
        }
    }
}

impl<Message> Drop for Receiver<Message> {
    fn drop(&mut self) {
        if !self.lasting {
            self.inbox.close();
        }
    }
}

impl<Message> fmt::Debug for Receiver<Message> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
