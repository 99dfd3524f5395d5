//! The pool: starts workers, reads what they send, sends to them, and stops them.

use std::fmt;
use std::time::{Duration, Instant};

use remuda_backoff::RestartIntensity;

use crate::hub::Hub;
use crate::iterator::{RecvAllIterator, RecvBurstIterator};
use crate::spawn::{Job, Once, Restarting, Seat, spawn};
use crate::sync::{Arc, AtomicBool};
use crate::{
    DownMsg, RecvError, RecvTimeoutError, SendError, Sender, SpawnError, TryRecvError, UpMsg,
    Worker, WorkerId, WorkerOptions, WorkerPanic, WorkerReceiver, WorkerSender, chain, ring,
};

/// The longest buffer that a worker can have, in messages.
pub const BUFFER_LENGTH_MAX: usize = 1 << 24;

/// How many messages of one worker are read before the next worker's turn, while both have some.
const TURN_LENGTH: usize = 64;

/// Workers, and the manager's ends of their queues. Who owns it is the manager.
///
/// Each worker has two queues of its own: upward one of [`buffer_length`](Self::buffer_length)
/// messages, downward one without a bound. Messages of one worker come in the order in which it
/// sent them; workers take turns.
///
/// Dropping the pool stops and joins the workers, and drops what they sent and what they panicked
/// with. See the crate's front page for what a worker must heed so that a stop comes to its end.
pub struct WorkerPool<Up, Down> {
    hub: Arc<Hub>,
    /// In the order of their ids.
    pub(crate) workers: Vec<Worker<Up, Down>>,
    buffer_length: usize,
    next_id: usize,
    /// Whose queue is being read, as an index of `workers`.
    reading: usize,
    /// How many more of its messages are read before the next one's turn.
    turn: usize,
    /// Who gets the next message of `broadcast_one`: the first worker from this id on.
    next_receiver: usize,
    has_hook: bool,
}

impl<Up, Down> WorkerPool<Up, Down> {
    /// A pool without workers. Each worker will be able to have `buffer_length` unread messages;
    /// with 0, sending one waits until the manager takes it.
    ///
    /// # Panics
    /// If `buffer_length` exceeds [`BUFFER_LENGTH_MAX`].
    pub fn new(buffer_length: usize) -> Self {
        assert!(
            buffer_length <= BUFFER_LENGTH_MAX,
            "a buffer of {buffer_length} messages: at most {BUFFER_LENGTH_MAX} are possible"
        );
        Self {
            hub: Arc::new(Hub::new()),
            workers: Vec::new(),
            buffer_length,
            next_id: 0,
            reading: 0,
            turn: TURN_LENGTH,
            next_receiver: 0,
            has_hook: false,
        }
    }

    /// How many unread messages each worker can have.
    pub fn buffer_length(&self) -> usize {
        self.buffer_length
    }

    /// How many workers there are: those that ended stay until all their messages were read and
    /// another is started.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there is no worker.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The workers, in the order of their start.
    pub fn workers(&self) -> impl Iterator<Item = &Worker<Up, Down>> {
        self.workers.iter()
    }

    /// A worker, unless it was detached or has ended and made place.
    pub fn get(&self, worker: impl Into<WorkerId>) -> Option<&Worker<Up, Down>> {
        self.index_of(worker.into()).map(|index| &self.workers[index])
    }

    fn index_of(&self, worker: WorkerId) -> Option<usize> {
        self.workers.binary_search_by_key(&worker, |worker| worker.id).ok()
    }
}

/// Starting workers.
impl<Up: Send + 'static, Down: Send + 'static> WorkerPool<Up, Down> {
    /// Starts a worker that runs `job` in a thread of its own. The worker has ended when `job`
    /// returns or panics.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub fn execute<F>(&mut self, job: F) -> Result<WorkerId, SpawnError>
    where
        F: FnOnce(WorkerSender<Up>, WorkerReceiver<Down>) + Send + 'static,
    {
        self.execute_with(WorkerOptions::new(), job)
    }

    /// Starts `count` workers that each run a clone of `job`.
    ///
    /// # Errors
    /// When the system can't start one of the threads; those that were started before stay.
    pub fn execute_many<F>(&mut self, count: usize, job: F) -> Result<Vec<WorkerId>, SpawnError>
    where
        F: FnOnce(WorkerSender<Up>, WorkerReceiver<Down>) + Clone + Send + 'static,
    {
        (0..count).map(|_| self.execute(job.clone())).collect()
    }

    /// As [`execute`](Self::execute), in a thread with a name, a core or a stack size.
    ///
    /// # Errors
    /// When the system can't start a thread as it's wanted.
    pub fn execute_with<F>(
        &mut self,
        options: WorkerOptions,
        job: F,
    ) -> Result<WorkerId, SpawnError>
    where
        F: FnOnce(WorkerSender<Up>, WorkerReceiver<Down>) + Send + 'static,
    {
        self.start(options, Once(Some(job)))
    }

    /// As [`execute_with`](Self::execute_with), and runs `job` again each time that it panics, as
    /// often as `intensity` allows; after that the worker ends by the panic, and at once when the
    /// pool was told to stop.
    ///
    /// Each run gets the same queues: what was sent to the worker and not read is read by the next
    /// run. The message that a run had read when it panicked is gone, unless the manager sends it
    /// again: [`take_panic`](Self::take_panic) tells it of each panic, those that were followed by
    /// a restart too. The runs share the thread, hence its thread-locals, and what `job` has
    /// captured; a job that panics must leave both in a state that its next run can start from.
    ///
    /// # Errors
    /// When the system can't start a thread as it's wanted.
    pub fn execute_restarting<F>(
        &mut self,
        options: WorkerOptions,
        intensity: RestartIntensity,
        job: F,
    ) -> Result<WorkerId, SpawnError>
    where
        F: Fn(WorkerSender<Up>, WorkerReceiver<Down>) + Send + 'static,
    {
        self.start(options, Restarting { job, intensity })
    }

    fn start(
        &mut self,
        mut options: WorkerOptions,
        job: impl Job<Up, Down>,
    ) -> Result<WorkerId, SpawnError> {
        self.forget_ended();
        let id = WorkerId(self.next_id);
        let name = options.name.take().unwrap_or_else(|| format!("worker-{}", self.next_id));
        let (up, lane) = ring::ring(self.buffer_length);
        let (down, inbox) = chain::chain();
        let stopping = Arc::new(AtomicBool::new(false));
        let seat = Seat {
            id,
            name: name.clone(),
            hub: Arc::clone(&self.hub),
            up,
            rendezvous: self.buffer_length == 0,
            down: inbox,
            stopping: Arc::clone(&stopping),
        };
        // The manager may have been moved to another core since.
        self.hub.cores.add_current_thread();
        let thread = Some(spawn(seat, &options, job)?);
        let down = Sender::new(down, stopping);
        self.workers.push(Worker { id, name, lane, down, thread, ended: false, burst_end: 0 });
        self.next_id += 1;
        Ok(id)
    }

    /// Makes place: a pool that replaces its workers all day must not grow.
    fn forget_ended(&mut self) {
        let is_forgotten = |worker: &mut Worker<Up, Down>| worker.ended && worker.can_be_joined();
        for mut worker in self.workers.extract_if(.., is_forgotten) {
            // The thread reports what its job panicked with; this is of a thread-local's drop.
            let _ = worker.join();
        }
        self.reading = 0;
    }
}

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
        if let Some(message) = self.take() {
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
        if self.turn > 0
            && let Some(worker) = self.workers.get_mut(self.reading)
            && let Some(body) = worker.take()
        {
            self.turn -= 1;
            return Some(UpMsg { worker: worker.id, body });
        }
        self.take_from_next()
    }

    /// Goes round the workers once, the present one last.
    fn take_from_next(&mut self) -> Option<UpMsg<Up>> {
        let count = self.workers.len();
        for _ in 0..count {
            self.reading = if self.reading + 1 < count { self.reading + 1 } else { 0 };
            let worker = &mut self.workers[self.reading];
            if let Some(body) = worker.take() {
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
        loop {
            if let Some(message) = self.take() {
                return Ok(message);
            }
            if self.has_ended() {
                return Err(RecvTimeoutError::Disconnected);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.arm_hook();
                return Err(RecvTimeoutError::Timeout);
            }
            self.hub.bell.wait(&self.hub.cores, deadline, || self.has_news());
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

    /// Leaves a worker to itself, and gives what it sent and wasn't read yet. `None` if there's no
    /// such worker.
    ///
    /// This is for a worker that hangs: it can't be killed, but it's out of the pool from here on.
    /// It isn't joined by a stop, and its panic, should it come to that, is reported without a
    /// restart. Should it come back, it finds a [`DownMsg::Stop`] behind its messages, and an
    /// error when it sends. The thread ends when its job returns, or with the process.
    pub fn detach(&mut self, worker: impl Into<WorkerId>) -> Option<Vec<Up>> {
        let worker = self.workers.remove(self.index_of(worker.into())?);
        self.reading = 0;
        worker.stop();
        worker.lane.close();
        Some(std::iter::from_fn(|| worker.lane.pop()).collect())
    }
}

/// Sending to workers, and stopping them.
impl<Up, Down> WorkerPool<Up, Down> {
    /// Sends a message to every worker. Never waits. Gives the number of workers that it was put
    /// before: not those that have ended or dropped their receiver.
    pub fn broadcast(&mut self, message: DownMsg<Down>) -> usize
    where
        Down: Clone,
    {
        let sent = self.workers.iter().map(|worker| worker.send(message.clone()));
        sent.filter(Result::is_ok).count()
    }

    /// Sends a message to one worker, the next in turn among those that have not ended or dropped
    /// their receiver, and says which. Never waits.
    ///
    /// # Errors
    /// The message comes back when there's no such worker.
    #[inline]
    pub fn broadcast_one(
        &mut self,
        mut message: DownMsg<Down>,
    ) -> Result<WorkerId, SendError<DownMsg<Down>>> {
        let first = self.workers.partition_point(|worker| worker.id.0 < self.next_receiver);
        let (before, after) = self.workers.split_at(first);
        for worker in after.iter().chain(before) {
            match worker.send(message) {
                Ok(()) => {
                    self.next_receiver = worker.id.0 + 1;
                    return Ok(worker.id);
                }
                Err(SendError(again)) => message = again,
            }
        }
        Err(SendError(message))
    }

    /// Sends every worker a [`DownMsg::Stop`], behind all that was sent to it before, and gives
    /// all that is left to be read until the last one has ended. Never waits itself; see
    /// [`RecvAllIterator`].
    pub fn stop(self) -> RecvAllIterator<Up, Down> {
        self.stop_all();
        RecvAllIterator::new(self)
    }

    /// Stops the workers, reads all that is left, and joins the threads.
    ///
    /// # Panics
    /// With the payload of the first worker that panicked, after all threads were joined, unless
    /// [`take_panic`](Self::take_panic) took it before or the worker was restarted.
    pub fn stop_and_join(self) -> Vec<Up> {
        self.stop().collect()
    }

    fn stop_all(&self) {
        self.workers.iter().for_each(Worker::stop);
    }

    /// Waits for all threads, which have nothing left to wait for. Gives the first panic.
    pub(crate) fn join_all(&mut self) -> Option<Box<dyn std::any::Any + Send>> {
        let mut late = None;
        for mut worker in self.workers.drain(..) {
            if let Err(payload) = worker.join() {
                late.get_or_insert(payload);
            }
        }
        self.hub.take_fatal_panic().map(|panic| panic.payload).or(late)
    }
}

impl<Up, Down> Drop for WorkerPool<Up, Down> {
    fn drop(&mut self) {
        self.stop_all();
        while self.recv_msg().is_ok() {}
        drop(self.join_all());
    }
}

impl<Up, Down> fmt::Debug for WorkerPool<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("buffer_length", &self.buffer_length)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
