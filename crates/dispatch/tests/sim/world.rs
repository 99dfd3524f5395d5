//! Clients, workers, time and mishaps around a pool.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use remuda_backoff::Rng;
use remuda_dispatch::*;

use crate::check::Checker;
use crate::plan::{Deed, Job, MS, Plan, S, US, chance, spread};
use crate::totals::Totals;
use crate::worker::{Answer, SimWorker, Work};

/// Longer histories than this never end.
const STEPS_MAX: u32 = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Submit(usize),
    Cancel(usize),
    Starts(WorkerId),
    Crash(WorkerId),
    Arrives(WorkerId, u32),
    Ends(WorkerId, u64),
    Answers(WorkerId, u32),
    Exits(WorkerId),
    LinkLost(WorkerId),
    LinkBack(WorkerId),
    Memory,
    End,
}

pub struct World {
    plan: Plan,
    rng: Rng,
    talk: bool,
    trace: bool,
    now: u64,
    pool: Dispatch<Job, u64>,
    checker: Checker,
    workers: BTreeMap<WorkerId, SimWorker>,
    /// What workers that aren't ordered told the pool.
    capacities: BTreeMap<WorkerId, u32>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    resets: i64,
    most_slots: usize,
    /// The ordered worker that has just gone, under at most once: it may cost one job.
    losses_allowed: Option<u32>,
    drained: bool,
    totals: Totals,
}

impl World {
    pub fn new(seed: u64, talk: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        if talk {
            eprintln!("{plan:#?}");
        }
        let pool = Dispatch::new(plan.config.clone(), rng.next_u64()).unwrap();
        let mut world = World {
            checker: Checker::new(&plan.config),
            most_slots: plan.config.num_workers as usize,
            plan,
            rng,
            talk,
            trace: false,
            now: 0,
            pool,
            workers: BTreeMap::new(),
            capacities: BTreeMap::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            resets: 0,
            losses_allowed: None,
            drained: false,
            totals: Totals::default(),
        };
        for n in 0..world.plan.attached.len() {
            let id = world.pool.attach(Duration::ZERO);
            world.workers.insert(id, SimWorker::new(id, true, world.plan.attached[n]));
            world.after(1, 50 * MS, Event::LinkBack(id));
        }
        world.after(0, 1, Event::Submit(0));
        world.after(MS, 2 * MS, Event::Memory);
        world
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// Something between `min` and `max` later.
    fn after(&mut self, min: u64, max: u64, event: Event) {
        let delay = spread(&mut self.rng, min.max(1), max.max(1));
        self.at(self.now + delay, event);
    }

    /// Keeps a hash of all that the pool wants done.
    pub fn traced(mut self) -> Self {
        self.trace = true;
        self
    }

    pub fn play(mut self) -> Totals {
        for _ in 0..STEPS_MAX {
            self.actions();
            if self.drained {
                return self.epilogue();
            }
            self.checker.settled(self.now, &self.pool, self.most_slots + 2, &self.capacities);
            self.step();
        }
        panic!("the history never ends: {:#?}", self.pool.snapshot(self.now()));
    }

    fn epilogue(mut self) -> Totals {
        self.checker.all_ended();
        assert_eq!(self.resets, 0, "a reset that neither succeeded nor failed");
        for worker in self.workers.values() {
            assert!(worker.attached, "{} is left", worker.id);
        }
        let counters = *self.pool.counters();
        for reason in RestartReason::ALL {
            if counters.restarts(reason) > 0 {
                self.totals.count(format!("restart {}", reason.as_str()));
            }
        }
        assert_eq!(self.pool.snapshot(self.now()).phase, Phase::Drained);
        assert_eq!(self.pool.queued() + self.pool.in_flight(), 0);
        self.totals
    }

    /// Goes on to the next thing that happens. Like an engine, it is sometimes late, and then
    /// reports several events at once.
    fn step(&mut self) {
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        let tick = self.pool.next_tick().map(|at| at.as_nanos() as u64);
        let next = event.into_iter().chain(tick).min().expect("something happens");
        let late = if chance(&mut self.rng, 200) { spread(&mut self.rng, 1, 300 * US) } else { 0 };
        self.now = self.now.max(next) + late;
        while let Some(&Reverse((at, _, event))) = self.events.peek() {
            if at > self.now {
                break;
            }
            self.events.pop();
            self.say(|| format!("{event:?}"));
            self.happens(event);
        }
        if self.pool.next_tick().is_some_and(|at| at <= self.now()) {
            self.pool.tick(self.now());
            let next = self.pool.next_tick();
            assert!(next.is_none_or(|at| at > self.now()), "a tick that changes nothing: {next:?}");
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.talk {
            eprintln!("{:>12} {}", self.now, what());
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Submit(number) => self.submit(number),
            Event::Cancel(number) => {
                if let Some(id) = self.checker.id(number) {
                    self.pool.cancel(self.now(), id);
                }
            }
            Event::Starts(id) => self.starts(id),
            Event::Crash(id) => self.crash(id),
            Event::Arrives(id, link) => self.arrives(id, link),
            Event::Ends(id, token) => self.ends(id, token),
            Event::Answers(id, link) => self.answers(id, link),
            Event::Exits(id) => self.exits(id),
            Event::LinkLost(id) => self.link_lost(id),
            Event::LinkBack(id) => self.link_back(id),
            Event::Memory => self.memory(),
            Event::End => self.end(),
        }
    }

    fn submit(&mut self, number: usize) {
        let (job, mut options, budget) = self.plan.job(&mut self.rng, number);
        options.deadline = (budget > 0).then(|| Duration::from_nanos(self.now + budget));
        let deadline = options.deadline.map_or(u64::MAX, |at| at.as_nanos() as u64);
        match self.pool.submit(self.now(), job, options) {
            Ok(id) => self.checker.accepted(number, id, deadline),
            Err(refused) => {
                self.totals.count(format!("refused {:?}", refused.reason));
                assert_eq!(refused.payload.number, number);
                if refused.reason == RefusedReason::QueueFull {
                    let full = self.pool.queued() >= self.plan.config.max_queue_size;
                    assert!(full, "refused while there is room");
                }
                if refused.reason == RefusedReason::Poisoned {
                    assert_eq!(refused.payload.deed, Deed::Kill, "an innocent body is refused");
                }
            }
        }
        if chance(&mut self.rng, self.plan.cancels) {
            self.after(1, 20 * MS, Event::Cancel(number));
        }
        self.mishaps();
        if number == self.plan.jobs / 2 && chance(&mut self.rng, 100) {
            self.after(1, MS, Event::End);
        }
        if number + 1 < self.plan.jobs {
            let pace = self.rng.between(0, 2 * self.plan.pace);
            self.at(self.now + pace, Event::Submit(number + 1));
        } else {
            self.after(MS, 2 * S, Event::End);
        }
    }

    fn mishaps(&mut self) {
        if chance(&mut self.rng, self.plan.resets) && self.pool.reset(self.now()).is_ok() {
            self.resets += 1;
        }
        if chance(&mut self.rng, self.plan.resizes) {
            let num_workers = self.rng.between(0, 6) as u32;
            self.pool.resize(self.now(), num_workers).unwrap();
            self.most_slots = self.most_slots.max(num_workers as usize);
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            if self.workers[&id].attached && chance(&mut self.rng, self.plan.link_losses / 20) {
                self.after(1, 5 * MS, Event::LinkLost(id));
            }
        }
    }

    fn memory(&mut self) {
        for worker in self.workers.values().filter(|worker| worker.ready && !worker.attached) {
            let bytes = self.rng.between(100, 1200);
            self.pool.memory(Duration::from_nanos(self.now), worker.id, bytes);
        }
        self.after(MS, 10 * MS, Event::Memory);
    }

    fn end(&mut self) {
        if self.plan.stop_now {
            self.pool.stop_now(self.now());
            return;
        }
        let within = Some(Duration::from_nanos(spread(&mut self.rng, MS, 2 * S)));
        let queued = chance(&mut self.rng, 700);
        self.pool.drain(self.now(), Drain { queued, within });
        if chance(&mut self.rng, 200) {
            self.pool.drain(self.now(), Drain { queued: false, within: Some(Duration::ZERO) });
        }
    }

    // What befalls workers.

    fn starts(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.alive) else { return };
        if chance(&mut self.rng, self.plan.start_fails) {
            worker.alive = false;
            self.after(1, US, Event::Exits(id));
            return;
        }
        worker.ready = true;
        let offer = worker.offer;
        self.pool.ready(self.now(), id, offer);
        if !offer.ordered {
            self.capacities.insert(id, offer.capacity);
        }
        if chance(&mut self.rng, self.plan.crashes) {
            self.after(US, S, Event::Crash(id));
        }
    }

    /// A worker dies.
    fn crash(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.alive) else { return };
        worker.alive = false;
        for job in worker.running.drain(..).flat_map(|work| work.jobs) {
            self.checker.stopped_running(job.number);
        }
        let read_by = worker.wire_out_until.max(self.now);
        let delay = spread(&mut self.rng, 1, MS);
        self.at(read_by + delay, Event::Exits(id));
    }

    fn exits(&mut self, id: WorkerId) {
        // What the pool wanted before counts for itself.
        self.actions();
        let Some(worker) = self.workers.remove(&id) else { return };
        assert!(!worker.alive);
        for number in self.checker.held_by(id) {
            if !worker.killed || worker.faulted {
                self.checker.died_under(number);
            }
            self.checker.let_go(number);
        }
        let at_most_once = self.plan.config.delivery == Delivery::AtMostOnce;
        if worker.offer.ordered && at_most_once && !worker.faulted {
            self.losses_allowed = Some(1);
        }
        if worker.ready {
            let exit = if worker.killed { Exit::Signal(9) } else { Exit::Status(1) };
            self.pool.exited(self.now(), id, exit);
        } else {
            self.pool.start_failed(self.now(), id);
        }
        self.actions();
        self.losses_allowed = None;
    }

    fn link_lost(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.ready) else { return };
        (worker.ready, worker.faulted) = (false, false);
        worker.link += 1;
        for job in worker.running.drain(..).flat_map(|work| work.jobs) {
            self.checker.stopped_running(job.number);
        }
        worker.inbox.clear();
        worker.wire_in.clear();
        worker.wire_out.clear();
        for number in self.checker.held_by(id) {
            self.checker.let_go(number);
        }
        self.totals.count("link lost");
        self.pool.exited(self.now(), id, Exit::Unknown);
        self.after(US, 50 * MS, Event::LinkBack(id));
    }

    fn link_back(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        (worker.ready, worker.draining) = (true, false);
        let offer = worker.offer;
        self.pool.ready(self.now(), id, offer);
        if !offer.ordered {
            self.capacities.insert(id, offer.capacity);
        }
    }

    // What workers do.

    fn arrives(&mut self, id: WorkerId, link: u32) {
        let here = |worker: &&mut SimWorker| worker.alive && worker.link == link;
        let Some(worker) = self.workers.get_mut(&id).filter(here) else { return };
        let work = worker.wire_in.pop_front().expect("a call arrives");
        let may_drain = worker.attached && !worker.offer.ordered;
        if may_drain && (worker.draining || chance(&mut self.rng, self.plan.peer_drains)) {
            worker.draining = true;
            let refusal = |_| Reply::Failed { code: Code::Draining, error: 0 };
            let replies = work.jobs.iter().map(refusal).collect();
            self.answer(id, work, replies);
            return;
        }
        worker.inbox.push_back(work);
        if !worker.offer.ordered {
            let calls = worker.inbox.len() + worker.running.len();
            assert!(calls <= worker.offer.capacity.max(1) as usize, "more than it can take");
        }
        self.go_on(id);
    }

    /// A worker starts what it may start.
    fn go_on(&mut self, id: WorkerId) {
        while let Some(work) = self.workers.get_mut(&id).and_then(SimWorker::next_work) {
            for job in &work.jobs {
                self.checker.started(job.number, id);
            }
            match work.course() {
                None => {}
                Some((takes, true)) => self.at(self.now + takes, Event::Crash(id)),
                Some((takes, false)) => self.at(self.now + takes, Event::Ends(id, work.token)),
            }
            self.workers.get_mut(&id).unwrap().running.push(work);
        }
    }

    fn ends(&mut self, id: WorkerId, token: u64) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.alive) else { return };
        let Some(at) = worker.running.iter().position(|work| work.token == token) else { return };
        let work = worker.running.remove(at);
        let replies = work.answers();
        self.answer(id, work, replies);
        self.go_on(id);
    }

    fn answer(&mut self, id: WorkerId, work: Work, mut replies: Vec<Reply<u64>>) {
        let (mut call, mut jobs) = (work.call, Vec::new());
        for job in &work.jobs {
            self.checker.stopped_running(job.number);
            jobs.push(job.number);
        }
        if chance(&mut self.rng, self.plan.faults) {
            if chance(&mut self.rng, 500) {
                call = CallId::from_number(call.number() + (1 << 20));
            } else {
                replies.push(Reply::Done(0));
            }
        }
        let delay = spread(&mut self.rng, US, 50 * US);
        let worker = self.workers.get_mut(&id).unwrap();
        worker.wire_out_until = worker.wire_out_until.max(self.now + delay);
        worker.wire_out.push_back(Answer { call, jobs, replies });
        let (at, link) = (worker.wire_out_until, worker.link);
        self.at(at, Event::Answers(id, link));
    }

    fn answers(&mut self, id: WorkerId, link: u32) {
        let here = |worker: &&mut SimWorker| worker.link == link;
        let Some(worker) = self.workers.get_mut(&id).filter(here) else { return };
        let Answer { call, jobs, replies } = worker.wire_out.pop_front().expect("an answer");
        if worker.faulted {
            assert_eq!(self.pool.replied(self.now(), id, call, replies), Ok(()));
            return;
        }
        // The pool may act on the answer at once: it is told what it means before that.
        let sound = replies.len() == jobs.len() && call.number() >> 20 < 1 << 19;
        let before = self.pool.in_flight();
        match self.pool.replied(self.now(), id, call, replies) {
            // From a peer that the pool has let go meanwhile.
            Ok(()) if self.pool.in_flight() == before => {}
            Ok(()) => {
                assert!(sound, "a false answer was taken");
                jobs.into_iter().for_each(|number| self.checker.let_go(number));
            }
            Err(fault) => {
                let name = format!("{fault:?}");
                let name = name.split(' ').next().unwrap();
                self.totals.count(format!("fault {name}"));
                let worker = self.workers.get_mut(&id).unwrap();
                worker.faulted = true;
                if worker.attached {
                    self.at(self.now, Event::LinkLost(id));
                }
            }
        }
    }

    // What the pool wants done.

    fn actions(&mut self) {
        while let Some(action) = self.pool.poll_action() {
            self.say(|| format!("    {action:?}"));
            if self.trace {
                self.totals.trace(&format!("{action:?}"));
            }
            self.act(action);
        }
    }

    fn act(&mut self, action: Action<Job, u64>) {
        match action {
            Action::Spawn { worker, slot, .. } => {
                assert!((slot as usize) < self.most_slots);
                let offer = self.plan.offers[slot as usize % self.plan.offers.len()];
                self.workers.insert(worker, SimWorker::new(worker, false, offer));
                self.after(US, self.plan.start_takes * 2, Event::Starts(worker));
            }
            Action::Send { worker, call } => self.send(worker, call),
            Action::Cancel { worker, call } => self.tell_cancel(worker, call),
            Action::Stop { worker } => self.stop(worker),
            Action::Kill { worker, reason } => self.kill(worker, reason),
            Action::Finish { job, payload, outcome, facts } => {
                self.finish(job, &payload, &outcome, &facts);
            }
            Action::GiveUp { .. } => self.totals.count("gave up"),
            Action::ResetDone { .. } => {
                self.totals.count("reset done");
                self.resets -= 1;
            }
            Action::ResetFailed { .. } => {
                self.totals.count("reset failed");
                self.resets -= 1;
            }
            Action::Drained => {
                assert!(!self.drained, "drained twice");
                self.drained = true;
            }
        }
    }

    fn send(&mut self, id: WorkerId, call: CallId) {
        let jobs: Vec<Job> = self.pool.call(call).map(|(job, _)| job.clone()).collect();
        assert!(!jobs.is_empty(), "an empty call");
        for job in &jobs {
            self.checker.sent(self.now, job.number, id, jobs.len());
        }
        let delay = spread(&mut self.rng, US, 20 * US);
        let worker = self.workers.get_mut(&id).expect("a worker that exists");
        assert!(worker.ready && !worker.killed, "{id} is sent a job");
        if jobs.len() > 1 {
            assert!(jobs.len() <= worker.offer.batch as usize, "a batch larger than it takes");
            self.totals.count("batch");
        }
        if worker.offer.ordered && !(worker.inbox.is_empty() && worker.running.is_empty()) {
            self.totals.count("handed ahead");
        }
        self.sequence += 1;
        worker.wire_in.push_back(Work { call, jobs, token: self.sequence });
        worker.wire_in_until = worker.wire_in_until.max(self.now + delay);
        let (at, link) = (worker.wire_in_until, worker.link);
        self.at(at, Event::Arrives(id, link));
    }

    fn tell_cancel(&mut self, id: WorkerId, call: CallId) {
        self.totals.count("told to cancel");
        let Some(worker) = self.workers.get_mut(&id) else { return };
        assert!(worker.offer.cancel, "{id} was told to cancel and can't");
        if !worker.alive || chance(&mut self.rng, self.plan.deaf_to_cancel) {
            return;
        }
        if let Some((work, _)) = worker.take(call) {
            let replies = work.jobs.iter();
            let replies =
                replies.map(|_| Reply::Failed { code: Code::Cancelled, error: 0 }).collect();
            self.answer(id, work, replies);
            self.go_on(id);
        }
    }

    fn stop(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.attached {
            let snapshot = self.pool.snapshot(Duration::from_nanos(self.now));
            let mut known = snapshot.workers.iter();
            if known.any(|view| view.worker == id && view.state == WorkerState::Stopping) {
                assert!(worker.draining, "{id} is to be let go, and has refused nothing");
                assert_eq!(self.checker.held_by(id), [], "{id} is to be let go, and has jobs");
                self.totals.count("peer drained");
                self.at(self.now, Event::LinkLost(id));
                return;
            }
            for job in worker.running.drain(..).flat_map(|work| work.jobs) {
                self.checker.stopped_running(job.number);
            }
            for number in self.checker.held_by(id) {
                self.checker.let_go(number);
            }
            self.workers.remove(&id);
            return;
        }
        assert_eq!(self.checker.held_by(id), [], "{id} is to end, and has jobs");
        if !chance(&mut self.rng, self.plan.deaf_to_stop) {
            worker.killed = true;
            self.after(US, MS, Event::Crash(id));
        }
    }

    fn kill(&mut self, id: WorkerId, reason: KillReason) {
        let name = format!("{reason:?}");
        let name = name.split('(').next().unwrap();
        self.totals.count(format!("killed {name}"));
        // It may have gone, and the pool been told, before the pool was asked what to do.
        let Some(worker) = self.workers.get_mut(&id) else { return };
        assert!(!worker.attached, "an attached peer is to be killed");
        worker.killed = true;
        let grace = self.plan.config.destroy_timeout.as_nanos() as u64;
        self.after(US, grace, Event::Crash(id));
    }

    fn finish(&mut self, id: JobId, job: &Job, outcome: &Outcome<u64>, facts: &Facts) {
        self.checker.finished(id, job, outcome, facts);
        let Outcome::Failed { code, cause, .. } = outcome else {
            self.totals.count("done");
            return;
        };
        self.totals.count(format!("failed {code}"));
        if *cause == Cause::Pool(Reason::Overloaded) {
            self.totals.count("overloaded");
        }
        if let Some(left) = self.losses_allowed.as_mut().filter(|_| *code == Code::WorkerLost) {
            assert!(*left > 0, "an ordered worker's end cost more than one job");
            *left -= 1;
        }
    }
}
