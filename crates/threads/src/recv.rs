//! Reading what workers send: waiting, at once, in a burst, or by a hook.

use std::time::{Duration, Instant};

use crate::iterator::RecvBurstIterator;
use crate::pool::TURN_LENGTH;
use crate::{RecvError, RecvTimeoutError, TryRecvError, UpMsg, Worker, WorkerPanic, WorkerPool};

/// Reading what workers send.
impl<Up, Down> WorkerPool<Up, Down> {
    /// Waits for a message of any worker, spinning briefly and then parked.
    ///
    /// # Errors
    /// When all workers have ended and all their messages were read, and when there are none.
    #[inline]
    pub fn recv(&mut self) -> Result<Up, RecvError> {
        self.recv_msg().map(|message| message.body)
    }

    /// As [`recv`](Self::recv), and says who sent it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn recv_msg(&mut self) -> Result<UpMsg<Up>, RecvError> {
        if let Some(message) = self.take_seen() {
            return Ok(message);
        }
        self.pace.before_look();
        if let Some(message) = self.take_from_next() {
            return Ok(message);
        }
        self.recv_waiting(None).map_err(|_| RecvError)
    }

    /// As [`recv`](Self::recv), for `timeout` at the longest.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] when no message came in time,
    /// [`RecvTimeoutError::Disconnected`] as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Up, RecvTimeoutError> {
        self.recv_msg_timeout(timeout).map(|message| message.body)
    }

    /// As [`recv_timeout`](Self::recv_timeout), and says who sent it.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_msg_timeout(&mut self, timeout: Duration) -> Result<UpMsg<Up>, RecvTimeoutError> {
        if let Some(message) = self.take() {
            return Ok(message);
        }
        // A timeout past the end of time is none.
        self.recv_waiting(Instant::now().checked_add(timeout))
    }

    /// Takes a message if there's one, without waiting.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] when there's none at the moment (a
    /// [wake hook](Self::set_wake_hook) will then be called), [`TryRecvError::Disconnected`] as
    /// [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Up, TryRecvError> {
        self.try_recv_msg().map(|message| message.body)
    }

    /// As [`try_recv`](Self::try_recv), and says who sent it.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_recv_msg(&mut self) -> Result<UpMsg<Up>, TryRecvError> {
        if let Some(message) = self.take() {
            return Ok(message);
        }
        if self.has_ended() {
            return Err(TryRecvError::Disconnected);
        }
        self.arm_hook();
        Err(TryRecvError::Empty)
    }

    /// All messages that were sent before this call, without waiting: see [`RecvBurstIterator`].
    pub fn recv_burst(&mut self) -> RecvBurstIterator<'_, Up, Down> {
        RecvBurstIterator::new(self)
    }

    /// The next message in turn.
    #[inline]
    fn take(&mut self) -> Option<UpMsg<Up>> {
        self.take_seen().or_else(|| self.take_from_next())
    }

    /// The next message in turn, if no queue need be looked at for it.
    #[inline]
    fn take_seen(&mut self) -> Option<UpMsg<Up>> {
        if self.turn > 0
            && let Some(worker) = self.workers.get_mut(self.reading)
            && let Some(body) = worker.take_seen()
        {
            self.turn -= 1;
            return Some(UpMsg { worker: worker.id, body });
        }
        None
    }

    /// Goes round the workers once, the present one last.
    fn take_from_next(&mut self) -> Option<UpMsg<Up>> {
        let count = self.workers.len();
        for _ in 0..count {
            self.reading = if self.reading + 1 < count { self.reading + 1 } else { 0 };
            let worker = &mut self.workers[self.reading];
            if let Some(body) = worker.take() {
                self.pace.found(worker.lane.seen() + 1);
                self.turn = TURN_LENGTH - 1;
                return Some(UpMsg { worker: worker.id, body });
            }
        }
        None
    }

    #[cold]
    fn recv_waiting(&mut self, deadline: Option<Instant>) -> Result<UpMsg<Up>, RecvTimeoutError> {
        if self.buffer_length > 0 {
            return self.recv_until(deadline);
        }
        self.hub.set_receiving(true);
        let outcome = self.recv_until(deadline);
        self.hub.set_receiving(false);
        outcome
    }

    fn recv_until(&mut self, deadline: Option<Instant>) -> Result<UpMsg<Up>, RecvTimeoutError> {
        // Who calls has just found nothing.
        loop {
            if self.has_ended() {
                return Err(RecvTimeoutError::Disconnected);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.arm_hook();
                return Err(RecvTimeoutError::Timeout);
            }
            let hub = &self.hub;
            hub.bell.wait(&hub.cores, deadline, || self.has_news());
            if let Some(message) = self.take() {
                return Ok(message);
            }
        }
    }

    /// Whether nothing will be read any more.
    fn has_ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.ended)
    }

    fn has_news(&self) -> bool {
        self.workers.iter().any(Worker::has_news)
    }
}

/// For an event loop, which can't wait in `recv`.
impl<Up, Down> WorkerPool<Up, Down> {
    /// Has `hook` called when there's something for the manager to see: a message, a panic, the
    /// end of a worker. It takes the place of the hook set before.
    ///
    /// It's called once each time that something comes after the pool was found empty: after
    /// [`try_recv`](Self::try_recv) gave `Empty`, [`recv_timeout`](Self::recv_timeout) gave
    /// `Timeout`, or a [burst](Self::recv_burst) was at its end. So after a call of the hook: take
    /// [panics](Self::take_panic) until there's none, then read messages until one of these three.
    /// A message that came behind a burst's end, or a panic meanwhile, calls it at once.
    ///
    /// The thread that calls it is the worker's, in the midst of `send`, or the manager's, in this
    /// function, `try_recv`, `recv_timeout` or the burst. It should be quick and must not panic;
    /// writing to an eventfd is what it's for. [`recv`](Self::recv) doesn't need it and can be
    /// used as well.
    pub fn set_wake_hook(&mut self, hook: impl Fn() + Send + Sync + 'static) {
        self.hub.bell.set_hook(Some(std::sync::Arc::new(hook)));
        self.has_hook = true;
        self.arm_hook();
    }

    /// Removes the hook. A call that is on its way can still come.
    pub fn clear_wake_hook(&mut self) {
        self.hub.bell.set_hook(None);
        self.has_hook = false;
    }

    /// Asks for one call of the hook, if there's one.
    pub(crate) fn arm_hook(&self) {
        if self.has_hook {
            self.hub.bell.arm(|| self.has_news() || self.hub.has_panics());
        }
    }

    /// The oldest panic of a worker that wasn't taken yet, with its payload.
    ///
    /// What was taken here isn't resumed when the pool is stopped. All that the worker sent before
    /// it panicked can still be read. Of panics that were followed by a restart, the last
    /// [`RESTART_REPORTS_MAX`](crate::RESTART_REPORTS_MAX) are kept.
    pub fn take_panic(&mut self) -> Option<WorkerPanic> {
        self.hub.take_panic()
    }
}
