//! The lives of the workers and peers around a pool: they start, get calls, answer them, and end.

use remuda_dispatch::*;

use super::{Event, World};
use crate::plan::{MS, S, US, chance, spread};
use crate::worker::{Answer, SimWorker, Work};

impl World {
    pub(super) fn starts(&mut self, id: WorkerId) {
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
    pub(super) fn crash(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.alive) else { return };
        worker.alive = false;
        for job in worker.running.drain(..).flat_map(|work| work.jobs) {
            self.checker.stopped_running(job.number);
        }
        let read_by = worker.wire_out_until.max(self.now);
        let delay = spread(&mut self.rng, 1, MS);
        self.at(read_by + delay, Event::Exits(id));
    }

    pub(super) fn exits(&mut self, id: WorkerId) {
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

    pub(super) fn link_lost(&mut self, id: WorkerId) {
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

    pub(super) fn link_back(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        (worker.ready, worker.draining) = (true, false);
        let offer = worker.offer;
        self.pool.ready(self.now(), id, offer);
        if !offer.ordered {
            self.capacities.insert(id, offer.capacity);
        }
    }

    pub(super) fn arrives(&mut self, id: WorkerId, link: u32) {
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
    pub(super) fn go_on(&mut self, id: WorkerId) {
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

    pub(super) fn ends(&mut self, id: WorkerId, token: u64) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.alive) else { return };
        let Some(at) = worker.running.iter().position(|work| work.token == token) else { return };
        let work = worker.running.remove(at);
        let replies = work.answers();
        self.answer(id, work, replies);
        self.go_on(id);
    }

    pub(super) fn answer(&mut self, id: WorkerId, work: Work, mut replies: Vec<Reply<u64>>) {
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

    pub(super) fn answers(&mut self, id: WorkerId, link: u32) {
        let here = |worker: &&mut SimWorker| worker.link == link;
        let Some(worker) = self.workers.get_mut(&id).filter(here) else { return };
        let Answer { call, jobs, replies } = worker.wire_out.pop_front().expect("an answer");
        if worker.faulted {
            assert_eq!(self.pool.replied(self.now(), id, call, replies), Ok(()));
            return;
        }
        // The pool may act on the answer at once: it is told what it means before that. A false
        // number is one of a place's calls that is far from coming.
        let sound = replies.len() == jobs.len() && call.number() & u64::from(u32::MAX) < 1 << 20;
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
}
