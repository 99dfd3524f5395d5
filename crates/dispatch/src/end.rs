//! How jobs end: what happens to one that was answered, lost, or is no longer wanted.

use crate::call::Call;
use crate::config::Delivery;
use crate::deadline::{NEVER, Nanos, limit};
use crate::dispatch::Dispatch;
use crate::slab::NONE;
use crate::{Action, Cause, Code, Outcome, Payload, Phase, Reason, Reply};

/// How long a job that may have killed its worker waits at most for a worker where it is alone.
const ISOLATION: Nanos = 1_000_000_000;

/// What a worker's death means for the jobs of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) reason: Reason,
    /// Whether they may have run.
    pub(crate) ran: bool,
    /// Whether the death is theirs.
    pub(crate) charged: bool,
    /// Whether it may be one of theirs, and one can't tell whose.
    pub(crate) suspected: bool,
}

impl<J: Payload, R> Dispatch<J, R> {
    /// Ends a job that is in the queue.
    pub(crate) fn end_queued(&mut self, job: u32, reason: Reason) {
        let ran = self.jobs[job].tries > 0;
        let (waited, budget) =
            (self.now.saturating_sub(self.jobs[job].submitted), self.jobs[job].budget());
        self.unqueue(job);
        self.overload.waited(waited, budget);
        self.finish(job, failure(reason, ran));
        self.free_job(job);
    }

    /// Ends a job that a worker has: the worker keeps it until it answers.
    pub(crate) fn abandon(&mut self, job: u32, reason: Reason) {
        if limit(self.config.quarantine) != NEVER && self.config.poison_after > 0 {
            let fingerprint = self.jobs[job].payload.as_ref().map_or(0, Payload::fingerprint);
            self.jobs.special_mut(job).fingerprint = fingerprint;
        }
        self.finish(job, failure(reason, true));
        self.arm_job(job);
    }

    /// Takes a worker's answer to one job.
    pub(crate) fn end_answered(&mut self, job: u32, reply: Reply<R>) {
        self.in_flight -= 1;
        let j = &self.jobs[job];
        if j.payload.is_none() {
            self.free_job(job);
            return;
        }
        let outcome = match reply {
            Reply::Done(answer) => Outcome::Done(answer),
            Reply::Failed { code: Code::Cancelled, .. } if self.jobs.special(job).overdue => {
                failure(Reason::ExecTimeout, true)
            }
            Reply::Failed { code, error } => Outcome::Failed {
                code,
                cause: Cause::Peer(error),
                may_have_run: code.may_have_run() || j.tries > 1,
            },
        };
        let code = match &outcome {
            Outcome::Done(_) => None,
            Outcome::Failed { code, .. } => Some(*code),
        };
        if code.is_some_and(|code| self.may_retry(job, code)) {
            self.requeue(job);
        } else {
            self.finish(job, outcome);
            self.free_job(job);
        }
    }

    /// Whether a job that a peer refused, since it is shutting down, is still wanted elsewhere: it
    /// has not run there.
    pub(crate) fn is_given_back(&self, job: u32) -> bool {
        let special = self.jobs.special(job);
        self.jobs[job].payload.is_some()
            && !special.cancelled
            && !special.overdue
            && self.phase != Phase::Stopping
            && !self.drop_queued
    }

    /// Queues such a job again, as if it had not been sent.
    pub(crate) fn take_back(&mut self, job: u32) {
        self.in_flight -= 1;
        let j = &mut self.jobs[job];
        j.tries = j.tries.saturating_sub(1);
        self.requeue_uncounted(job);
    }

    /// A job of a call that was answered without it.
    pub(crate) fn end_unanswered(&mut self, job: u32) {
        self.in_flight -= 1;
        self.finish(job, failure(Reason::WorkerKilled, true));
        self.free_job(job);
    }

    /// Judges the jobs of a call whose worker is gone. The last call comes first, so that the jobs
    /// that go back to the front of the queue are there in their order.
    pub(crate) fn judge(&mut self, call: u32, loss: Loss) {
        let Call { jobs, started, .. } = self.calls[call];
        if loss.ran && started == NEVER {
            self.start_call(call);
        }
        self.calls.free(call);
        let batch = jobs.len > 1;
        let mut job = jobs.last;
        while job != NONE {
            let before = self.jobs[job].prev;
            self.judge_job(job, loss, batch);
            job = before;
        }
    }

    fn judge_job(&mut self, job: u32, loss: Loss, batch: bool) {
        self.in_flight -= 1;
        let charged = loss.charged && !batch;
        let deaths = if charged { self.charge(job) } else { 0 };
        let (j, special) = (&self.jobs[job], self.jobs.special(job));
        if j.payload.is_none() {
            self.free_job(job);
        } else if special.cancelled {
            self.finish(job, failure(Reason::Cancelled, true));
            self.free_job(job);
        } else if charged && self.config.poison_after > 0 && deaths >= self.config.poison_after {
            self.finish(job, failure(Reason::Poisoned(deaths), true));
            self.free_job(job);
        } else {
            let ran = loss.ran || j.tries > 0;
            let reason = if special.overdue { Reason::ExecTimeout } else { loss.reason };
            if loss.suspected || (loss.ran && batch) {
                let special = self.jobs.special_mut(job);
                special.alone = true;
                if loss.suspected && !batch {
                    special.isolated_until = self.now.saturating_add(ISOLATION);
                }
            }
            self.judge_retry(job, reason, loss.ran, ran);
        }
    }

    /// A lost job runs again if it has not run, or if delivery allows it.
    fn judge_retry(&mut self, job: u32, reason: Reason, ran_now: bool, ran: bool) {
        let again = if ran_now {
            self.may_retry(job, reason.code())
        } else {
            self.phase != Phase::Stopping && !self.drop_queued
        };
        if again {
            self.counters.retried += u64::from(ran_now);
            self.requeue_uncounted(job);
            return;
        }
        let reason = match self.phase {
            Phase::Stopping if ran => Reason::Stopped,
            _ if !ran_now => Reason::Draining,
            _ => reason,
        };
        self.finish(job, failure(reason, ran));
        self.free_job(job);
    }

    /// A worker died under this job. Returns how many did.
    fn charge(&mut self, job: u32) -> u32 {
        let special = self.jobs.special_mut(job);
        special.deaths += 1;
        let deaths = special.deaths;
        let quarantine = limit(self.config.quarantine);
        if quarantine != NEVER && self.config.poison_after > 0 {
            let kept = special.fingerprint;
            let payload = self.jobs[job].payload.as_ref();
            let fingerprint = payload.map_or(kept, Payload::fingerprint);
            self.poison.record(self.now, fingerprint, quarantine);
        }
        deaths
    }

    /// Whether delivery allows another try after a failure of this kind.
    pub(crate) fn may_retry(&self, job: u32, code: Code) -> bool {
        let Delivery::AtLeastOnce { tries, retry_on } = self.config.delivery else { return false };
        let j = &self.jobs[job];
        let wanted = match code {
            Code::WorkerLost => retry_on.lost,
            Code::Timeout => retry_on.timeout,
            Code::HandlerError => retry_on.error,
            _ => false,
        };
        wanted
            && (tries == 0 || j.tries < tries)
            && !self.jobs.special(job).cancelled
            && j.deadline > self.now
            && self.phase != Phase::Stopping
            && !self.drop_queued
    }

    fn requeue(&mut self, job: u32) {
        self.counters.retried += 1;
        self.requeue_uncounted(job);
    }

    /// Back to the front of the queue: it has waited for longer than any other there.
    fn requeue_uncounted(&mut self, job: u32) {
        let j = &mut self.jobs[job];
        (j.call, j.started) = (NONE, NEVER);
        let special = self.jobs.special(job);
        if special.exec_by != NEVER || special.cancel_by != NEVER || special.overdue {
            let special = self.jobs.special_mut(job);
            (special.exec_by, special.cancel_by, special.overdue) = (NEVER, NEVER, false);
        }
        self.relayed += usize::from(self.jobs[job].relayed);
        self.queue.push_front(&mut self.jobs, job);
        self.overload.queue_filled(self.now);
        self.arm_job(job);
    }

    /// Takes a job out of the queue.
    pub(crate) fn unqueue(&mut self, job: u32) {
        self.relayed -= usize::from(self.jobs[job].relayed);
        self.queue.remove(&mut self.jobs, job);
        self.fetch_queued();
        if self.queue.is_empty() {
            self.overload.queue_emptied();
        }
    }

    /// Hands a job back with its outcome. The caller frees its place, unless a worker has it.
    pub(crate) fn finish(&mut self, job: u32, mut outcome: Outcome<R>) {
        if let Outcome::Failed { code, cause, may_have_run: true } = &mut outcome {
            *code = code_after_loss(*code, matches!(cause, Cause::Pool(Reason::QueueTimeout)));
        }
        let id = self.job_id(job);
        let facts = self.jobs[job].facts(self.now);
        let Some(payload) = self.jobs[job].payload.take() else { return };
        match &outcome {
            Outcome::Done(_) => self.counters.done += 1,
            Outcome::Failed { code, .. } => self.counters.failed[*code as usize] += 1,
        }
        self.live -= 1;
        self.actions.push_back(Action::Finish { job: id, payload, outcome, facts });
    }

    pub(crate) fn free_job(&mut self, job: u32) {
        self.jobs.free(job);
    }
}

fn failure<R>(reason: Reason, may_have_run: bool) -> Outcome<R> {
    Outcome::Failed { code: reason.code(), cause: Cause::Pool(reason), may_have_run }
}

/// The code for a job that was lost and then refused another try, here or by a peer: none that asks
/// to send it again as if it had not run. Who called goes by the code alone.
fn code_after_loss(code: Code, waited_too_long: bool) -> Code {
    match code {
        Code::QueueTimeout if waited_too_long => Code::Timeout,
        Code::QueueTimeout | Code::QueueFull | Code::Draining => Code::WorkerLost,
        code => code,
    }
}
