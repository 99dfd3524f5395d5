//! A call on its way to a thread and back: its bodies, running them, and what became of each.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use remuda_dispatch::{CallId, Code, Dispatch, Reply as Outcome, WorkerId};
use remuda_protocol::{Raw, encode, json_str};

use crate::config::ThreadHandler;
use crate::job::{Answer, Form, Job, Span};
use crate::link::process::write_body;

/// A call on its way to a thread and back.
pub(super) struct Parcel {
    pub(super) worker: WorkerId,
    pub(super) call: CallId,
    bodies: Vec<u8>,
    /// Where each body ends.
    ends: Vec<usize>,
    pub(super) results: Vec<u8>,
    /// What became of the bodies so far. Where each result stands is in `results`.
    outcomes: Vec<(Ran, Range<usize>)>,
}

/// How a body fared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ran {
    Done,
    Failed(Code),
}

impl Parcel {
    pub(super) fn new(worker: WorkerId, call: CallId) -> Self {
        Self {
            worker,
            call,
            bodies: Vec::new(),
            ends: Vec::new(),
            results: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Takes in the bodies of a call, into what was [cleared](Self::clear).
    pub(super) fn fill(
        &mut self,
        dispatch: &Dispatch<Job, Answer>,
        worker: WorkerId,
        call: CallId,
    ) {
        (self.worker, self.call) = (worker, call);
        for (job, _) in dispatch.call(call) {
            write_body(&mut self.bodies, job);
            self.ends.push(self.bodies.len());
        }
    }

    pub(super) fn clear(&mut self) {
        self.bodies.clear();
        self.ends.clear();
        self.results.clear();
        self.outcomes.clear();
    }

    /// How much memory it holds, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bodies.capacity() + self.results.capacity()
    }

    /// Runs the bodies that were not run yet; false if the handler panicked.
    pub(super) fn run(&mut self, handler: &ThreadHandler, max_body_bytes: usize) -> bool {
        while let Some(end) = self.ends.get(self.outcomes.len()) {
            let first = self.outcomes.len().checked_sub(1).map_or(0, |last| self.ends[last]);
            let body = &self.bodies[first..*end];
            let start = self.results.len();
            let results = &mut self.results;
            // The handler is called by every thread at once anyhow, and this one ends.
            let ran = catch_unwind(AssertUnwindSafe(|| match Raw::new(body) {
                Ok(body) => handler.run(body, results),
                Err(error) => Err(error.to_string()),
            }));
            let panicked = ran.is_err();
            let failed = match ran {
                Ok(Ok(())) => self.check_result(start, max_body_bytes),
                Ok(Err(message)) => Some((Code::HandlerError, message)),
                Err(payload) => {
                    let message = panic_message(&*payload);
                    // A payload may do anything when it is dropped, a second panic included.
                    std::mem::forget(payload);
                    Some((Code::HandlerError, message))
                }
            };
            let ran = match failed {
                None => Ran::Done,
                Some((code, message)) => {
                    self.results.truncate(start);
                    json_str(&mut self.results, &message);
                    Ran::Failed(code)
                }
            };
            self.outcomes.push((ran, start..self.results.len()));
            if panicked {
                return false;
            }
        }
        true
    }

    /// Says what is wrong with the result that begins at `start`. It goes out as a part of one
    /// line: line breaks between its tokens are taken out.
    fn check_result(&mut self, start: usize, max_body_bytes: usize) -> Option<(Code, String)> {
        let result = &self.results[start..];
        if result.len() > max_body_bytes {
            let message = format!(
                "the result is larger than max_body_bytes ({max_body_bytes}): raise it, or return less"
            );
            return Some((Code::BodyTooLarge, message));
        }
        if let Err(error) = Raw::new(result) {
            let message = format!("the handler's result is not one JSON value: {error}");
            return Some((Code::HandlerError, message));
        }
        if memchr::memchr2(b'\n', b'\r', result).is_some() {
            let result = self.results.split_off(start);
            encode::push_body(&mut self.results, &result);
        }
        None
    }

    /// The message of the last job that was run, which failed.
    pub(super) fn last_message(&self) -> Option<String> {
        let (_, at) = self.outcomes.last()?;
        let json = str::from_utf8(&self.results[at.clone()]).ok()?;
        remuda_protocol::unescape(json).ok().map(std::borrow::Cow::into_owned)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.outcomes.len() == self.ends.len()
    }

    pub(super) fn replies(&self) -> impl ExactSizeIterator<Item = Outcome<Answer>> {
        self.outcomes.iter().map(|(ran, at)| {
            let body = Span::of(&self.results[at.clone()], &self.results);
            let answer = Answer { body, form: Form::Json, traceback: None };
            match *ran {
                Ran::Done => Outcome::Done(answer),
                Ran::Failed(code) => Outcome::Failed { code, error: answer },
            }
        })
    }
}

/// What a panic said.
fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&'static str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("the handler panicked: {text}"),
        None => "the handler panicked".to_owned(),
    }
}
