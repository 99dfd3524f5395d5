//! Clients, workers, time and mishaps around a pool.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use remuda_backoff::Rng;
use remuda_dispatch::*;

use crate::check::Checker;
use crate::plan::{Deed, Job, MS, Plan, S, US, chance, spread};
use crate::totals::Totals;
use crate::worker::SimWorker;

mod lives;
mod orders;

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
}
