//! What workers and peers answer, as the dispatch takes it.

use std::time::Duration;

use remuda_dispatch::{CallId, Code, Fault, Reply as Outcome, WorkerId};
use remuda_protocol::{
    Answer as Said, BadJsonKind, DEPTH_MAX, Failure, Id, Raw, Reply, salvage_id,
};

use crate::core::Core;
use crate::job::{Answer, Form, Span};
use crate::link::Transport;

impl Core {
    /// A reply; the error says why it is none.
    pub(super) fn worker_replied(&mut self, worker: WorkerId, line: &[u8]) -> Result<(), String> {
        let now = self.now();
        let reply = Reply::parse(line).map_err(|bad| bad.message)?;
        if let (None, Said::Handshake(offer)) = (reply.id, &reply.answer)
            && self.offered(now, worker, offer.capacity)
        {
            return Ok(());
        }
        if let (None, Said::Error(failure)) = (reply.id, &reply.answer)
            && failure.code == Some(remuda_protocol::Code::Draining)
            && self.gave_back(now, worker)
        {
            return Ok(());
        }
        let id = reply.id.and_then(Id::number).ok_or("it has no id that the pool gave")?;
        let call = CallId::from_number(id);
        let taken = match reply.answer {
            Said::Result(body) => {
                let answer = done(body.as_bytes(), line);
                self.dispatch.replied(now, worker, call, [Outcome::Done(answer)])
            }
            Said::Error(failure) => {
                self.dispatch.replied(now, worker, call, [failed(&failure, line)])
            }
            Said::Results(results) => {
                let outcomes = results.outcomes().map(|outcome| match outcome {
                    Ok(body) => Outcome::Done(done(body.as_bytes(), line)),
                    Err(failure) => failed(&failure, line),
                });
                self.dispatch.replied(now, worker, call, outcomes)
            }
            _ => return Err("it answers no call".into()),
        };
        if let Err(fault) = taken {
            self.worker_faulted(worker, &fault);
        }
        Ok(())
    }

    /// A worker gave an answer that the dispatch refused.
    #[cold]
    fn worker_faulted(&mut self, worker: WorkerId, fault: &Fault) {
        self.broke_the_protocol(worker, || {
            format!("the worker broke the protocol: {fault} (see docs/protocol.md)")
        });
    }

    /// Tells of what a worker did first that it may not, and of nothing that follows: it is killed,
    /// and until it is gone anything may come, and any amount. A peer's link is closed.
    #[cold]
    pub(super) fn broke_the_protocol(&mut self, worker: WorkerId, how: impl FnOnce() -> String) {
        let Some(link) = self.links.of(worker).filter(|link| link.trouble.is_none()) else {
            return;
        };
        let trouble = how();
        if !self.history.was_trouble(&trouble) {
            let told = format!("remuda: {trouble}; {}", link.remedy());
            self.config.logs.line(link.number, &told);
        }
        link.trouble = Some(trouble);
        if link.attached.is_some() {
            self.cut(worker);
        }
    }

    /// Takes note of what a peer that was asked for it offers by now; false if it wasn't asked.
    fn offered(&mut self, now: Duration, worker: WorkerId, capacity: u32) -> bool {
        let Some(link) = self.links.of(worker) else { return false };
        let Transport::Process(process) = &mut link.transport else { return false };
        if !process.was_asked() {
            return false;
        }
        if std::mem::replace(&mut link.capacity, capacity) != capacity {
            self.dispatch.capacity_changed(now, worker, capacity);
        }
        true
    }

    /// Takes note that a pool has ended, and has not begun what it has not answered; false if it is
    /// no peer.
    fn gave_back(&mut self, now: Duration, worker: WorkerId) -> bool {
        let is_peer = self.links.of(worker).is_some_and(|link| link.attached.is_some());
        if is_peer {
            self.dispatch.gave_back(now, worker);
            self.cut(worker);
        }
        is_peer
    }

    /// Asks a peer what it offers by now; false if it hasn't answered the last time.
    pub(crate) fn ask_offer(&mut self, worker: WorkerId) -> bool {
        match self.links.of(worker).map(|link| &mut link.transport) {
            Some(Transport::Process(process)) => process.ask_offer(&mut self.scratch),
            _ => true,
        }
    }

    /// A result over the limit fails its own job, if it can be told which that is.
    pub(super) fn worker_line_too_long(&mut self, worker: WorkerId, beginning: &[u8]) {
        let Some(link) = self.links.of(worker) else { return };
        if !link.ready {
            link.hopeless = true;
            link.trouble = Some("its answer to the handshake is too long".into());
            self.cut(worker);
            return;
        }
        let message = format!(
            "\"the result is larger than max_body_bytes ({}): raise it, or return less\"",
            self.config.max_body_bytes
        );
        self.fail_unread(worker, beginning, Code::BodyTooLarge, &message);
    }

    /// A result that is nested too deep fails its own job; false if that isn't what is wrong.
    pub(super) fn nested_too_deep(&mut self, worker: WorkerId, line: &[u8]) -> bool {
        let too_deep = Raw::new(line).is_err_and(|bad| bad.kind == BadJsonKind::TooDeep);
        if too_deep {
            let message = format!(
                "\"the result is nested more than {DEPTH_MAX} deep: return a flatter one, or JSON \
                 as a string\""
            );
            self.fail_unread(worker, line, Code::HandlerError, &message);
        }
        too_deep
    }

    /// Fails the job that a line belongs to which is not read as a whole; `message` is JSON.
    fn fail_unread(&mut self, worker: WorkerId, beginning: &[u8], code: Code, message: &str) {
        let now = self.now();
        let line = message.as_bytes();
        let answer = Answer { body: Span::of(line, line), form: Form::Json, traceback: None };
        let outcome = Outcome::Failed { code, error: answer };
        let id = salvage_id(beginning).and_then(|id| id.as_id().number());
        match id {
            Some(id) => {
                let call = CallId::from_number(id);
                if let Err(fault) = self.dispatch.replied(now, worker, call, [outcome]) {
                    self.worker_faulted(worker, &fault);
                }
            }
            None => {
                let what = "it is too long or nested too deep, and begins with no id";
                self.worker_garbage(worker, beginning, what);
            }
        }
        self.carry_out(line);
    }
}

fn done(body: &[u8], line: &[u8]) -> Answer {
    Answer { body: Span::of(body, line), form: Form::Json, traceback: None }
}

fn failed(failure: &Failure<'_>, line: &[u8]) -> Outcome<Answer> {
    let code = failure.code.and_then(dispatch_code).unwrap_or(Code::HandlerError);
    let span = |json: &str| Span::of(json.as_bytes(), line);
    let error = Answer {
        body: span(failure.error.as_json()),
        form: Form::Json,
        traceback: failure.traceback.map(|traceback| span(traceback.as_json())),
    };
    Outcome::Failed { code, error }
}

/// The dispatch's name for a code of the protocol.
fn dispatch_code(code: remuda_protocol::Code) -> Option<Code> {
    Code::ALL.into_iter().find(|ours| ours.as_str() == code.as_str())
}
