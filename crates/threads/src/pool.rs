//! The pool: starts workers, sends to them, and stops them; reading is in recv.rs.

use std::fmt;

use remuda_backoff::RestartIntensity;

use crate::hub::Hub;
use crate::iterator::RecvAllIterator;
use crate::pace::Pace;
use crate::spawn::{Job, Once, Restarting, Seat, spawn};
use crate::sync::{Arc, AtomicBool};
use crate::{
    DownMsg, SendError, Sender, SpawnError, Worker, WorkerId, WorkerOptions, WorkerReceiver,
    WorkerSender, chain, ring,
};

/// The longest buffer that a worker can have, in messages.
pub const BUFFER_LENGTH_MAX: usize = 1 << 24;

/// How many messages of one worker are read before the next worker's turn, while both have some.
pub(crate) const TURN_LENGTH: usize = 64;

/// Workers, and the manager's ends of their queues. Who owns it is the manager.
///
/// Each worker has two queues of its own: upward one of [`buffer_length`](Self::buffer_length)
/// messages, downward one without a bound. Messages of one worker come in the order in which it
/// sent them; workers take turns.
///
/// Dropping the pool stops and joins the workers, and drops what they sent and what they panicked
/// with. See the crate's front page for what a worker must heed so that a stop comes to its end.
pub struct WorkerPool<Up, Down> {
    pub(crate) hub: Arc<Hub>,
    /// In the order of their ids.
    pub(crate) workers: Vec<Worker<Up, Down>>,
    pub(crate) buffer_length: usize,
    next_id: usize,
    /// Whose queue is being read, as an index of `workers`.
    pub(crate) reading: usize,
    /// How many more of its messages are read before the next one's turn.
    pub(crate) turn: usize,
    /// Who gets the next message of `broadcast_one`: the first worker from this id on.
    next_receiver: usize,
    pub(crate) has_hook: bool,
    pub(crate) pace: Pace,
}

impl<Up, Down> WorkerPool<Up, Down> {
    /// A pool without workers. Each worker will be able to have `buffer_length` unread messages,
    /// for which memory is taken when it's started; with 0, sending one waits until the manager
    /// takes it.
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
            pace: Pace::new(),
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
