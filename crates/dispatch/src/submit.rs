//! How jobs come in.

use crate::deadline::{NEVER, limit};
use crate::dispatch::Dispatch;
use crate::job::Job;
use crate::{JobId, JobOptions, Payload, Phase, RefusedReason};

impl<J: Payload, R> Dispatch<J, R> {
    /// Why a job can't be accepted, if it can't.
    pub(crate) fn refusal(&mut self, payload: &J, options: JobOptions) -> Option<RefusedReason> {
        if self.phase != Phase::Running {
            return Some(RefusedReason::Draining);
        }
        if limit(options.deadline) <= self.now {
            return Some(RefusedReason::Expired);
        }
        let after = self.config.poison_after;
        if !self.poison.is_empty()
            && after > 0
            && self.poison.refuses(self.now, payload.fingerprint(), after)
        {
            return Some(RefusedReason::Poisoned);
        }
        let full = self.queued() >= self.config.max_queue_size
            && self.queued() >= self.config.max_queue_size + self.idle_count();
        full.then_some(RefusedReason::QueueFull)
    }

    /// Workers that could take a job at once: it doesn't need room in the queue for longer than
    /// until the next action is polled.
    fn idle_count(&self) -> usize {
        let idle = |worker: &&u32| self.workers[**worker].calls == 0;
        self.idle.iter().filter(idle).count()
    }

    /// Puts a job into the queue.
    #[inline]
    pub(crate) fn accept(&mut self, payload: J, options: JobOptions) -> JobId {
        let mut job = Job::new(payload, self.now);
        job.deadline = limit(options.deadline);
        job.relayed = options.relayed;
        self.relayed += usize::from(options.relayed);
        self.fetch_free();
        let index = self.jobs.insert(job);
        let exec_timeout = limit(options.exec_timeout);
        if exec_timeout != NEVER || options.alone {
            let special = self.jobs.special_mut(index);
            (special.exec_timeout, special.alone) = (exec_timeout, options.alone);
        }
        self.live += 1;
        self.counters.accepted += 1;
        self.queue.push_back(&mut self.jobs, index);
        self.overload.queue_filled(self.now);
        if self.overload.is_on() {
            self.limit_wait(index);
        } else {
            self.arm_job(index);
        }
        self.job_id(index)
    }
}
