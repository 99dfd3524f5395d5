//! Tasks and their wakers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::remote::Remote;
use crate::runtime;
use crate::slots::{Key, Slots};

pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The name by which the future given to `run_local` is woken.
pub(crate) const MAIN: u64 = u64::MAX;

/// Wakes one task: at once on its own thread, through [`Remote`] from any other.
pub(crate) struct TaskWaker {
    id: u64,
    /// Whether the task is in line already; being in line twice is of no use.
    queued: AtomicBool,
    remote: Arc<Remote>,
}

impl TaskWaker {
    pub(crate) fn new(id: u64, remote: &Arc<Remote>) -> Arc<Self> {
        Arc::new(Self { id, queued: AtomicBool::new(true), remote: Arc::clone(remote) })
    }

    /// To be called just before the task is polled: what comes later wakes it again.
    pub(crate) fn taken_from_line(&self) {
        // An RMW, so that what the waking thread wrote before its own swap is seen by the poll.
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if !runtime::push_ready(&self.remote, self.id) {
            self.remote.push(self.id);
        }
    }
}

struct Task {
    /// `None` while it is being polled; so is its waker.
    future: Option<LocalFuture>,
    waking: Arc<TaskWaker>,
    waker: Option<Waker>,
    aborted: bool,
}

/// All tasks of a thread, and the line of those that can run.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Slots<Task>>,
    pub(crate) ready: RefCell<VecDeque<u64>>,
    ended: Cell<bool>,
}

impl Tasks {
    /// Puts a task in line. After the end of the runtime the future is dropped instead.
    pub(crate) fn spawn(&self, remote: &Arc<Remote>, future: LocalFuture) -> u64 {
        if self.ended.get() {
            drop(future);
            return 0;
        }
        let key = self.slots.borrow_mut().insert_with(|key| {
            let waking = TaskWaker::new(key.pack(), remote);
            let waker = Some(Waker::from(Arc::clone(&waking)));
            Task { future: Some(future), waking, waker, aborted: false }
        });
        self.ready.borrow_mut().push_back(key.pack());
        key.pack()
    }

    /// Polls the task, if there still is one of that name.
    pub(crate) fn run(&self, id: u64) {
        let key = Key::unpack(id);
        let Some((mut future, waker)) = self.take(key) else { return };
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        if matches!(polled, Ok(Poll::Pending)) {
            let mut slots = self.slots.borrow_mut();
            if let Some(task) = slots.get_mut(key).filter(|task| !task.aborted) {
                task.future = Some(future);
                task.waker = Some(waker);
                return;
            }
        } else if polled.is_err() {
            tracing::error!("a task panicked; the runtime goes on without it");
        }
        let task = self.slots.borrow_mut().remove(key);
        // Both may run any code when dropped, so nothing is borrowed here.
        drop(future);
        drop(waker);
        drop(task);
    }

    fn take(&self, key: Key) -> Option<(LocalFuture, Waker)> {
        let mut slots = self.slots.borrow_mut();
        let task = slots.get_mut(key)?;
        let future = task.future.take()?;
        let waker = task.waker.take()?;
        task.waking.taken_from_line();
        Some((future, waker))
    }

    /// Drops the task: at once, or when its poll is over if it is being polled.
    pub(crate) fn abort(&self, id: u64) {
        let key = Key::unpack(id);
        let dropped = {
            let mut slots = self.slots.borrow_mut();
            let Some(task) = slots.get_mut(key) else { return };
            task.aborted = true;
            if task.future.is_some() { slots.remove(key) } else { None }
        };
        drop(dropped);
    }

    /// Drops all tasks, and all that the dropping spawns.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        let keys = self.slots.borrow().keys();
        for key in keys {
            self.abort(key.pack());
        }
        self.ready.borrow_mut().clear();
    }
}
