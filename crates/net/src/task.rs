//! Tasks and their wakers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::prefetch::prefetch_line;
use crate::remote::Remote;
use crate::runtime;
use crate::sleeper::Polling;
use crate::slots::{Key, Slots};

pub(crate) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The name by which the future given to `run_local` is woken.
pub(crate) const MAIN: u64 = Key::FIRST.pack();

/// The waker of a task, for whoever may wake it from any thread. What waits in this thread's
/// own tables knows the task by its name: see [`Sleeper`](crate::sleeper::Sleeper).
pub(crate) struct TaskWaker {
    id: u64,
    /// Whether it is on its way through [`Remote`] already.
    away: AtomicBool,
    remote: Arc<Remote>,
}

impl TaskWaker {
    pub(crate) fn new(id: u64, remote: &Arc<Remote>) -> Arc<Self> {
        Arc::new(Self { id, away: AtomicBool::new(false), remote: Arc::clone(remote) })
    }

    /// It has come through [`Remote`]: to be called before the task is polled for that, so that
    /// what comes later wakes it again.
    fn arrived(&self) {
        // An RMW, so that what the waking thread wrote before its own swap is seen by the poll.
        self.away.swap(false, Ordering::AcqRel);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !runtime::wake_here(&self.remote, self.id) && !self.away.swap(true, Ordering::AcqRel) {
            self.remote.push(self.id);
        }
    }
}

struct Task {
    /// What is polled, and with which waker: `None` while that happens, and of the main task,
    /// which is `run_local`'s.
    idle: Option<(LocalFuture, Waker)>,
    waking: Arc<TaskWaker>,
    /// Being in line twice is of no use.
    in_line: bool,
    aborted: bool,
}

/// All tasks of a thread, and the line of those that can run.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Slots<Task>>,
    ready: RefCell<VecDeque<u64>>,
    ended: Cell<bool>,
}

impl Tasks {
    /// Puts the main task in line. To be called first, and once. Returns its waker.
    pub(crate) fn begin(&self, remote: &Arc<Remote>) -> Waker {
        let waking = TaskWaker::new(MAIN, remote);
        let waker = Waker::from(Arc::clone(&waking));
        let main = Task { idle: None, waking, in_line: false, aborted: false };
        let key = self.slots.borrow_mut().insert(main);
        debug_assert!(key.pack() == MAIN, "the main task is the first");
        self.wake(MAIN);
        waker
    }

    /// Puts a task in line. After the end of the runtime the future is dropped instead.
    pub(crate) fn spawn(&self, remote: &Arc<Remote>, future: LocalFuture) -> u64 {
        if self.ended.get() {
            drop(future);
            return 0;
        }
        let key = self.slots.borrow_mut().insert_with(|key| {
            let waking = TaskWaker::new(key.pack(), remote);
            let idle = Some((future, Waker::from(Arc::clone(&waking))));
            Task { idle, waking, in_line: false, aborted: false }
        });
        self.wake(key.pack());
        key.pack()
    }

    /// Puts the task in line, if there still is one of that name.
    #[inline]
    pub(crate) fn wake(&self, id: u64) {
        if let Some(task) = self.slots.borrow_mut().get_mut(Key::unpack(id))
            && !std::mem::replace(&mut task.in_line, true)
        {
            self.ready.borrow_mut().push_back(id);
        }
    }

    /// As [`wake`](Self::wake), of each in turn.
    #[inline]
    pub(crate) fn wake_all(&self, ids: &[u64]) {
        let (mut slots, mut ready) = (self.slots.borrow_mut(), self.ready.borrow_mut());
        for id in ids {
            if let Some(task) = slots.get_mut(Key::unpack(*id))
                && !std::mem::replace(&mut task.in_line, true)
            {
                if let Some((future, _)) = &task.idle {
                    // It comes while those are polled whose turn is before.
                    prefetch_line(&raw const **future);
                }
                ready.push_back(*id);
            }
        }
    }

    /// As [`wake`](Self::wake), for one that came through [`Remote`].
    pub(crate) fn wake_arrived(&self, id: u64) {
        if let Some(task) = self.slots.borrow().get(Key::unpack(id)) {
            task.waking.arrived();
        }
        self.wake(id);
    }

    #[inline]
    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    pub(crate) fn clear_line(&self) {
        self.ready.borrow_mut().clear();
    }

    /// The next in line, to be polled.
    #[inline]
    pub(crate) fn next(&self) -> Option<u64> {
        self.ready.borrow_mut().pop_front()
    }

    /// The main task is about to be polled: what wakes it from now on puts it in line again.
    pub(crate) fn main_left_line(&self) {
        if let Some(main) = self.slots.borrow_mut().get_mut(Key::FIRST) {
            main.in_line = false;
        }
    }

    /// Polls the task, if there still is one of that name.
    pub(crate) fn run(&self, id: u64) {
        let key = Key::unpack(id);
        let Some((mut future, waker)) = self.take(key) else { return };
        let polling = Polling::begin(id, &waker);
        let mut context = Context::from_waker(polling.waker());
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        drop(polling);
        if matches!(polled, Ok(Poll::Pending)) {
            let mut slots = self.slots.borrow_mut();
            if let Some(task) = slots.get_mut(key).filter(|task| !task.aborted) {
                task.idle = Some((future, waker));
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

    #[inline]
    fn take(&self, key: Key) -> Option<(LocalFuture, Waker)> {
        let mut slots = self.slots.borrow_mut();
        let task = slots.get_mut(key)?;
        task.in_line = false;
        task.idle.take()
    }

    /// Drops the task: at once, or when its poll is over if it is being polled.
    pub(crate) fn abort(&self, id: u64) {
        let key = Key::unpack(id);
        let dropped = {
            let mut slots = self.slots.borrow_mut();
            let Some(task) = slots.get_mut(key) else { return };
            task.aborted = true;
            if task.idle.is_some() { slots.remove(key) } else { None }
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
        self.clear_line();
    }
}
