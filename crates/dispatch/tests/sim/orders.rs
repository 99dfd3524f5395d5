//! What the pool wants done, and how it is done in the simulated world.

use std::time::Duration;

use remuda_dispatch::*;

use super::{Event, World};
use crate::plan::{Job, MS, US, chance, spread};
use crate::worker::{SimWorker, Work};

impl World {
    pub(super) fn actions(&mut self) {
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
