//! The state of a pool, and the one place where what the dispatch wants is carried out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remuda_dispatch::{
    Action, CallId, Cause, Dispatch, Exit, Facts, KillReason, Outcome, Reason, WorkerId,
};
use remuda_net::Notifier;

use crate::config::{KILL_GRACE, PoolConfig, WorkerKind};
use crate::error::PoolError;
use crate::front::admin::ResetWaiter;
use crate::front::listener::Listening;
use crate::front::{ClientKey, Clients};
use crate::history::{History, Incident, LostJob};
use crate::job::{Answer, Bodies, Body, Form, Job, Origin};
use crate::keeper::{Keeper, Scope, Signal};
use crate::link::attached::Peer;
use crate::link::thread::Threads;
use crate::link::{Links, Transport};
use crate::local::{Ended, Failed, Local};
use crate::pool::Inner;
use crate::remote::RemoteJobs;
use crate::timings::Timings;
use crate::usage::Usage;

/// What calls begin with, as clients mostly write them.
const CALL_BEGINS: &[u8] = b"{\"op\":\"call\"";
/// Peers that sleep are woken ahead of lines up to this length.
const AHEAD_BYTES: usize = 512;

/// All that a pool knows.
pub(crate) struct Core {
    pub(crate) dispatch: Dispatch<Job, Answer>,
    pub(crate) config: PoolConfig,
    pub(crate) links: Links,
    /// Where the peers are that the pool is attached to, whether or not there is a link.
    pub(crate) peers: Vec<Peer>,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) threads: Rc<Threads>,
    pub(crate) local: Local,
    pub(crate) history: History,
    pub(crate) clients: Clients,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) reset_waiters: Vec<ResetWaiter>,
    pub(crate) reset_wanted: Option<Waker>,
    /// What workers are, by the generation from which on they are it.
    pub(crate) kinds: BTreeMap<u32, WorkerKind>,
    /// What they will be from the next reset on.
    pub(crate) next_kind: Option<WorkerKind>,
    pub(crate) bodies: Bodies,
    pub(crate) remote_jobs: RemoteJobs,
    /// Bytes of the bodies that clients sent and that have not ended.
    pub(crate) bodies_bytes: usize,
    /// Bytes of lines that have no end yet, and how many clients are not read because of it.
    pub(crate) unfinished: usize,
    pub(crate) paused: usize,
    /// Descriptors that are kept for what the program does beside the pool.
    pub(crate) kept_descriptors: usize,
    /// The client that is read however much there is of such lines.
    pub(crate) favoured: Option<ClientKey>,
    pub(crate) counters: Counted,
    pub(crate) timings: Timings,
    /// By which a pool knows itself again.
    pub(crate) instance: String,
    is_drained: Option<Waker>,
    /// Who waits for the pool to be in some state.
    pub(crate) watchers: Vec<Waker>,
    /// Why the pool ended before its time.
    pub(crate) fatal: Option<PoolError>,
    pub(crate) drained: bool,
    /// Messages are written here before they go out.
    pub(crate) scratch: Vec<u8>,
    /// The line that is being read, if its memory may be kept by what is made of it.
    pub(crate) line: Option<Bytes>,
    /// Workers that calls are gathered for, until all that is there was handed out: one message in
    /// a ring holds many, and one that is woken by the first of its calls would mostly sleep again
    /// before the next.
    pub(crate) called: Vec<WorkerId>,
    /// Clients that answers are gathered for, likewise.
    pub(crate) answered: Vec<ClientKey>,
    /// What clients sent, as far as it is in the dispatch.
    pub(crate) handing_out: HandingOut,
    /// For the tasks that it spawns.
    pub(crate) me: Weak<Inner>,
    next_number: u64,
    origin: Instant,
    /// What `now` gave last, and for which moment: each turn asks for it many times.
    last_now: Cell<(Instant, Duration)>,
    timer: Timer,
}

/// How far what clients sent was handed out. Where several connections have something at once, all
/// of it is taken in before any of it is handed out: the code of each fits the processor's cache,
/// and that of both together does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandingOut {
    /// Nothing waits.
    Done,
    /// Whoever read last sees to it.
    Due,
    /// One has done so, and lets the others read before.
    Awaited,
}

/// When the dispatch wants to be woken.
pub(crate) struct Timer {
    /// Told when that is earlier than it was.
    pub(crate) changed: Notifier,
    armed: Option<Duration>,
}

impl Core {
    pub(crate) fn new(
        config: PoolConfig,
        keeper: Option<Keeper>,
        seed: u64,
    ) -> Result<Self, PoolError> {
        let origin = remuda_net::now();
        let all = config.dispatch.num_workers;
        let num_workers = config.workers_at_start.map_or(all, |workers| workers.min(all));
        let started = remuda_dispatch::Config { num_workers, ..config.dispatch.clone() };
        Ok(Self {
            dispatch: Dispatch::new(started, seed)?,
            links: Links::default(),
            peers: Vec::new(),
            keeper,
            threads: Threads::new(),
            local: Local::default(),
            history: History::default(),
            clients: Clients::default(),
            listeners: Vec::new(),
            reset_waiters: Vec::new(),
            reset_wanted: None,
            kinds: BTreeMap::from([(0, config.kind.clone())]),
            next_kind: None,
            bodies: Bodies::default(),
            remote_jobs: RemoteJobs::default(),
            bodies_bytes: 0,
            unfinished: 0,
            paused: 0,
            kept_descriptors: 0,
            favoured: None,
            counters: Counted::default(),
            timings: Timings::new(),
            instance: format!("{seed:016x}"),
            is_drained: None,
            watchers: Vec::new(),
            fatal: None,
            drained: false,
            scratch: Vec::new(),
            line: None,
            called: Vec::new(),
            answered: Vec::new(),
            handing_out: HandingOut::Done,
            me: Weak::new(),
            next_number: 1,
            origin,
            last_now: Cell::new((origin, Duration::ZERO)),
            timer: Timer { changed: Notifier::new(), armed: None },
            config,
        })
    }

    /// A number for another worker.
    pub(crate) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// The time since the pool's start, as of this turn of the runtime.
    pub(crate) fn now(&self) -> Duration {
        let at = remuda_net::now();
        let (last, since) = self.last_now.get();
        if at == last {
            return since;
        }
        let since = at.saturating_duration_since(self.origin);
        self.last_now.set((at, since));
        since
    }

    /// A moment of the pool's time as the runtime counts it.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.origin + at
    }

    pub(crate) fn timer_changed(&self) -> Notifier {
        self.timer.changed.clone()
    }

    /// When the dispatch wants to be woken; from here on, an earlier wish is told of.
    pub(crate) fn arm(&mut self) -> Option<Duration> {
        self.timer.armed = self.dispatch.next_tick();
        self.timer.armed
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self) {
        let now = self.now();
        self.dispatch.tick(now);
        self.carry_out(&[]);
    }

    /// Carries out what the dispatch wants. `line` is what is being read: answers are parts of it.
    pub(crate) fn carry_out(&mut self, line: &[u8]) {
        self.handing_out = HandingOut::Done;
        while let Some(action) = self.dispatch.poll_action() {
            self.carry_out_one(action, line);
        }
        self.send_gathered();
        self.local.wake_if_any();
        if !self.watchers.is_empty() {
            self.watchers.drain(..).for_each(Waker::wake);
        }
        let next = self.dispatch.next_tick();
        if next.is_some_and(|next| self.timer.armed.is_none_or(|armed| next < armed)) {
            self.timer.armed = next;
            self.timer.changed.notify();
        }
    }

    /// Carries out what the dispatch wants because of `line`, one of several that have come.
    /// [`carry_out`](Self::carry_out) is due behind the last of them: jobs are handed out there, to
    /// whom they go by all answers, and by code that then stays in the processor's cache.
    pub(crate) fn carry_out_of_line(&mut self, line: &[u8]) {
        while let Some(action) = self.dispatch.poll_outcome() {
            self.carry_out_one(action, line);
        }
    }

    #[inline]
    fn carry_out_one(&mut self, action: Action<Job, Answer>, line: &[u8]) {
        match action {
            Action::Send { worker, call } => self.send(worker, call),
            Action::Finish { payload, outcome, facts, .. } => {
                self.finish(payload, &outcome, facts, line);
            }
            of_worker => self.carry_out_of_worker(of_worker),
        }
    }

    /// Carries out what comes with workers and not with each job. Apart from the rest: where a
    /// thread has just been woken, it pays for each line of code that it has to fetch.
    #[cold]
    fn carry_out_of_worker(&mut self, action: Action<Job, Answer>) {
        match action {
            // What comes with each job.
            Action::Send { .. } | Action::Finish { .. } => {}
            Action::Cancel { worker, call } => self.cancel(worker, call),
            Action::Spawn { worker, slot, generation } => {
                self.start_worker(worker, slot, generation);
            }
            Action::Stop { worker } => self.stop_worker(worker),
            Action::Kill { worker, reason } => self.kill_worker(worker, reason),
            Action::GiveUp { starts } => self.give_up(starts),
            Action::ResetDone { generation } => self.reset_ended(generation, None),
            Action::ResetFailed { generation, worker, .. } => {
                let why = match worker {
                    Some(worker) => self.history.why_not_ready(self.links.of(worker)),
                    None => "the pool began to drain".to_owned(),
                };
                self.reset_ended(generation, Some(why));
            }
            Action::Drained => {
                self.drained = true;
                self.local.wake();
                if let Some(waiting) = self.is_drained.take() {
                    waiting.wake();
                }
            }
        }
    }

    /// The pool can't go on.
    pub(crate) fn fail(&mut self, error: PoolError) {
        self.fatal.get_or_insert(error);
        self.local.wake();
        if let Some(waiting) = self.is_drained.take() {
            waiting.wake();
        }
    }

    fn give_up(&mut self, starts: u32) {
        let why = self.history.last_failed_start();
        self.fail(PoolError::NoWorker { starts, why });
    }

    /// Ready once the pool has drained, or can't go on.
    pub(crate) fn poll_drained(&mut self, waker: &Waker) -> Poll<Result<(), PoolError>> {
        if let Some(error) = self.fatal.take() {
            return Poll::Ready(Err(error));
        }
        if self.drained {
            return Poll::Ready(Ok(()));
        }
        self.is_drained = Some(waker.clone());
        Poll::Pending
    }

    fn finish(&mut self, job: Job, outcome: &Outcome<Answer>, facts: Facts, line: &[u8]) {
        if let Outcome::Failed { cause: Cause::Pool(Reason::ExecTimeout), .. } = outcome
            && let Some(link) = facts.worker.and_then(|worker| self.links.of(worker))
        {
            link.overdue = Some(LostJob::of(&job, Some(facts.ran())));
        }
        match job.origin {
            Origin::Client { .. } => {
                self.finish_client(&job.origin, outcome, line);
                self.bodies_bytes -= job.body.len();
                self.bodies.take_back(job.body);
            }
            Origin::Local { number, .. } => {
                self.finish_local(number, job.body, outcome, facts, line)
            }
            Origin::Remote { number, reply } => {
                self.finish_remote(number, reply, job.body.len(), outcome, line);
            }
        }
        if facts.started_at().is_some() {
            self.timings.record(facts.waited(), facts.ran());
        }
    }

    #[inline(never)]
    fn finish_local(
        &mut self,
        number: u64,
        body: Body,
        outcome: &Outcome<Answer>,
        facts: Facts,
        line: &[u8],
    ) {
        let ended = match outcome {
            Outcome::Done(answer) => Ended::Done(answer.body.bytes(line), answer.form),
            Outcome::Failed { code, cause, may_have_run } => {
                let mut failed = failed(*code, cause, *may_have_run, line);
                if let Cause::Pool(Reason::Poisoned(_)) = cause {
                    failed.message.push_str(&self.history.last_death());
                }
                Ended::Failed(Box::new(failed))
            }
        };
        let body = match body {
            Body::Shared(bytes) => bytes,
            Body::Own(bytes) => bytes.into(),
        };
        self.local.push(number, body, ended, facts);
    }

    fn send(&mut self, worker: WorkerId, call: CallId) {
        let Some(link) = self.links.of(worker) else { return };
        if link.send(&self.dispatch, call, &mut self.scratch) {
            self.called.push(worker);
        }
    }

    /// Sends what was gathered, and so wakes workers and clients that sleep: once for all.
    pub(crate) fn send_gathered(&mut self) {
        for place in 0..self.called.len() {
            if let Some(link) = self.links.of(self.called[place]) {
                link.send_gathered();
            }
        }
        self.called.clear();
        for place in 0..self.answered.len() {
            if let Some(client) = self.clients.of(self.answered[place]) {
                client.send_gathered();
            }
        }
        self.answered.clear();
    }

    /// A client sent `bytes`: if that is one call, the worker that it will go to wakes up while it is
    /// read, queued and written.
    pub(crate) fn wake_worker_ahead(&mut self, bytes: &[u8]) {
        if self.links.any_over_rings
            && is_short_line(bytes)
            && bytes.starts_with(CALL_BEGINS)
            && let Some(worker) = self.dispatch.next_idle()
            && let Some(link) = self.links.of(worker)
            && let Transport::Process(process) = &link.transport
        {
            process.wake_ahead();
        }
    }

    /// Likewise with the client that waits for what a worker has answered.
    pub(crate) fn wake_client_ahead(&mut self, worker: WorkerId, bytes: &[u8]) {
        if self.clients.any_over_rings()
            && is_short_line(bytes)
            && let Some(job) = self.dispatch.jobs_of(worker).next()
            && let Origin::Client { client, .. } = &job.origin
            && let Some(client) = self.clients.of(*client)
        {
            client.wire.wake_ahead();
        }
    }

    fn cancel(&mut self, worker: WorkerId, call: CallId) {
        let Some(link) = self.links.of(worker) else { return };
        link.cancel(call, &mut self.scratch);
    }

    fn stop_worker(&mut self, worker: WorkerId) {
        if let Some(link) = self.links.of(worker) {
            link.stop();
        }
    }

    fn kill_worker(&mut self, worker: WorkerId, reason: KillReason) {
        let Some(link) = self.links.of(worker) else { return };
        link.killed = Some(reason);
        if let Transport::Thread(_) = link.transport {
            self.leave_thread(worker);
            return;
        }
        if reason == KillReason::Stopped {
            self.signal(worker, Signal::Kill);
            return;
        }
        self.signal(worker, Signal::Terminate);
        let grace = KILL_GRACE.min(self.config.dispatch.destroy_timeout);
        let me = self.me.clone();
        remuda_net::spawn(async move {
            remuda_net::sleep(grace).await;
            if let Some(pool) = me.upgrade() {
                pool.core.borrow_mut().signal(worker, Signal::Kill);
            }
        });
    }

    /// Looks what the workers use.
    pub(crate) fn sample_usage(&mut self) {
        let now = self.now();
        for link in self.links.iter_mut().filter(|link| link.ready) {
            if let Some(usage) = link.pid.and_then(Usage::of) {
                link.load.sample(now, usage.cpu);
                self.dispatch.memory(now, link.worker, usage.memory);
            }
        }
        self.carry_out(&[]);
    }

    /// Signals a worker and all that descends from it. One that is gone is left alone.
    pub(crate) fn signal(&mut self, worker: WorkerId, signal: Signal) {
        let Some(link) = self.links.of(worker) else { return };
        let number = link.number;
        if let Some(keeper) = &mut self.keeper
            && let Err(error) = keeper.signal(number, signal, Scope::Tree)
        {
            self.fail(PoolError::Keeper(error));
        }
    }

    /// The worker is gone and its socket was read to the end.
    pub(crate) fn worker_gone(&mut self, worker: WorkerId) {
        self.read_log(worker);
        let Some(mut link) = self.links.remove(worker) else { return };
        let now = self.now();
        let exit = link.exit.unwrap_or(Exit::Unknown);
        let wrong = link.ready.then(|| self.wrong_filter(&link, exit)).flatten();
        link.trouble = link.trouble.or_else(|| wrong.clone());
        let mut incident = Incident::of(&link, exit, now);
        incident.take_note(&self.dispatch, worker);
        self.history.record(incident);
        if link.ready {
            self.dispatch.exited(now, worker, exit);
            if self.config.stop_at_wrong_filter
                && let Some(wrong) = wrong
            {
                self.fail(PoolError::Filter(wrong));
            }
        } else {
            self.dispatch.start_failed(now, worker);
            self.end_if_hopeless(&link, exit);
        }
        self.carry_out(&[]);
    }
}

/// What the engine itself counts.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Connections that were accepted.
    pub(crate) connections: u64,
}

/// Whether it takes no longer to pass on than a peer to wake up.
fn is_short_line(bytes: &[u8]) -> bool {
    bytes.len() <= AHEAD_BYTES && bytes.ends_with(b"\n")
}

/// Why a job failed, in words.
pub(crate) fn failed(
    code: remuda_dispatch::Code,
    cause: &Cause<Answer>,
    may_have_run: bool,
    line: &[u8],
) -> Failed {
    match cause {
        Cause::Peer(answer) => Failed {
            code,
            message: words(answer.body.bytes(line), answer.form),
            traceback: answer.traceback.map(|traceback| words(traceback.bytes(line), Form::Json)),
            signal: None,
            may_have_run,
            stopped: false,
        },
        Cause::Pool(reason) => Failed {
            code,
            message: reason.to_string(),
            traceback: None,
            signal: match reason {
                Reason::WorkerLost(Exit::Signal(signal)) => Some(*signal),
                _ => None,
            },
            may_have_run,
            stopped: matches!(reason, Reason::Draining | Reason::Stopped),
        },
    }
}

/// A message as text: a JSON string, or plain bytes.
fn words(bytes: &[u8], form: Form) -> String {
    let text = String::from_utf8_lossy(bytes);
    match form {
        Form::Json => remuda_protocol::unescape(&text)
            .map_or_else(|_| text.clone().into_owned(), std::borrow::Cow::into_owned),
        Form::Text => text.into_owned(),
    }
}
