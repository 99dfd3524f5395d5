//! The thread of a worker, from its start to its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;
use std::{io, mem};

use remuda_backoff::RestartIntensity;

use crate::cores::pin_current_thread;
use crate::hub::Hub;
use crate::receiver::Inbox;
use crate::sync::{Arc, AtomicBool, Ordering, thread};
use crate::{
    DownMsg, Receiver, SpawnError, SyncSender, WorkerId, WorkerOptions, WorkerPanic,
    WorkerReceiver, WorkerSender, chain, ring,
};

/// What a worker runs.
pub(crate) trait Job<Up, Down>: Send + 'static {
    /// Whether its ends of the queues stay open between runs.
    const IS_LASTING: bool;

    /// Runs it once.
    fn run(&mut self, tx: WorkerSender<Up>, rx: WorkerReceiver<Down>);

    /// Whether it may run again after a panic at `now`.
    fn may_restart(&mut self, since_start: Instant) -> bool;
}

/// A job that runs once.
pub(crate) struct Once<F>(pub(crate) Option<F>);

impl<Up, Down, F> Job<Up, Down> for Once<F>
where
    F: FnOnce(WorkerSender<Up>, WorkerReceiver<Down>) + Send + 'static,
{
    const IS_LASTING: bool = false;

    fn run(&mut self, tx: WorkerSender<Up>, rx: WorkerReceiver<Down>) {
        if let Some(job) = self.0.take() {
            job(tx, rx);
        }
    }

    fn may_restart(&mut self, _since_start: Instant) -> bool {
        false
    }
}

/// A job that runs again after a panic, so often and no oftener.
pub(crate) struct Restarting<F> {
    pub(crate) job: F,
    pub(crate) intensity: RestartIntensity,
}

impl<Up, Down, F> Job<Up, Down> for Restarting<F>
where
    F: Fn(WorkerSender<Up>, WorkerReceiver<Down>) + Send + 'static,
{
    const IS_LASTING: bool = true;

    fn run(&mut self, tx: WorkerSender<Up>, rx: WorkerReceiver<Down>) {
        (self.job)(tx, rx);
    }

    fn may_restart(&mut self, since_start: Instant) -> bool {
        self.intensity.record(since_start.elapsed()).may_restart()
    }
}

/// All that a worker's thread is given.
pub(crate) struct Seat<Up, Down> {
    pub(crate) id: WorkerId,
    pub(crate) name: String,
    pub(crate) hub: Arc<Hub>,
    pub(crate) up: ring::Producer<Up>,
    pub(crate) rendezvous: bool,
    pub(crate) down: chain::Consumer<DownMsg<Down>>,
    pub(crate) stopping: Arc<AtomicBool>,
}

/// Starts the thread; returns when it's known to run where it should.
pub(crate) fn spawn<Up, Down, J>(
    seat: Seat<Up, Down>,
    options: &WorkerOptions,
    job: J,
) -> Result<thread::JoinHandle<()>, SpawnError>
where
    Up: Send + 'static,
    Down: Send + 'static,
    J: Job<Up, Down>,
{
    let (worker, name) = (seat.id, seat.name.clone());
    if name.contains('\0') {
        return Err(SpawnError::Name { worker, name });
    }
    let mut builder = thread::Builder::new().name(name.clone());
    if let Some(bytes) = options.stack_size {
        builder = builder.stack_size(bytes);
    }
    let Some(core) = options.core else {
        let thread = builder.spawn(move || work(seat, job));
        return thread.map_err(|source| SpawnError::Thread { worker, name, source });
    };

    let (report, pinned) = std::sync::mpsc::channel();
    let thread = builder.spawn(move || {
        let outcome = pin_current_thread(core);
        let failed = outcome.is_err();
        // The manager waits for the report below.
        let _ = report.send(outcome);
        if !failed {
            work(seat, job);
        }
    });
    let thread =
        thread.map_err(|source| SpawnError::Thread { worker, name: name.clone(), source })?;
    let gone = || Err(io::Error::other("the thread ended before its start"));
    match pinned.recv().unwrap_or_else(|_| gone()) {
        Ok(()) => Ok(thread),
        Err(source) => Err(SpawnError::Core { worker, name, core, source }),
    }
}

/// A worker's thread.
fn work<Up, Down, J: Job<Up, Down>>(seat: Seat<Up, Down>, mut job: J) {
    let Seat { id, name, hub, up, rendezvous, down, stopping } = seat;
    hub.cores.add_current_thread();
    let start = Instant::now();
    let outbox = Rc::new(SyncSender::new(up, Arc::clone(&hub), rendezvous));
    let inbox = Rc::new(Inbox::new(down, Arc::clone(&hub)));
    loop {
        let tx = WorkerSender::new(&outbox, J::IS_LASTING);
        let rx = Receiver::new(&inbox, J::IS_LASTING);
        // A job that panicked is never looked at again but to be run anew from its start, which
        // `execute_restarting` documents.
        let Err(payload) = catch_unwind(AssertUnwindSafe(|| job.run(tx, rx))) else { break };
        let restarted = !stopping.load(Ordering::Acquire) && job.may_restart(start);
        hub.report(WorkerPanic { worker: id, name: name.clone(), payload, restarted });
        if !restarted {
            break;
        }
    }
    // What a job has captured may panic in its drop, like the job itself.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| mem::drop(job))) {
        hub.report(WorkerPanic { worker: id, name, payload, restarted: false });
    }
    // Ends that were leaked, or sit in a thread-local, are closed too: from here on, nothing that
    // the job left behind can make the manager wait.
    inbox.close();
    outbox.close();
}
