//! A virtual clock, and an executor that jumps from timer to timer.

use remuda_reconnect::Sleep;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The time, and who waits for which. Timers that are due together ring in the order they were
/// set, so a run is the same each time.
#[derive(Default)]
pub(crate) struct World {
    now: Cell<Duration>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    timers_set: Cell<u64>,
}

impl World {
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    /// Polls all tasks until none can go on and no timer is set, or until `end`.
    pub(crate) fn run(&self, tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>, end: Duration) {
        let ready = Arc::new(Mutex::new((0..tasks.len()).collect::<VecDeque<_>>()));
        let waker = |task| Waker::from(Arc::new(Ready { task, ready: Arc::clone(&ready) }));
        let mut tasks: Vec<_> =
            tasks.into_iter().enumerate().map(|(id, task)| (Some(task), waker(id))).collect();
        loop {
            loop {
                let next = ready.lock().unwrap().pop_front();
                let Some(id) = next else { break };
                let (task, waker) = &mut tasks[id];
                let Some(running) = task else { continue };
                if running.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                    *task = None;
                }
            }
            let Some(((at, _), waker)) = self.timers.borrow_mut().pop_first() else { return };
            if at > end {
                return;
            }
            self.now.set(at);
            waker.wake();
        }
    }
}

struct Ready {
    task: usize,
    ready: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().push_back(self.task);
    }
}

/// Sleeps in a [`World`].
#[derive(Clone)]
pub(crate) struct WorldSleep(pub(crate) Rc<World>);

impl Sleep for WorldSleep {
    type Sleeping = Sleeping;

    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, duration: Duration) -> Sleeping {
        Sleeping { world: Rc::clone(&self.0), until: self.0.now() + duration, is_set: false }
    }
}

pub(crate) struct Sleeping {
    world: Rc<World>,
    until: Duration,
    is_set: bool,
}

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now() >= self.until {
            return Poll::Ready(());
        }
        assert!(!self.is_set, "only the timer wakes a task that sleeps");
        self.is_set = true;
        let number = self.world.timers_set.get();
        self.world.timers_set.set(number + 1);
        self.world.timers.borrow_mut().insert((self.until, number), context.waker().clone());
        Poll::Pending
    }
}
