//! Where the runtime's blocking work runs: looking up names, reading files, joining threads.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use remuda_net::{BlockingExecutor, BlockingJob, Config};
use remuda_threads::{
    DownMsg, RecvTimeoutError, WorkerId, WorkerOptions, WorkerPool, WorkerReceiver,
};

/// The most threads for blocking work: 4.
pub const BLOCKING_THREADS: usize = 4;
/// The most pieces of blocking work that may wait for a thread: 1024. One more is refused.
pub const BLOCKING_QUEUE: usize = 1_024;
/// How long a thread for blocking work waits for more before it ends: 10 s.
pub const BLOCKING_IDLE: Duration = Duration::from_secs(10);

/// The most bytes that may wait for one worker or peer to take them: 2 GiB. What a pool hands to
/// its workers is bounded by `max_bodies_bytes`, and one that is slow to read has done no wrong.
pub(crate) const LINK_SEND_LIMIT: usize = 2 << 30;
/// How many connections there may be at a time, those to workers included: 65,536.
pub(crate) const CONNECTIONS_LIMIT: usize = 65_536;
/// The most bytes that may wait for all who are connected: 4 GiB.
const SEND_POOL_BYTES: usize = 4 << 30;

/// The runtime's configuration as a pool wants it: the runtime's defaults, room for all bodies on
/// their way to workers, and blocking work on threads of `remuda-threads`, at most
/// [`BLOCKING_THREADS`].
pub fn net_config() -> Config {
    Config {
        max_connections: CONNECTIONS_LIMIT,
        send_limit: LINK_SEND_LIMIT,
        send_pool_bytes: SEND_POOL_BYTES,
        blocking: Arc::new(BlockingThreads::default()),
        ..Config::default()
    }
}

/// Runs blocking work on threads that are started as they are needed.
///
/// Dropping it waits for none of them: what was handed in still runs.
#[derive(Default)]
struct BlockingThreads(Mutex<Option<Manager>>);

struct Manager {
    /// What the threads are told is that there is work.
    pool: WorkerPool<(), ()>,
    /// How many threads were started so far.
    started: usize,
    work: Arc<Mutex<Work>>,
}

/// What the threads share.
#[derive(Default)]
struct Work {
    queue: VecDeque<BlockingJob>,
    /// Threads that wait to be told of work.
    idle: Vec<WorkerId>,
    /// How many threads there are.
    threads: usize,
}

impl BlockingExecutor for BlockingThreads {
    fn execute(&self, job: BlockingJob) -> Result<(), BlockingJob> {
        lock(&self.0).get_or_insert_with(Manager::new).execute(job)
    }
}

impl Manager {
    fn new() -> Self {
        Self { pool: WorkerPool::new(0), started: 0, work: Arc::default() }
    }

    fn execute(&mut self, job: BlockingJob) -> Result<(), BlockingJob> {
        let mut work = lock(&self.work);
        if work.queue.len() >= BLOCKING_QUEUE {
            return Err(job);
        }
        work.queue.push_back(job);
        if let Some(thread) = work.idle.pop() {
            drop(work);
            // It waits until it's told: it can't have ended.
            if let Some(thread) = self.pool.get(thread) {
                let _ = thread.send(DownMsg::Other(()));
            }
            return Ok(());
        }
        if work.threads >= BLOCKING_THREADS {
            return Ok(());
        }
        work.threads += 1;
        drop(work);
        self.start_thread()
    }

    fn start_thread(&mut self) -> Result<(), BlockingJob> {
        let thread = WorkerId::new(self.started);
        let work = Arc::clone(&self.work);
        let options = WorkerOptions::new().name("remuda-blocking".to_owned());
        let started = self.pool.execute_with(options, move |_, rx| serve(thread, &work, &rx));
        if started.is_ok() {
            self.started += 1;
            return Ok(());
        }
        let mut work = lock(&self.work);
        work.threads -= 1;
        match work.threads {
            // Nobody would ever run it; the last one in the queue is the one that was just handed in.
            0 => work.queue.pop_back().map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let threads: Vec<WorkerId> = self.pool.workers().map(|worker| worker.id()).collect();
        for thread in threads {
            self.pool.detach(thread);
        }
    }
}

/// A thread: does what is in the queue, and waits to be told of more, for a while.
fn serve(thread: WorkerId, work: &Mutex<Work>, rx: &WorkerReceiver<()>) {
    loop {
        while let Some(job) = next_job(thread, work) {
            // A job that panics has its waiter told, and costs no other.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
        match rx.recv_timeout(BLOCKING_IDLE) {
            Ok(DownMsg::Other(())) => {}
            Err(RecvTimeoutError::Timeout) if !leave(thread, work) => {}
            _ => return,
        }
    }
}

/// The first job in the queue; if there is none, the thread is idle from here on.
fn next_job(thread: WorkerId, work: &Mutex<Work>) -> Option<BlockingJob> {
    let mut work = lock(work);
    let job = work.queue.pop_front();
    // Not twice, if it waited in vain and was about to be told.
    if job.is_none() && !work.idle.contains(&thread) {
        work.idle.push(thread);
    }
    job
}

/// Takes an idle thread out of the pool; false if it is about to be told of work.
fn leave(thread: WorkerId, work: &Mutex<Work>) -> bool {
    let mut work = lock(work);
    let Some(at) = work.idle.iter().position(|idle| *idle == thread) else { return false };
    work.idle.remove(at);
    work.threads -= 1;
    true
}

/// The locks guard single pushes and counts, which a panic can't leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
