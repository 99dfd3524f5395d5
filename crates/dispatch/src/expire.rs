//! Jobs whose time is over, and jobs that are no longer wanted.

use crate::deadline::NEVER;
use crate::dispatch::Dispatch;
use crate::overload::wait_limit;
use crate::queue::JobList;
use crate::slab::NONE;
use crate::worker::Stage;
use crate::{Action, CallId, KillReason, Payload, Reason};

impl<J: Payload, R> Dispatch<J, R> {
    pub(crate) fn cancel_job(&mut self, job: u32) {
        let call = self.jobs[job].call;
        if call == NONE {
            self.end_queued(job, Reason::Cancelled);
        } else if self.jobs.special(job).cancelled {
            // The worker was told; it answers, or its time runs.
        } else if self.tell_cancel(call) {
            let cancel_by = self.now.saturating_add(self.limits.cancel_grace);
            let special = self.jobs.special_mut(job);
            special.cancelled = true;
            special.cancel_by = special.cancel_by.min(cancel_by);
            self.arm_job(job);
        } else {
            self.abandon(job, Reason::Cancelled);
        }
    }

    /// Tells a worker to cancel a call, if it can be told. A batch is not cancelled for the sake
    /// of one of its jobs.
    pub(crate) fn tell_cancel(&mut self, call: u32) -> bool {
        let c = &self.calls[call];
        let worker = &self.workers[c.worker];
        let heard = matches!(worker.stage, Stage::Ready | Stage::Draining);
        if !worker.offer.cancel || !heard || c.jobs.len > 1 {
            return false;
        }
        if !std::mem::replace(&mut self.calls[call].cancel_sent, true) {
            let worker = self.worker_id(self.calls[call].worker);
            let call = CallId::of(&self.calls, call);
            self.actions.push_back(Action::Cancel { worker, call });
        }
        true
    }

    pub(crate) fn arm_jobs(&mut self, jobs: JobList) {
        let mut job = jobs.first;
        while job != NONE {
            self.arm_job(job);
            job = self.jobs[job].next;
        }
    }

    /// Sees to it that a job is looked at in time. A time that is set already and turns out too
    /// early costs less than taking it out for every job: most jobs end long before their limits,
    /// and the one that has their place next finds the time set.
    pub(crate) fn arm_job(&mut self, job: u32) {
        let (j, s) = (&self.jobs[job], self.jobs.special(job));
        let at = if j.call == NONE {
            let isolation = if s.isolated_until > self.now { s.isolated_until } else { NEVER };
            j.deadline.min(s.wait_by).min(isolation)
        } else if j.payload.is_none() {
            s.exec_by.min(if s.overdue { s.cancel_by } else { NEVER })
        } else {
            j.deadline.min(s.exec_by).min(s.cancel_by)
        };
        self.job_due.hasten(job, at);
    }

    /// A job's time has come: one of them, or one of a job that had its place before.
    pub(crate) fn job_is_due(&mut self, job: u32) {
        let now = self.now;
        if self.jobs.get(job).is_none() {
            return;
        }
        if self.jobs[job].call == NONE {
            let has_waited = self.jobs.special(job).wait_by <= now;
            if self.jobs[job].deadline <= now {
                self.end_queued(job, Reason::QueueTimeout);
            } else if has_waited && self.overload.is_on() {
                self.overload.refused(now);
                self.end_queued(job, Reason::Overloaded);
            } else {
                if has_waited {
                    self.jobs.special_mut(job).wait_by = NEVER;
                }
                self.arm_job(job);
            }
            return;
        }
        if self.jobs[job].deadline <= now && self.jobs[job].payload.is_some() {
            self.tell_cancel(self.jobs[job].call);
            self.abandon(job, Reason::Deadline);
        }
        if self.jobs.special(job).cancel_by <= now {
            self.cancel_was_ignored(job);
        }
        if self.jobs.special(job).exec_by <= now {
            self.ran_too_long(job);
        }
        self.arm_job(job);
    }

    fn cancel_was_ignored(&mut self, job: u32) {
        self.jobs.special_mut(job).cancel_by = NEVER;
        if self.jobs.special(job).overdue {
            self.kill_for(job);
        } else if self.jobs[job].payload.is_some() {
            self.abandon(job, Reason::Cancelled);
        }
    }

    /// A job is over its execution limit. A worker that can cancel gets the chance to; otherwise
    /// only its end ends the job.
    fn ran_too_long(&mut self, job: u32) {
        self.jobs.special_mut(job).exec_by = NEVER;
        let call = self.jobs[job].call;
        if self.calls[call].jobs.len > 1 {
            // One of a batch, nobody knows which: they run again one by one, each with its time.
            let worker = self.calls[call].worker;
            self.kill(worker, KillReason::ExecTimeout);
            return;
        }
        self.jobs.special_mut(job).overdue = true;
        if self.tell_cancel(call) {
            let cancel_by = self.now.saturating_add(self.limits.cancel_grace);
            self.jobs.special_mut(job).cancel_by = cancel_by;
        } else {
            self.kill_for(job);
        }
    }

    /// Kills the worker of a job that is over its execution limit. The job ends at once, unless it
    /// is to run again: that has to wait until the worker is gone.
    fn kill_for(&mut self, job: u32) {
        let worker = self.calls[self.jobs[job].call].worker;
        let attached = self.workers[worker].is_attached();
        if self.jobs[job].payload.is_some()
            && (attached || !self.may_retry(job, Reason::ExecTimeout.code()))
        {
            let cancelled = self.jobs.special(job).cancelled;
            let reason = if cancelled { Reason::Cancelled } else { Reason::ExecTimeout };
            self.abandon(job, reason);
        }
        if !attached {
            self.kill(worker, KillReason::ExecTimeout);
        }
    }

    /// In an overloaded pool: sets how long each job that is queued may still wait.
    pub(crate) fn watch_overload(&mut self) {
        let Some(options) = &self.config.overload else { return };
        if !self.overload.turn(self.now, options) {
            return;
        }
        let mut job = self.queue.first;
        while job != NONE {
            self.limit_wait(job);
            job = self.jobs[job].next;
        }
    }

    pub(crate) fn limit_wait(&mut self, job: u32) {
        let Some(options) = &self.config.overload else { return };
        let j = &self.jobs[job];
        let wait_by = j.submitted.saturating_add(wait_limit(options, j.budget()));
        self.jobs.special_mut(job).wait_by = wait_by;
        self.arm_job(job);
    }
}
