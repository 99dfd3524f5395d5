//! What workers answer.

use crate::deadline::NEVER;
use crate::dispatch::Dispatch;
use crate::slab::NONE;
use crate::worker::Stage;
use crate::{CallId, Code, Fault, Payload, Reply};

impl<J: Payload, R> Dispatch<J, R> {
    pub(crate) fn take_answers(
        &mut self,
        worker: u32,
        call: CallId,
        mut answers: impl ExactSizeIterator<Item = Reply<R>>,
    ) -> Result<(), Fault> {
        let w = &self.workers[worker];
        if w.stage == Stage::Away || w.faulted {
            return Ok(());
        }
        let call = match self.check_answers(worker, call, answers.len()) {
            Ok(call) => call,
            Err(fault) => {
                self.fault(worker, fault);
                return Err(fault);
            }
        };
        let is_peer = w.is_attached();
        let jobs = self.take_call(worker, call);
        let mut job = jobs.first;
        while job != NONE {
            let next = self.jobs[job].next;
            match answers.next() {
                Some(Reply::Failed { code: Code::Draining, .. })
                    if is_peer && self.is_given_back(job) =>
                {
                    self.take_back(job);
                    self.peer_drains(worker);
                }
                Some(answer) => self.end_answered(job, answer),
                // An iterator that promised more than it has: the caller's fault.
                None => self.end_unanswered(job),
            }
            job = next;
        }
        self.worker_answered(worker, jobs.len);
        Ok(())
    }

    /// The place of the call that a worker answers.
    fn check_answers(&self, worker: u32, call: CallId, answers: usize) -> Result<u32, Fault> {
        let w = &self.workers[worker];
        let found = call.find(&self.calls).filter(|&call| self.calls[call].worker == worker);
        let call = found.ok_or(Fault::UnknownCall)?;
        let c = &self.calls[call];
        if c.jobs.len as usize != answers {
            let answers = u32::try_from(answers).unwrap_or(u32::MAX);
            return Err(Fault::AnswerCount { jobs: c.jobs.len, answers });
        }
        // One that was cancelled may be answered before its turn.
        if w.offer.ordered && call != w.first_call && !c.cancel_sent {
            return Err(Fault::OutOfOrder);
        }
        Ok(call)
    }

    /// Takes a call from its worker. An ordered worker starts the next one.
    fn take_call(&mut self, worker: u32, call: u32) -> crate::queue::JobList {
        let (c, now) = (&self.calls[call], self.now);
        let (prev, next, jobs, started) = (c.prev, c.next, c.jobs, c.started);
        self.calls.free(call);
        if next != NONE {
            self.fetch_calls(next);
            self.calls[next].prev = prev;
        }
        if prev != NONE {
            self.calls[prev].next = next;
        }
        let w = &mut self.workers[worker];
        if next == NONE {
            w.last_call = prev;
        }
        if prev == NONE {
            w.first_call = next;
        }
        w.calls -= 1;
        w.jobs -= jobs.len;
        if started != NEVER {
            let took = now.saturating_sub(started);
            w.service.sample(took, jobs.len);
            if !w.is_attached() {
                let answer = (took, jobs.len, w.began_idle);
                self.service.answered(self.ready_count, &mut w.last_answer, answer);
            }
            w.began_idle = false;
        }
        if w.offer.ordered && prev == NONE && next != NONE {
            self.start_call(next);
        }
        jobs
    }
}
