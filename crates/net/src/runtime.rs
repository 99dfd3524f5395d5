//! The runtime of a thread: its turn, and the way in for everything that runs on it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::cancel::CancellationToken;
use crate::clock::Clock;
use crate::config::{Backend, Config};
use crate::driver::{Driver, Until};
use crate::error::{NetError, Result};
use crate::io::Io;
use crate::remote::Remote;
use crate::sleeper::Polling;
use crate::source::Sources;
use crate::spin::Spin;
use crate::state::State;
use crate::task::{LocalFuture, MAIN, Tasks};
use crate::timers::Timers;

/// Polls of tasks in one turn at most, so that tasks that wake each other can't keep the
/// kernel's events waiting.
const POLLS_PER_TURN: usize = 512;

/// A turn whose first timer is late by so much looks at the kernel's events once more, before
/// that timer fires.
const STALL: Duration = Duration::from_millis(50);

pub(crate) struct Core {
    remote: Arc<Remote>,
    tasks: Tasks,
    timers: RefCell<Timers>,
    io: RefCell<Io>,
    clock: Rc<Clock>,
    spin: Spin,
    sources: Sources,
    shutdown: CancellationToken,
    config: Config,
    reason: String,
}

thread_local! {
    /// This thread's runtime, which [`Entered`] holds. A bare pointer: it is asked for several
    /// times a message, and needs neither a borrow nor a destructor of the thread's.
    static CURRENT: Cell<Option<NonNull<Core>>> = const { Cell::new(None) };
}

/// Puts a task in line if this is the thread of the runtime that `remote` belongs to.
pub(crate) fn wake_here(remote: &Arc<Remote>, id: u64) -> bool {
    let woken = with(|core| {
        let here = Arc::ptr_eq(&core.remote, remote);
        if here {
            core.tasks.wake(id);
        }
        here
    });
    woken == Some(true)
}

/// Runs `f` with this thread's runtime, if there is one.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
    // SAFETY: `Entered` holds the core for as long as the pointer is here. It belongs to a
    // `run_local` of this thread; whatever calls this is called by that, so that `f` is over
    // before it is.
    CURRENT.get().map(|core| f(unsafe { core.as_ref() }))
}

/// As [`with`], for what can't go on without a runtime.
#[track_caller]
pub(crate) fn must<R>(f: impl FnOnce(&Core) -> R) -> R {
    match with(f) {
        Some(result) => result,
        None => panic!("{}", NetError::NoRuntime),
    }
}

/// Runs `f` with the connections and the driver. What it wakes is woken afterwards.
#[inline]
pub(crate) fn with_io<R>(f: impl FnOnce(&mut State, &mut Driver) -> R) -> Option<R> {
    with(|core| {
        let (result, wakes) = {
            let mut io = core.io.borrow_mut();
            let Io { state, driver, .. } = &mut *io;
            let result = f(state, driver);
            (result, !state.wakes.is_empty())
        };
        if wakes {
            core.wake_noted();
        }
        result
    })
}

fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Ends the runtime when it is left, by a panic too.
struct Entered(Rc<Core>);

impl Entered {
    fn new(core: Core) -> Result<Self> {
        if CURRENT.get().is_some() {
            return Err(NetError::Io {
                what: "starting a runtime",
                source: std::io::Error::other("this thread runs one already"),
            });
        }
        let core = Rc::new(core);
        CURRENT.set(Some(NonNull::from(&*core)));
        Ok(Self(core))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Futures may use the runtime while they are dropped, so it is still there.
        self.0.tasks.end();
        self.0.drain();
        // What the core still owns finds no runtime as it is dropped.
        CURRENT.set(None);
    }
}

/// Runs `main` on this thread, and with it whatever it spawns, until `main` is done. Tasks that
/// are not done by then are dropped, connections are closed, and bytes that they accepted for
/// sending are still tried for at most `Config::close_linger`.
///
/// ```
/// let config = remuda_net::Config::default();
/// let answer = remuda_net::run_local(config, async {
///     let task = remuda_net::spawn_with_handle(async { 6 * 7 });
///     task.await
/// })?;
/// assert_eq!(answer, Ok(42));
/// # Ok::<(), remuda_net::NetError>(())
/// ```
///
/// # Errors
/// If the configuration is out of range, the driver can't be set up, waiting for events fails,
/// or the thread runs a runtime already.
pub fn run_local<T>(config: Config, main: impl Future<Output = T>) -> Result<T> {
    let entered = Entered::new(Core::new(config)?)?;
    let core = &entered.0;
    let mut main = pin!(main);
    let waker = core.tasks.begin(&core.remote);
    loop {
        if let Some(output) = core.run_tasks(|| {
            core.tasks.main_left_line();
            let polling = Polling::begin(MAIN, &waker);
            match main.as_mut().poll(&mut Context::from_waker(polling.waker())) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        }) {
            return Ok(output);
        }
        core.flush();
        core.wait(None)?;
    }
}

impl Core {
    fn new(config: Config) -> Result<Self> {
        config.validate()?;
        let remote = Arc::new(Remote::new()?);
        let started = Instant::now();
        let (driver, reason) = Driver::choose(&config, &remote)?;
        let took = started.elapsed();
        let clock = Rc::new(Clock::default());
        tracing::info!(backend = driver.backend().name(), %reason, ?took, "chose the driver");
        Ok(Self {
            remote,
            tasks: Tasks::default(),
            timers: RefCell::default(),
            io: RefCell::new(Io::new(State::new(&config, Rc::clone(&clock)), driver)),
            clock,
            spin: Spin::new(config.spin),
            sources: Sources::default(),
            shutdown: CancellationToken::new(),
            config,
            reason,
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn io(&self) -> &RefCell<Io> {
        &self.io
    }

    pub(crate) fn timers(&self) -> &RefCell<Timers> {
        &self.timers
    }

    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    pub(crate) fn spawn(&self, future: LocalFuture) -> u64 {
        self.tasks.spawn(&self.remote, future)
    }

    pub(crate) fn abort(&self, task: u64) {
        self.tasks.abort(task);
    }

    /// Polls tasks that can run, in the order in which they were woken.
    fn run_tasks<T>(&self, mut main: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 0..POLLS_PER_TURN {
            match self.tasks.next() {
                Some(MAIN) => {
                    let done = main();
                    if done.is_some() {
                        return done;
                    }
                }
                Some(id) => self.tasks.run(id),
                None => break,
            }
        }
        None
    }

    fn flush(&self) {
        let wakes = {
            let io = &mut *self.io.borrow_mut();
            io.flush_dirty(!self.spin.pays(&self.clock));
            !io.state.wakes.is_empty()
        };
        if wakes {
            self.wake_noted();
        }
    }

    /// Waits for events and notes what they bring. `until` bounds the wait besides the timers.
    fn wait(&self, until: Option<Instant>) -> Result<()> {
        let (accepted, other) = {
            let mut io = self.io.borrow_mut();
            let until = self.until(&mut io, until)?;
            let waited = io.driver_wait(until);
            self.remote.wake_up(|id| self.tasks.wake_arrived(id));
            waited?;
            self.begin_turn();
            let late = self.late();
            if late.is_some_and(|late| late >= STALL) {
                io.driver_wait(Until::Now)?;
            }
            while let Some(source) = io.state.rung.pop() {
                self.sources.rung(source);
            }
            self.sources.wake_ready(&mut io.state.wakes);
            if late.is_some() {
                self.timers.borrow_mut().fire(self.clock.now(), &mut io.state.wakes);
            }
            if io.state.has_chores() {
                io.take_due();
            }
            let other = self.line_up(&mut io.state);
            (!io.state.accepted.is_empty(), other)
        };
        if let Some(waker) = other {
            self.wake_others(waker);
        }
        if accepted {
            self.start_accepted();
        }
        Ok(())
    }

    /// For how long the first timer has been due, if it is. Where that was long ago, the wait ended
    /// by that timer, or because the process continues, and need not have seen the events that came
    /// before.
    fn late(&self) -> Option<Duration> {
        let due = self.timers.borrow().next_deadline()?;
        let now = self.clock.now();
        // Mostly it isn't, which is quickly seen.
        (due <= now).then(|| now - due)
    }

    fn begin_turn(&self) {
        if !self.spin.is_on() {
            self.clock.begin_turn();
            return;
        }
        let before = self.clock.now();
        self.clock.begin_turn();
        self.spin.waited(before, self.clock.now());
    }

    /// Until when the thread may sleep, once it has watched for a while where that pays.
    fn until(&self, io: &mut Io, until: Option<Instant>) -> Result<Until> {
        if io.driver_has_work() || self.tasks.any_ready() {
            return Ok(Until::Now);
        }
        let mut deadline = sooner(self.timers.borrow().next_deadline(), until);
        if io.state.has_chores() {
            deadline = sooner(deadline, io.state.next_deadline());
        }
        let found = self.spin.pays(&self.clock) && self.watch(io, deadline)?;
        if found || !self.remote.fall_asleep() || !self.sources.park(&mut io.state.wakes) {
            return Ok(Until::Now);
        }
        Ok(deadline.map_or(Until::Forever, Until::Deadline))
    }

    /// Looks for events without sleeping. Returns whether there are any.
    fn watch(&self, io: &mut Io, deadline: Option<Instant>) -> Result<bool> {
        io.driver.submit(&mut io.state)?;
        let found =
            || self.sources.any_ready() || self.remote.is_notified() || io.driver.is_ready();
        Ok(self.spin.watch(deadline, found))
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    #[cold]
    fn start_accepted(&self) {
        let mut accepted = std::mem::take(&mut self.io.borrow_mut().state.accepted);
        for (listener, conn) in accepted.drain(..) {
            let start = self.io.borrow().on_accept(listener);
            let Some((on_accept, task_ends_with_conn)) = start else {
                // The listener was closed in the same turn; so is what it accepted.
                self.io.borrow_mut().close(conn, true);
                continue;
            };
            let task = self.spawn(on_accept(crate::ctx::ConnCtx::new(conn)));
            if task_ends_with_conn && let Some(conn) = self.io.borrow_mut().state.live(conn) {
                conn.rare().task = Some(task);
            }
        }
        let mut io = self.io.borrow_mut();
        if io.state.accepted.is_empty() {
            // Its memory serves again.
            io.state.accepted = accepted;
        }
    }

    /// Puts the tasks of this thread in line that were noted to be woken. Returns the first of
    /// the others: their wakers may run any code, so they are for when nothing is borrowed.
    #[inline]
    fn line_up(&self, state: &mut State) -> Option<Waker> {
        state.wakes.take_tasks(|ids| self.tasks.wake_all(ids));
        state.wakes.next_other()
    }

    /// Wakes `first` and all that are noted after it, while nothing is borrowed.
    fn wake_others(&self, first: Waker) {
        first.wake();
        self.wake_noted();
    }

    #[cold]
    fn wake_noted(&self) {
        while let Some(waker) = self.next_other() {
            waker.wake();
        }
    }

    fn next_other(&self) -> Option<Waker> {
        self.line_up(&mut self.io.borrow_mut().state)
    }

    /// After the end of `main`: closes everything, and waits for what is still to be sent.
    fn drain(&self) {
        let handlers = self.io.borrow().handlers();
        let until = self.io.borrow_mut().close_all();
        drop(handlers);
        self.wake_noted();
        while !self.io.borrow().is_drained() && self.now() < until {
            self.tasks.clear_line();
            self.flush();
            if self.wait(Some(until)).is_err() {
                break;
            }
        }
        self.io.borrow_mut().abandon_all();
        self.wake_noted();
    }
}

/// Spawns a task on this thread's runtime. It runs until it is done or the runtime ends.
///
/// # Panics
/// If no runtime runs on this thread.
#[track_caller]
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    must(|core| core.spawn(Box::pin(future)));
}

/// This turn's reading of the clock, taken when it is first asked for in the turn; the clock
/// itself where no runtime runs.
pub fn now() -> Instant {
    with(Core::now).unwrap_or_else(Instant::now)
}

/// Whether other tasks of this thread's runtime can run, so that [`yield_now`](crate::yield_now) would
/// let them.
pub fn others_can_run() -> bool {
    with(|core| core.tasks.any_ready()).unwrap_or(false)
}

/// Which driver this thread's runtime runs on; never [`Backend::Auto`]. `None` without a runtime.
pub fn backend() -> Option<Backend> {
    with(|core| core.io.borrow().driver.backend())
}

/// Why that driver was chosen, in words, for a status page. Empty without a runtime.
pub fn backend_reason() -> String {
    with(|core| core.reason.clone()).unwrap_or_default()
}

/// How often this thread's runtime has asked the kernel for events; for tests that count.
#[doc(hidden)]
pub fn enters() -> u64 {
    with(|core| core.io.borrow().driver.enters()).unwrap_or(0)
}

/// Resolves when [`ConnCtx::request_shutdown`](crate::ConnCtx::request_shutdown) was called on
/// this thread. A worker of [`Builder::launch`](crate::Builder::launch) ends by itself then; a
/// program's own `main` future awaits this.
pub async fn shutdown_requested() {
    let token = must(|core| core.shutdown.clone());
    token.cancelled().await;
}

/// Runs `work` on the executor for blocking work that the configuration has.
///
/// Dropping the handle lets the work run on. Without a runtime, the handle gives an error.
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> crate::BlockingHandle<T> {
    let executor = with(|core| Arc::clone(&core.config.blocking));
    match executor {
        Some(executor) => crate::blocking::run_on(&*executor, work),
        None => crate::blocking::refused(NetError::NoRuntime),
    }
}

/// Boxes a future for the table of tasks.
pub(crate) fn boxed(future: impl Future<Output = ()> + 'static) -> LocalFuture {
    let boxed: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
    boxed
}
