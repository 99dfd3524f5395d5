//! What is sent to clients: results and failures, each to whom and as it was asked.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use bytes::Bytes;
use remuda_dispatch::{Cause, Outcome, RefusedReason};
use remuda_protocol::{Code, Id, encode, json_string};

use crate::core::Core;
use crate::front::ClientKey;
use crate::job::{Answer, Form, Job, Origin};
use crate::long_line::shared_body;

/// Replies without an id go out in the order of their requests: one that is early waits here.
#[derive(Default)]
#[repr(C)] // What the end of every job looks at comes first.
pub(crate) struct Unnamed {
    answered: Option<Waker>,
    first: u64,
    waiting: VecDeque<Option<Vec<u8>>>,
    /// Bytes of those that wait.
    held: usize,
}

impl Unnamed {
    /// A request without an id came in: the number of its reply.
    pub(crate) fn begin(&mut self) -> u64 {
        self.waiting.push_back(None);
        self.first + self.waiting.len() as u64 - 1
    }

    /// The reply of that number is there; appends to `out` all that may go out now.
    fn answer(&mut self, number: u64, reply: &[u8], out: &mut Vec<u8>) {
        if let Some(place) = self.waiting.get_mut((number - self.first) as usize) {
            *place = Some(reply.to_vec());
            self.held += reply.len();
        }
        while let Some(Some(reply)) = self.waiting.front() {
            self.held -= reply.len();
            out.extend_from_slice(reply);
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// Bytes of replies that wait for an earlier one.
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

impl Core {
    /// A client's job has ended.
    pub(crate) fn finish_client(
        &mut self,
        origin: &Origin,
        outcome: &Outcome<Answer>,
        line: &[u8],
    ) {
        let Origin::Client { client: key, place, name, .. } = origin else { return };
        let (id, order) = (name.id(), name.turn());
        let large = if order.is_none() { self.large_result(outcome, line) } else { None };
        let Some(client) = self.clients.of(*key) else { return };
        client.places.release(*place);
        let done = client.places.count() == 0;
        let scratch = &mut self.scratch;
        let write = |out: &mut Vec<u8>| write_outcome(out, id, outcome, line);
        let is_gathered = if let Some(body) = large {
            scratch.clear();
            let body_at = encode::result_around(scratch, id);
            let (head, tail) = scratch.split_at(body_at);
            client.send_parts(head, body, tail);
            false
        } else if let Some(number) = order {
            scratch.clear();
            write(scratch);
            let mut ready = Vec::new();
            client.unnamed.answer(number, scratch, &mut ready);
            client.hold_back();
            client.gather(scratch, |out| out.extend_from_slice(&ready))
        } else {
            client.gather(scratch, write)
        };
        if is_gathered {
            self.answered.push(*key);
        }
        if done && let Some(waiting) = client.unnamed.answered.take() {
            waiting.wake();
        }
    }

    /// A result that is sent on in the memory that it was received in.
    fn large_result(&self, outcome: &Outcome<Answer>, line: &[u8]) -> Option<Bytes> {
        let Outcome::Done(Answer { body, form: Form::Json, .. }) = outcome else { return None };
        let body = shared_body(self.line.as_ref(), body.bytes(line))?;
        encode::is_unbroken(&body).then_some(body)
    }

    /// A client's job was not accepted.
    #[cold] // Kept out of the way of jobs that are accepted.
    pub(crate) fn refuse(&mut self, job: Job, reason: RefusedReason) {
        self.bodies_bytes -= job.body.len();
        if let Origin::Client { client, name, .. } = &job.origin {
            let code = protocol_code(reason.code());
            let message = reason.to_string();
            let id = name.id();
            self.reply(*client, name.turn(), |out| encode::error(out, id, code, &message));
        }
        self.bodies.take_back(job.body);
    }

    /// Sends a failure; one without an id has its turn.
    #[cold] // Never the end of a job that was accepted.
    pub(crate) fn reply_error(
        &mut self,
        key: ClientKey,
        id: Option<Id<'_>>,
        code: Code,
        message: &str,
    ) {
        let Some(client) = self.clients.of(key) else { return };
        let order = id.is_none().then(|| client.unnamed.begin());
        self.reply(key, order, |out| encode::error(out, id, code, message));
    }

    /// Sends what `write` writes, in its turn if it has one.
    pub(crate) fn reply(
        &mut self,
        key: ClientKey,
        order: Option<u64>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.scratch.clear();
        write(&mut self.scratch);
        let Some(client) = self.clients.of(key) else { return };
        match order {
            Some(number) => {
                let mut ready = Vec::new();
                client.unnamed.answer(number, &self.scratch, &mut ready);
                client.hold_back();
                client.send(&ready);
            }
            None => client.send(&self.scratch),
        }
        if let Some(waiting) = client.unnamed.answered.take() {
            waiting.wake();
        }
    }

    /// Ready once the client waits for no answer.
    pub(crate) fn poll_answered(&mut self, key: ClientKey, waker: &Waker) -> Poll<()> {
        let resets = self.reset_waiters.iter().any(|waiter| waiter.is_of(key));
        match self.clients.of(key) {
            Some(client) if client.places.count() > 0 || resets => {
                client.unnamed.answered = Some(waker.clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

/// Appends the reply that an outcome makes.
fn write_outcome(out: &mut Vec<u8>, id: Option<Id<'_>>, outcome: &Outcome<Answer>, line: &[u8]) {
    match outcome {
        Outcome::Done(answer) => {
            let bytes = answer.body.bytes(line);
            match answer.form {
                Form::Json => encode::result(out, id, bytes),
                Form::Text => {
                    let written = encode::result_with(out, id, |out| json_string(out, bytes));
                    if written.is_err() {
                        let message = "the filter's answer is not UTF-8, which JSON can't carry";
                        encode::error(out, id, Code::HandlerError, message);
                    }
                }
            }
        }
        Outcome::Failed { code, cause, .. } => write_failure(out, id, *code, cause, line),
    }
}

#[cold] // Kept out of the way of results.
fn write_failure(
    out: &mut Vec<u8>,
    id: Option<Id<'_>>,
    code: remuda_dispatch::Code,
    cause: &Cause<Answer>,
    line: &[u8],
) {
    match cause {
        Cause::Pool(reason) => encode::error(out, id, protocol_code(code), &reason.to_string()),
        Cause::Peer(_) => {
            let failed = crate::core::failed(code, cause, true, line);
            let fault = encode::Fault {
                code: protocol_code(code),
                error: &failed.message,
                traceback: failed.traceback.as_deref(),
            };
            encode::fault(out, id, &fault);
        }
    }
}

/// The protocol's name for a code of the dispatch.
pub(crate) fn protocol_code(code: remuda_dispatch::Code) -> Code {
    Code::parse(code.as_str()).unwrap_or(Code::Internal)
}
