//! A pool, as the program that it is part of uses it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use remuda_dispatch::{Drain, JobOptions, RefusedReason, ResetRefused, Snapshot};
use remuda_net::{Either, ReadyFd};

use crate::config::{PoolConfig, WorkerKind};
use crate::core::Core;
use crate::error::PoolError;
use crate::front::limits::watch_every;
use crate::history::Incident;
use crate::job::{Body, Job, Origin};
use crate::keeper::{Event, Keeper};
use crate::link::attached::{self, Attached};
use crate::local::Finished;

/// A pool of warm workers, on the runtime of the thread that started it. It is not `Send`; clones
/// are handles of the same pool.
#[derive(Clone)]
pub struct Pool(pub(crate) Rc<Inner>);

/// What the handles share.
pub(crate) struct Inner {
    pub(crate) core: RefCell<Core>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// A job to be run.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// A number of the program's own, by which it knows the job again.
    pub number: u64,
    /// The body: plain text, or JSON that was checked.
    pub body: Bytes,
    /// Whether it is plain text. It must be UTF-8 unless the workers are filters.
    pub text: bool,
}

impl Pool {
    /// Starts a pool: its keeper, then its workers. Called on a thread of the runtime.
    ///
    /// # Errors
    /// Options that don't fit together, or a keeper that can't be started. A worker that can't be
    /// started is no error here: it is tried again, as the configuration says.
    pub fn start(config: PoolConfig) -> Result<Self, PoolError> {
        for address in &config.attach {
            attached::check(address)?;
        }
        let keeper = match config.kind.has_processes() {
            false => None,
            true => Some(Keeper::start(config.keeper.clone(), config.keeper_options.clone())?),
        };
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        let core = Core::new(config, keeper, seed)?;
        let pool = Self(Rc::new(Inner { core: RefCell::new(core) }));
        pool.0.core.borrow_mut().me = Rc::downgrade(&pool.0);
        remuda_net::spawn(keep_time(Rc::downgrade(&pool.0)));
        let every = watch_every(&pool.0.core.borrow().config);
        remuda_net::spawn(watch_clients(Rc::downgrade(&pool.0), every));
        let tick = pool.0.core.borrow().config.watch_tick;
        remuda_net::spawn(watch_usage(Rc::downgrade(&pool.0), tick));
        if let Some(keeper) = &pool.0.core.borrow().keeper {
            let readable = ReadyFd::readable(keeper).map_err(|error| {
                let source = std::io::Error::other(error);
                PoolError::Keeper(crate::keeper::KeeperError::Unreachable { source })
            })?;
            remuda_net::spawn(hear_keeper(Rc::downgrade(&pool.0), readable));
            if let Ok(guardian) = keeper.guardian() {
                remuda_net::spawn(reap_guardian(Rc::downgrade(&pool.0), guardian));
            }
        }
        pool.attach_all()?;
        pool.0.core.borrow_mut().tick();
        Ok(pool)
    }

    fn attach_all(&self) -> Result<(), PoolError> {
        let core = &mut *self.0.core.borrow_mut();
        for address in core.config.attach.clone() {
            let token = match &address.access().token_file {
                Some(path) => Some(crate::front::bind::read_token(path)?),
                None => std::env::var("REMUDA_TOKEN").ok().filter(|token| !token.is_empty()),
            };
            let attached = Attached::new(&self.0, core, address, token);
            core.peers.push(attached.peer());
            remuda_net::spawn(attached::keep(attached));
        }
        Ok(())
    }

    /// Hands in a job. It is sent to a worker when [`Pool::flush`] is called, or anything else
    /// happens in the pool: jobs that are handed in together can travel together.
    ///
    /// # Errors
    /// The job is not accepted: the queue is full, the pool drains, or the body is in quarantine.
    pub fn submit(&self, job: NewJob) -> Result<(), RefusedReason> {
        let core = &mut *self.0.core.borrow_mut();
        let now = core.now();
        let origin = Origin::Local { number: job.number, text: job.text };
        let job = Job { body: Body::Shared(job.body), origin };
        let options = JobOptions::default();
        core.dispatch.submit(now, job, options).map(|_| ()).map_err(|refused| refused.reason)
    }

    /// Sends out what was handed in.
    pub fn flush(&self) {
        self.0.core.borrow_mut().carry_out(&[]);
    }

    /// Has so many workers, if there are fewer, but no more than the configuration's `num_workers`:
    /// for a pool that was started with fewer, by [`PoolConfig::workers_at_start`].
    ///
    /// # Errors
    /// None that a configuration gives that a pool was started with.
    pub fn want_workers(&self, workers: u32) -> Result<(), PoolError> {
        let core = &mut *self.0.core.borrow_mut();
        let now = core.now();
        let workers = workers.min(core.config.dispatch.num_workers);
        if workers > core.dispatch.config().num_workers {
            core.dispatch.resize(now, workers)?;
            core.carry_out(&[]);
        }
        Ok(())
    }

    /// Waits until jobs have ended and takes them all, or until the pool has drained: then nothing
    /// more comes, and it gives false. Cancel-safe: what is not taken stays.
    ///
    /// # Errors
    /// The pool can't go on.
    pub async fn finished(&self, into: &mut Finished) -> Result<bool, PoolError> {
        poll_fn(|context| {
            let core = &mut *self.0.core.borrow_mut();
            if let Some(error) = core.fatal.take() {
                return Poll::Ready(Err(error));
            }
            match core.local.poll(context.waker(), into) {
                Poll::Ready(()) => Poll::Ready(Ok(true)),
                Poll::Pending if core.drained => Poll::Ready(Ok(false)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Finishes what was accepted, within `destroy_timeout`, and ends; new jobs get `draining`.
    pub fn shut_down(&self) {
        let core = &mut *self.0.core.borrow_mut();
        core.drain_all();
        core.carry_out(&[]);
    }

    /// Waits until the pool has drained.
    ///
    /// # Errors
    /// The pool can't go on.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn drained(&self) -> Result<(), PoolError> {
        poll_fn(|context| self.0.core.borrow_mut().poll_drained(context.waker())).await
    }

    /// Takes another configuration: what workers are holds from their next start, limits at once.
    /// The keeper and the limits of bodies stay as they are.
    ///
    /// # Errors
    /// Options that don't fit together: nothing is changed then.
    pub fn configure(&self, config: PoolConfig) -> Result<(), PoolError> {
        let core = &mut *self.0.core.borrow_mut();
        let now = core.now();
        core.dispatch.configure(now, config.dispatch.clone())?;
        core.config.dispatch = config.dispatch;
        core.config.worker_spin = config.worker_spin;
        core.carry_out(&[]);
        core.next_kind = Some(config.kind);
        Ok(())
    }

    /// Replaces all workers, one after the other, without a gap. How it ends is logged.
    ///
    /// # Errors
    /// A reset is going on, or the pool drains.
    pub fn reset(&self) -> Result<(), ResetRefused> {
        let core = &mut *self.0.core.borrow_mut();
        core.begin_reset()?;
        core.carry_out(&[]);
        Ok(())
    }

    /// Waits until a client asks for a reset; answer by [`Pool::reset`] or [`Pool::refuse_reset`].
    ///
    /// # Cancel safety
    /// Cancel safe: a wish that comes when the future was dropped is kept for the next one.
    pub async fn reset_wanted(&self) {
        poll_fn(|context| self.0.core.borrow_mut().poll_reset_wanted(context.waker())).await;
    }

    /// Tells clients who asked for a reset why none begins.
    pub fn refuse_reset(&self, why: &str) {
        self.0.core.borrow_mut().refuse_resets(remuda_protocol::Code::Internal, why);
    }

    /// The pool at this moment, as the `status` request gives it.
    pub fn status(&self) -> serde_json::Value {
        self.0.core.borrow_mut().status()
    }

    /// How many jobs would be accepted now.
    pub fn room(&self) -> usize {
        self.0.core.borrow().dispatch.room()
    }

    /// Whether the workers take plain text that isn't UTF-8, but no line breaks.
    pub fn takes_bytes(&self) -> bool {
        matches!(self.0.core.borrow().config.kind, WorkerKind::Filter { .. })
    }

    /// Accepts no more jobs, and ends once those that it has are done.
    pub fn drain(&self, drain: Drain) {
        let core = &mut *self.0.core.borrow_mut();
        let now = core.now();
        core.dispatch.drain(now, drain);
        core.carry_out(&[]);
    }

    /// Kills the workers, and ends.
    pub fn stop_now(&self) {
        let core = &mut *self.0.core.borrow_mut();
        let now = core.now();
        core.dispatch.stop_now(now);
        core.carry_out(&[]);
    }

    /// Waits until the pool is in some state. It is looked at after everything that happens, so
    /// it is for waits that end soon: the first worker, the end of a reset. Cancel-safe.
    pub async fn until(&self, is: impl Fn(&Snapshot) -> bool) {
        poll_fn(|context| {
            if is(&self.snapshot()) {
                return Poll::Ready(());
            }
            self.0.core.borrow_mut().watchers.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The pool at this moment. It allocates: it is for a person's eyes.
    pub fn snapshot(&self) -> Snapshot {
        let core = self.0.core.borrow();
        core.dispatch.snapshot(core.now())
    }

    /// How many workers have a job, and how many there are.
    pub fn busy(&self) -> (usize, usize) {
        use remuda_dispatch::WorkerState;
        let snapshot = self.snapshot();
        let busy = |worker: &&remuda_dispatch::WorkerView| worker.state == WorkerState::Busy;
        (snapshot.workers.iter().filter(busy).count(), snapshot.workers.len())
    }

    /// The last exits and failures, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        self.0.core.borrow().history.incidents().cloned().collect()
    }
}

/// Wakes the dispatch when it wants to be woken.
async fn keep_time(pool: Weak<Inner>) {
    loop {
        let Some(inner) = pool.upgrade() else { return };
        let (due, changed) = {
            let core = &mut *inner.core.borrow_mut();
            (core.arm().map(|at| core.instant(at)), core.timer_changed())
        };
        drop(inner);
        let due = async {
            match due {
                Some(at) => remuda_net::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        if let Either::First(()) = remuda_net::select(due, changed.notified()).await
            && let Some(inner) = pool.upgrade()
        {
            inner.core.borrow_mut().tick();
        }
    }
}

/// Looks after clients that are too slow.
async fn watch_clients(pool: Weak<Inner>, every: Duration) {
    loop {
        remuda_net::sleep(every).await;
        let Some(inner) = pool.upgrade() else { return };
        inner.core.borrow_mut().watch_clients();
    }
}

/// Looks what the workers use.
async fn watch_usage(pool: Weak<Inner>, tick: Duration) {
    loop {
        remuda_net::sleep(tick).await;
        let Some(inner) = pool.upgrade() else { return };
        inner.core.borrow_mut().sample_usage();
    }
}

/// Leaves no zombie of a guardian that was killed.
async fn reap_guardian(pool: Weak<Inner>, guardian: OwnedFd) {
    let _ = remuda_net::child_exited(&guardian).await;
    let Some(inner) = pool.upgrade() else { return };
    if let Some(keeper) = &mut inner.core.borrow_mut().keeper {
        keeper.reap_guardian();
    }
}

/// Takes in what the keeper tells. Nothing is opened for that: it tells of those that end when
/// there is no descriptor left, and by their end some come free.
async fn hear_keeper(pool: Weak<Inner>, socket: ReadyFd) {
    loop {
        let readable = socket.ready().await;
        let Some(inner) = pool.upgrade() else { return };
        let core = &mut *inner.core.borrow_mut();
        let Some(keeper) = &mut core.keeper else { return };
        match keeper.events() {
            Ok(events) => {
                for event in events {
                    let lost = matches!(event, Event::Lost);
                    core.keeper_event(event);
                    if lost {
                        return;
                    }
                }
            }
            Err(error) => {
                core.fail(PoolError::Keeper(error));
                return;
            }
        }
        if readable.is_err() {
            return;
        }
    }
}
