//! The link to a worker that is a thread of this process.
//!
//! A call travels as one [`Parcel`]: it goes down with the bodies, is filled with the results by
//! the thread, and comes back up; then it is used again. A thread can't be killed: one that is to
//! be is left behind instead, counted until it ends, and another takes its place. While more than
//! `num_workers` threads are left behind, no other is started.

// A parcel keeps its place in memory while it goes to a thread, comes back and is kept: what moves
// is a pointer.
#![allow(clippy::vec_box)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Weak as WeakArc};

use remuda_dispatch::{CallId, Dispatch, Exit, Offer, WorkerId};
use remuda_net::Notifier;
use remuda_threads::{
    DownMsg, UpMsg, WorkerId as ThreadId, WorkerOptions, WorkerPool, WorkerReceiver, WorkerSender,
    recv_break,
};

use crate::config::ThreadHandler;
use crate::core::Core;
use crate::history::Incident;
use crate::job::{Answer, Job};
use crate::link::parcel::Parcel;
use crate::link::{Link, Transport};
use crate::pool::Inner;

/// The most jobs of one call.
const BATCH_JOBS: u32 = 256;
/// How many answers of one thread can wait for the pool; then the thread waits.
const BUFFER_LENGTH: usize = 64;
/// How many parcels are kept for the next calls.
const SPARE_PARCELS: usize = 256;
/// A parcel whose memory has grown larger, in bytes, is given back to the system.
const SPARE_CAPACITY: usize = 256 << 10;

thread_local! {
    static SLOT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The slot of the worker whose thread this is, from 0 to `num_workers` - 1, stable over
/// restarts: what `REMUDA_WORKER_SLOT` is to a process. `None` on any other thread.
pub fn thread_slot() -> Option<u32> {
    SLOT.get()
}

/// All threads of a pool.
pub(crate) struct Threads {
    pool: RefCell<Option<Manager>>,
    /// Rung when there is something to read, and when a thread that was left behind has ended.
    bell: Notifier,
    /// Threads that were left behind, while they run.
    left_behind: RefCell<Vec<WeakArc<Presence>>>,
    /// Workers that wait until fewer threads are left behind.
    waiting: RefCell<VecDeque<Waiting>>,
    spare: RefCell<Vec<Box<Parcel>>>,
}

type Manager = WorkerPool<Said, Box<Parcel>>;

/// A worker that is to be started.
struct Waiting {
    worker: WorkerId,
    slot: u32,
}

/// What a thread says.
enum Said {
    /// It takes jobs.
    Ready(WorkerId),
    /// All of a call's results are there.
    Answered(Box<Parcel>),
    /// The handler panicked: another thread is wanted in the place of this one, which runs nothing
    /// more.
    Panicked(Box<Parcel>),
    /// A call that it was handed before that was known.
    Returned(Box<Parcel>),
    /// It has returned all, and ends.
    Replaced(WorkerId),
    /// It ends because it was told to.
    Ended(WorkerId),
}

/// Its thread runs as long as this is held.
struct Presence(Notifier);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.notify();
    }
}

/// What is known of one worker that is a thread.
pub(crate) struct ThreadLink {
    threads: Rc<Threads>,
    handler: ThreadHandler,
    thread: Cell<Option<ThreadId>>,
    presence: RefCell<WeakArc<Presence>>,
    /// After a panic, until another thread takes its place.
    replacing: RefCell<Option<Replacing>>,
    /// It was asked to end.
    ending: Cell<bool>,
}

/// Calls for the thread that is to be started.
#[derive(Default)]
struct Replacing {
    /// What the one before it returned.
    returned: Vec<Box<Parcel>>,
    /// What came since.
    later: Vec<Box<Parcel>>,
}

impl ThreadLink {
    /// Hands a call over.
    pub(crate) fn send(&self, dispatch: &Dispatch<Job, Answer>, worker: WorkerId, call: CallId) {
        let parcel = self.threads.parcel(dispatch, worker, call);
        match &mut *self.replacing.borrow_mut() {
            Some(replacing) => replacing.later.push(parcel),
            None => self.tell(DownMsg::Other(parcel)),
        }
    }

    /// Asks the thread to end once it has done what it was handed.
    pub(crate) fn stop(&self) {
        self.ending.set(true);
        self.tell(DownMsg::Stop);
    }

    /// A thread that takes nothing any more is one whose last words are about to be read.
    fn tell(&self, message: DownMsg<Box<Parcel>>) {
        let pool = self.threads.pool.borrow();
        let thread = self.thread.get().and_then(|thread| pool.as_ref()?.get(thread));
        if let Some(thread) = thread {
            let _ = thread.send(message);
        }
    }
}

impl Threads {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            pool: RefCell::default(),
            bell: Notifier::new(),
            left_behind: RefCell::default(),
            waiting: RefCell::default(),
            spare: RefCell::default(),
        })
    }

    /// How many threads were left behind and still run.
    pub(crate) fn left_behind(&self) -> usize {
        let mut left = self.left_behind.borrow_mut();
        left.retain(|presence| presence.strong_count() > 0);
        left.len()
    }

    /// A parcel that holds a call's bodies.
    fn parcel(
        &self,
        dispatch: &Dispatch<Job, Answer>,
        worker: WorkerId,
        call: CallId,
    ) -> Box<Parcel> {
        let mut parcel = match self.spare.borrow_mut().pop() {
            Some(parcel) => parcel,
            None => Box::new(Parcel::new(worker, call)),
        };
        parcel.fill(dispatch, worker, call);
        parcel
    }

    fn take_back(&self, mut parcel: Box<Parcel>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_PARCELS && parcel.capacity() <= SPARE_CAPACITY {
            parcel.clear();
            spare.push(parcel);
        }
    }

    /// Starts a thread for a worker.
    fn start(
        &self,
        worker: WorkerId,
        slot: u32,
        link: &ThreadLink,
        max_body_bytes: usize,
    ) -> Result<(), String> {
        let pool = &mut *self.pool.borrow_mut();
        let pool = pool.get_or_insert_with(|| {
            let mut pool = WorkerPool::new(BUFFER_LENGTH);
            let bell = self.bell.clone();
            pool.set_wake_hook(move || bell.notify());
            pool
        });
        let presence = Arc::new(Presence(self.bell.clone()));
        *link.presence.borrow_mut() = Arc::downgrade(&presence);
        let handler = link.handler.clone();
        let options = WorkerOptions::new().name(format!("remuda-{slot}"));
        let started = pool.execute_with(options, move |tx, rx| {
            let _presence = presence;
            SLOT.set(Some(slot));
            work(worker, &handler, max_body_bytes, &tx, &rx);
        });
        link.thread.set(Some(started.map_err(|error| error.to_string())?));
        // The pool may have been found without threads, and then tells nothing.
        self.bell.notify();
        Ok(())
    }

    /// Leaves a worker's thread to itself.
    fn leave(&self, link: &ThreadLink) -> Vec<Said> {
        let Some(thread) = link.thread.take() else { return Vec::new() };
        self.left_behind.borrow_mut().push(link.presence.borrow().clone());
        let pool = &mut *self.pool.borrow_mut();
        pool.as_mut().and_then(|pool| pool.detach(thread)).unwrap_or_default()
    }

    fn next_said(&self) -> Option<UpMsg<Said>> {
        self.pool.borrow_mut().as_mut()?.try_recv_msg().ok()
    }
}

/// A pool that is dropped before its time waits for no handler.
impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.get_mut() {
            let threads: Vec<ThreadId> = pool.workers().map(|worker| worker.id()).collect();
            for thread in threads {
                pool.detach(thread);
            }
        }
        self.bell.notify();
    }
}

/// A worker's thread. If the pool reads no more, it was left behind: then it ends.
fn work(
    worker: WorkerId,
    handler: &ThreadHandler,
    max_body_bytes: usize,
    tx: &WorkerSender<Said>,
    rx: &WorkerReceiver<Box<Parcel>>,
) {
    if tx.send(Said::Ready(worker)).is_err() {
        return;
    }
    let mut panicked = false;
    loop {
        let mut parcel = recv_break!(rx);
        let said = if panicked {
            Said::Returned(parcel)
        } else if parcel.run(handler, max_body_bytes) {
            Said::Answered(parcel)
        } else {
            panicked = true;
            Said::Panicked(parcel)
        };
        if tx.send(said).is_err() {
            return;
        }
    }
    let _ = tx.send(if panicked { Said::Replaced(worker) } else { Said::Ended(worker) });
}

/// Reads what the threads of a pool say, for as long as the pool lives.
pub(crate) async fn hear(pool: Weak<Inner>, bell: Notifier) {
    loop {
        bell.notified().await;
        let Some(inner) = pool.upgrade() else { return };
        inner.core.borrow_mut().read_threads();
    }
}

impl Core {
    /// Starts a thread as a worker, or lets the worker wait while too many are left behind.
    pub(crate) fn start_thread(
        &mut self,
        worker: WorkerId,
        number: u64,
        slot: u32,
        handler: ThreadHandler,
    ) -> Result<(), String> {
        let threads = self.threads.clone();
        if threads.pool.borrow().is_none() {
            remuda_net::spawn(hear(self.me.clone(), threads.bell.clone()));
        }
        let link = ThreadLink {
            threads: threads.clone(),
            handler,
            thread: Cell::new(None),
            presence: RefCell::default(),
            replacing: RefCell::default(),
            ending: Cell::new(false),
        };
        if threads.left_behind() > self.config.dispatch.num_workers as usize {
            tracing::warn!("a thread is not replaced until one of those left behind has ended");
            threads.waiting.borrow_mut().push_back(Waiting { worker, slot });
        } else {
            threads.start(worker, slot, &link, self.config.max_body_bytes)?;
        }
        self.links.insert(Link::new(worker, number, slot, Transport::Thread(link)));
        Ok(())
    }

    /// Takes in all that the threads have said.
    fn read_threads(&mut self) {
        let threads = self.threads.clone();
        while let Some(message) = threads.next_said() {
            self.thread_said(Some(message.worker), message.body);
        }
        self.start_waiting();
    }

    /// Starts those that waited until a thread that was left behind has ended.
    fn start_waiting(&mut self) {
        let threads = self.threads.clone();
        while threads.left_behind() <= self.config.dispatch.num_workers as usize {
            let Some(Waiting { worker, slot }) = threads.waiting.borrow_mut().pop_front() else {
                return;
            };
            let max_body_bytes = self.config.max_body_bytes;
            let Some(link) = self.links.of(worker) else { continue };
            let Transport::Thread(thread) = &link.transport else { continue };
            if let Err(trouble) = threads.start(worker, slot, thread, max_body_bytes) {
                link.trouble = Some(trouble);
                self.worker_gone(worker);
            }
        }
    }

    /// What a thread said; `from` is not known of one that was left behind.
    fn thread_said(&mut self, from: Option<ThreadId>, said: Said) {
        match said {
            Said::Ready(worker) => {
                let Some(link) = self.links.of(worker) else { return };
                link.ready = true;
                let offer = Offer { capacity: 1, ordered: true, batch: BATCH_JOBS, cancel: false };
                let now = self.now();
                // A thread in the place of one that panicked is the same worker to the dispatch.
                self.dispatch.ready(now, worker, offer);
                self.carry_out(&[]);
            }
            Said::Answered(parcel) => self.thread_answered(parcel),
            Said::Panicked(parcel) => self.thread_panicked(parcel),
            Said::Returned(parcel) => {
                let Some(link) = self.links.of(parcel.worker) else { return };
                let Transport::Thread(thread) = &link.transport else { return };
                if let Some(replacing) = &mut *thread.replacing.borrow_mut() {
                    replacing.returned.push(parcel);
                }
            }
            Said::Replaced(worker) => self.replace_thread(worker),
            Said::Ended(worker) => {
                let Some(link) = self.links.of(worker) else { return };
                let Transport::Thread(thread) = &link.transport else { return };
                if thread.thread.get() == from {
                    link.exit = Some(Exit::Status(0));
                    self.worker_gone(worker);
                }
            }
        }
    }

    fn thread_answered(&mut self, parcel: Box<Parcel>) {
        let now = self.now();
        // A fault is acted upon by the dispatch.
        let _ = self.dispatch.replied(now, parcel.worker, parcel.call, parcel.replies());
        self.carry_out(&parcel.results);
        self.threads.take_back(parcel);
    }

    /// The job that panicked has failed. The thread returns what it was handed and had not begun.
    fn thread_panicked(&mut self, parcel: Box<Parcel>) {
        let now = self.now();
        let Some(link) = self.links.of(parcel.worker) else { return };
        let mut incident = Incident::of(link, Exit::Unknown, now);
        incident.trouble = parcel.last_message();
        let Transport::Thread(thread) = &link.transport else { return };
        // Behind all that it was handed.
        thread.tell(DownMsg::Stop);
        let mut replacing = Replacing::default();
        let mut finished = None;
        match parcel.is_finished() {
            true => finished = Some(parcel),
            false => replacing.returned.push(parcel),
        }
        thread.replacing.replace(Some(replacing));
        if let Some(parcel) = finished {
            self.thread_answered(parcel);
        }
        self.history.record(incident);
    }

    /// Another thread takes the place of one that panicked, and what that returned: to the dispatch
    /// it is the same worker.
    fn replace_thread(&mut self, worker: WorkerId) {
        let number = self.next_number();
        let threads = self.threads.clone();
        let Some(link) = self.links.of(worker) else { return };
        let Transport::Thread(thread) = &link.transport else { return };
        let started = match thread.ending.get() {
            true => Err(None),
            false => {
                threads.start(worker, link.slot, thread, self.config.max_body_bytes).map_err(Some)
            }
        };
        if let Err(trouble) = started {
            link.exit = trouble.is_none().then_some(Exit::Status(0));
            link.trouble = trouble;
            self.worker_gone(worker);
            return;
        }
        link.number = number;
        let Replacing { returned, later } = thread.replacing.take().unwrap_or_default();
        for parcel in returned.into_iter().chain(later) {
            thread.tell(DownMsg::Other(parcel));
        }
    }

    /// A thread is to be killed, which can't be done: it is left behind.
    pub(crate) fn leave_thread(&mut self, worker: WorkerId) {
        let me = self.me.clone();
        // Not from within: the dispatch is being asked for what to do.
        remuda_net::spawn(async move {
            if let Some(pool) = me.upgrade() {
                pool.core.borrow_mut().thread_left(worker);
            }
        });
    }

    fn thread_left(&mut self, worker: WorkerId) {
        self.read_threads();
        let threads = self.threads.clone();
        threads.waiting.borrow_mut().retain(|waiting| waiting.worker != worker);
        let Some(link) = self.links.of(worker) else { return };
        let Transport::Thread(thread) = &link.transport else { return };
        for said in threads.leave(thread) {
            self.thread_said(None, said);
        }
        if let Some(link) = self.links.of(worker) {
            link.trouble = Some("its thread can't be killed and was left behind".to_owned());
            self.worker_gone(worker);
        }
    }
}
