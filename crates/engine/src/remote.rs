//! Jobs from other threads of the program that the pool is part of.
//!
//! A [`Remote`] is a handle of the pool that any thread may have. What it asks goes through one
//! bounded channel to the pool's thread; the answer comes back through a channel of its own, to be
//! awaited on any executor or waited for on a thread that may block.

use std::collections::HashMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remuda_dispatch::{Cause, Code, JobId, JobOptions, Outcome, Phase, RefusedReason};
use remuda_net::{mpsc, oneshot};
use remuda_protocol::json_string;
use serde_json::Value;

use crate::core::Core;
use crate::job::{Answer, Body, Form, Job, Origin};
use crate::pool::{Inner, Pool};

/// How many requests may be on their way to the pool's thread. One more is refused as
/// `queue_full`.
pub const REMOTE_REQUESTS_LIMIT: usize = 4096;

/// A handle of a pool for any thread: clones are handles of the same pool.
///
/// It doesn't keep the pool alive: once that is gone, every job is refused as `draining`.
#[derive(Clone)]
pub struct Remote {
    requests: mpsc::Sender<Request>,
    cancelled: Cancelled,
    max_body_bytes: usize,
}

/// Jobs whose replies were dropped, until the pool's thread looks: at most as many as there are jobs.
type Cancelled = Arc<Mutex<Vec<u64>>>;

/// Numbers the jobs of all pools of the process: a number is mistaken for no other.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// What is asked of the pool's thread.
enum Request {
    Call(NewCall),
    Status(oneshot::Sender<Value>),
    Health(oneshot::Sender<Health>),
    /// Somebody doesn't wait any more: see `Cancelled`.
    Cancelled,
}

/// A job on its way.
struct NewCall {
    number: u64,
    body: Bytes,
    timeout: Option<Duration>,
    arrived: Instant,
    reply: ReplyTo,
}

/// Where the result of a job goes.
pub(crate) struct ReplyTo(oneshot::Sender<Result<Bytes, RemoteError>>);

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}", code = .code.as_str())]
pub struct RemoteError {
    /// The protocol's code.
    pub code: Code,
    /// What the worker or the pool says.
    pub message: String,
    /// Where the handler failed, if its language says so.
    pub traceback: Option<String>,
    /// Whether the job may have run, in part or wholly.
    pub may_have_run: bool,
}

impl RemoteError {
    fn not_run(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), traceback: None, may_have_run: false }
    }

    /// The pool's thread is gone.
    fn gone() -> Self {
        Self { may_have_run: true, ..Self::not_run(Code::Draining, "the pool has ended") }
    }
}

/// How a pool is, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// It accepts jobs: it neither drains nor has ended.
    pub accepting: bool,
    /// How many workers can take a job, or have one.
    pub ready_workers: usize,
}

/// A job's result, to be awaited or waited for. Dropping it cancels the job.
pub struct RemoteReply {
    answer: Option<oneshot::Receiver<Result<Bytes, RemoteError>>>,
    refused: Option<RemoteError>,
    number: u64,
    remote: Remote,
}

impl fmt::Debug for RemoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteReply").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Remote {
    /// Hands in a job. `body` is JSON that was checked; the result is JSON as well. `timeout` is
    /// the job's time from now on, in the queue too.
    ///
    /// It never blocks: if the pool takes no more jobs, the reply says so.
    pub fn call(&self, body: Bytes, timeout: Option<Duration>) -> RemoteReply {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let refused = |error| RemoteReply {
            answer: None,
            refused: Some(error),
            number,
            remote: self.clone(),
        };
        if body.len() > self.max_body_bytes {
            let message =
                format!("the body is larger than max_body_bytes ({})", self.max_body_bytes);
            return refused(RemoteError::not_run(Code::BodyTooLarge, message));
        }
        let (reply, answer) = oneshot::channel();
        let arrived = Instant::now();
        let call = NewCall { number, body, timeout, arrived, reply: ReplyTo(reply) };
        match self.requests.try_send(Request::Call(call)) {
            Ok(()) => {
                RemoteReply { answer: Some(answer), refused: None, number, remote: self.clone() }
            }
            Err(mpsc::TrySendError::Full(_)) => {
                let message = "too many jobs are on their way to the pool: try again later";
                refused(RemoteError::not_run(Code::QueueFull, message))
            }
            Err(mpsc::TrySendError::Closed(_)) => {
                refused(RemoteError { may_have_run: false, ..RemoteError::gone() })
            }
        }
    }

    /// The pool at this moment, as the `status` request gives it; nothing if the pool is gone.
    /// Cancel safe.
    pub async fn status(&self) -> Option<Value> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Whether the pool accepts jobs, and how many workers are ready; nothing if the pool is gone.
    /// The pool's thread itself answers: a thread that hangs gives no answer. Cancel safe.
    pub async fn health(&self) -> Option<Health> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Health(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The most bytes that a body may have.
    pub fn max_body_bytes(&self) -> usize {
        self.max_body_bytes
    }
}

impl RemoteReply {
    /// Waits for the result on a thread that may block.
    ///
    /// # Errors
    /// The job has no result.
    pub fn wait(self) -> Result<Bytes, RemoteError> {
        let mut reply = pin!(self);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match reply.as_mut().poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polled again after it was ready, it says that the pool has ended.
impl Future for RemoteReply {
    type Output = Result<Bytes, RemoteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(refused) = self.refused.take() {
            return Poll::Ready(Err(refused));
        }
        let Some(answer) = &mut self.answer else { return Poll::Ready(Err(RemoteError::gone())) };
        let Poll::Ready(result) = Pin::new(answer).poll(context) else { return Poll::Pending };
        self.answer = None;
        Poll::Ready(result.unwrap_or_else(|_| Err(RemoteError::gone())))
    }
}

impl Drop for RemoteReply {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else { return };
        if answer.try_recv().is_some() {
            return;
        }
        // The pool's thread may look at the list before it sees the job: then it finds its reply
        // closed, as it is from here on.
        drop(answer);
        let cancelled = &self.remote.cancelled;
        cancelled.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        // A full channel is one that the pool's thread will look at anyway.
        let _ = self.remote.requests.try_send(Request::Cancelled);
    }
}

/// The jobs of other threads that have not ended, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct RemoteJobs(HashMap<u64, JobId>);

impl Pool {
    /// A handle of this pool for other threads.
    pub fn remote(&self) -> Remote {
        let (requests, receiver) = mpsc::channel(REMOTE_REQUESTS_LIMIT);
        let max_body_bytes = self.0.core.borrow().config.max_body_bytes;
        let cancelled = Cancelled::default();
        remuda_net::spawn(hear(Rc::downgrade(&self.0), receiver, cancelled.clone()));
        Remote { requests, cancelled, max_body_bytes }
    }
}

/// Takes in what other threads ask, all that is there at once.
async fn hear(pool: Weak<Inner>, mut requests: mpsc::Receiver<Request>, cancelled: Cancelled) {
    let mut taken = Vec::new();
    while requests.recv_many(&mut taken).await > 0 {
        let Some(inner) = pool.upgrade() else { return };
        let core = &mut *inner.core.borrow_mut();
        for request in taken.drain(..) {
            match request {
                Request::Call(call) => core.remote_call(call),
                // Who asked and left needs no answer.
                Request::Status(reply) => drop(reply.send(core.status())),
                Request::Health(reply) => drop(reply.send(core.health())),
                Request::Cancelled => core.cancel_remote(&cancelled),
            }
        }
        // Those that found no room to tell.
        core.cancel_remote(&cancelled);
        core.carry_out(&[]);
    }
}

impl Core {
    fn health(&self) -> Health {
        let snapshot = self.dispatch.snapshot(self.now());
        Health { accepting: snapshot.phase == Phase::Running, ready_workers: snapshot.ready() }
    }

    /// Drops the jobs that nobody waits for any more.
    fn cancel_remote(&mut self, cancelled: &Cancelled) {
        let numbers =
            std::mem::take(&mut *cancelled.lock().unwrap_or_else(PoisonError::into_inner));
        let now = self.now();
        for number in numbers {
            if let Some(job) = self.remote_jobs.0.remove(&number) {
                self.dispatch.cancel(now, job);
            }
        }
    }

    fn remote_call(&mut self, call: NewCall) {
        if call.reply.0.is_closed() {
            return;
        }
        let size = call.body.len();
        if self.bodies_bytes > 0 && self.bodies_bytes + size > self.config.max_bodies_bytes {
            let message = "the bodies in the queue are at their limit";
            call.reply.send(Err(RemoteError::not_run(Code::QueueFull, message)));
            return;
        }
        let now = self.now();
        let left = call.timeout.map(|timeout| timeout.saturating_sub(call.arrived.elapsed()));
        let deadline = left.map(|left| now.saturating_add(left));
        let options = JobOptions { deadline, ..JobOptions::default() };
        let origin = Origin::Remote { number: call.number, reply: call.reply };
        let job = Job { body: Body::Shared(call.body), origin };
        self.bodies_bytes += size;
        match self.dispatch.submit(now, job, options) {
            Ok(job) => {
                self.remote_jobs.0.insert(call.number, job);
            }
            Err(refused) => {
                self.bodies_bytes -= size;
                if let Origin::Remote { reply, .. } = refused.payload.origin {
                    reply.refuse(refused.reason);
                }
            }
        }
    }

    /// A job of another thread has ended.
    pub(crate) fn finish_remote(
        &mut self,
        number: u64,
        reply: ReplyTo,
        size: usize,
        outcome: &Outcome<Answer>,
        line: &[u8],
    ) {
        self.remote_jobs.0.remove(&number);
        self.bodies_bytes -= size;
        reply.send(match outcome {
            Outcome::Done(answer) => result(answer.body.bytes(line), answer.form),
            Outcome::Failed { code, cause, may_have_run } => {
                Err(failure(*code, cause, *may_have_run, line))
            }
        });
    }
}

impl ReplyTo {
    fn send(self, result: Result<Bytes, RemoteError>) {
        // Who doesn't wait any more has cancelled the job: its end concerns nobody.
        let _ = self.0.send(result);
    }

    fn refuse(self, reason: RefusedReason) {
        self.send(Err(RemoteError::not_run(reason.code(), reason.to_string())));
    }
}

/// A result as JSON.
fn result(bytes: &[u8], form: Form) -> Result<Bytes, RemoteError> {
    match form {
        Form::Json => Ok(Bytes::copy_from_slice(bytes)),
        Form::Text => {
            let mut json = Vec::with_capacity(bytes.len() + 2);
            let message = "the filter's answer is not UTF-8, which JSON can't carry";
            match json_string(&mut json, bytes) {
                Ok(()) => Ok(json.into()),
                Err(_) => Err(RemoteError {
                    may_have_run: true,
                    ..RemoteError::not_run(Code::HandlerError, message)
                }),
            }
        }
    }
}

fn failure(code: Code, cause: &Cause<Answer>, may_have_run: bool, line: &[u8]) -> RemoteError {
    let failed = crate::core::failed(code, cause, may_have_run, line);
    RemoteError { code, message: failed.message, traceback: failed.traceback, may_have_run }
}
