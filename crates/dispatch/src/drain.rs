//! How the pool ends.

use crate::deadline::{NEVER, limit};
use crate::dispatch::{Dispatch, Drain};
use crate::slab::NONE;
use crate::{Action, Exit, KillReason, Payload, Phase, Reason};

impl<J: Payload, R> Dispatch<J, R> {
    pub(crate) fn begin_drain(&mut self, drain: Drain) {
        if matches!(self.phase, Phase::Stopping | Phase::Drained) {
            return;
        }
        self.phase = Phase::Draining;
        self.stop_replacing();
        self.drain_by = self.drain_by.min(match limit(drain.within) {
            NEVER => NEVER,
            within => self.now.saturating_add(within),
        });
        if !drain.queued {
            self.drop_queued = true;
            self.end_queue(Reason::Draining);
        }
    }

    /// Ends everything at once. `reason` is for the jobs in the queue.
    pub(crate) fn stop_all(&mut self, reason: Reason) {
        if matches!(self.phase, Phase::Stopping | Phase::Drained) {
            return;
        }
        self.phase = Phase::Stopping;
        self.drain_by = NEVER;
        self.stop_replacing();
        self.end_queue(reason);
        self.end_workers();
    }

    fn end_queue(&mut self, reason: Reason) {
        while self.queue.first != NONE {
            self.end_queued(self.queue.first, reason);
        }
    }

    /// Kills what runs, and stops what does not.
    fn end_workers(&mut self) {
        for worker in 0..self.workers.end() {
            let Some(w) = self.workers.get(worker) else { continue };
            if w.is_attached() {
                self.release(worker);
            } else if w.calls > 0 || !w.is_ready() || self.phase == Phase::Stopping {
                if w.stage != crate::worker::Stage::Stopping || self.phase == Phase::Stopping {
                    self.kill(worker, KillReason::Stopped);
                }
            } else {
                self.retire(worker, None);
            }
        }
    }

    /// Lets an attached peer go: its link is closed.
    fn release(&mut self, worker: u32) {
        let mut call = self.workers[worker].first_call;
        while call != NONE {
            self.tell_cancel(call);
            call = self.calls[call].next;
        }
        let id = self.worker_id(worker);
        self.actions.push_back(Action::Stop { worker: id });
        self.worker_gone(worker, Exit::Unknown);
        self.workers.free(worker);
    }

    /// When all jobs have ended, so do the workers; when these are gone, so is the pool.
    pub(crate) fn wind_down(&mut self) {
        if matches!(self.phase, Phase::Running | Phase::Drained) || self.live > 0 {
            return;
        }
        if self.phase == Phase::Draining {
            self.end_workers();
        }
        if self.workers.is_empty() {
            self.phase = Phase::Drained;
            self.drain_by = NEVER;
            self.actions.push_back(Action::Drained);
        }
    }
}
