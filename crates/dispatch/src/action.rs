//! What the pool wants done, and how jobs end.

use std::fmt;
use std::time::Duration;

use crate::deadline::{NEVER, Nanos};
use crate::worker::Exit;
use crate::{CallId, JobId, WorkerId};

/// What the pool wants done. Polled by [`poll_action`](crate::Dispatch::poll_action), in the order
/// in which it is to be done.
///
/// `Cancel`, `Stop` and `Kill` may name a worker that was reported as gone between their cause and
/// the poll: there is nothing to do then. `Spawn` and `Send` never do.
#[derive(Debug)]
#[must_use = "the pool counts on it being done"]
pub enum Action<J, R> {
    /// Start a worker. Report [`ready`](crate::Dispatch::ready),
    /// [`start_failed`](crate::Dispatch::start_failed) or [`exited`](crate::Dispatch::exited).
    Spawn {
        /// The name that all events about it carry.
        worker: WorkerId,
        /// `REMUDA_WORKER_SLOT`: 0 to num_workers - 1, stable over restarts. While a worker is
        /// being replaced, two have the same.
        slot: u32,
        /// Which set-up to start it with: 0, or what [`reset`](crate::Dispatch::reset) returned.
        /// A slot's workers are started again with the one that was last ready there.
        generation: u32,
    },
    /// Send a call. Its jobs are read by [`call`](crate::Dispatch::call), before the next event.
    Send {
        /// To whom.
        worker: WorkerId,
        /// What.
        call: CallId,
    },
    /// Tell a worker to cancel a call. Only for one that declared `cancel`.
    Cancel {
        /// Whom to tell.
        worker: WorkerId,
        /// What it was sent before.
        call: CallId,
    },
    /// Ask a worker to end: shut the sending half of its socket. It has no call in flight.
    /// An attached peer isn't stopped itself: its link is closed. If it was shutting down by itself,
    /// report [`exited`](crate::Dispatch::exited) then, and [`ready`](crate::Dispatch::ready) when
    /// it is there again; if the pool ends, it is known no longer.
    Stop {
        /// Whom to ask.
        worker: WorkerId,
    },
    /// SIGTERM to the worker and all that descends from it, then SIGKILL after `destroy_timeout`.
    /// Read its socket to the end ([`replied`](crate::Dispatch::replied) is still heard), then
    /// report [`exited`](crate::Dispatch::exited). Never for an attached peer.
    Kill {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: KillReason,
    },
    /// A job has ended.
    Finish {
        /// Which job. Its name is stale now.
        job: JobId,
        /// What was given to [`submit`](crate::Dispatch::submit).
        payload: J,
        /// How it ended.
        outcome: Outcome<R>,
        /// Where and when it ran.
        facts: Facts,
    },
    /// No worker ever became ready: the pool has stopped trying, ended its jobs as `internal`, and
    /// refuses others as draining. See [`Config::give_up`](crate::Config::give_up).
    GiveUp {
        /// How many starts failed in a row.
        starts: u32,
    },
    /// The reset is done: all workers were replaced.
    ResetDone {
        /// What `reset` returned.
        generation: u32,
    },
    /// A new worker didn't become ready, and the reset was given up. The old workers stay.
    ResetFailed {
        /// What `reset` returned.
        generation: u32,
        /// The new worker that didn't become ready; `None` if the pool began to drain.
        worker: Option<WorkerId>,
        /// How many slots have a worker of the new generation nevertheless.
        replaced: u32,
    },
    /// The drain is done: every job has ended, and every worker that the pool started is gone.
    Drained,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// With the worker's answer.
    Done(R),
    /// With a failure.
    Failed {
        /// Which.
        code: Code,
        /// In whose words.
        cause: Cause<R>,
        /// Whether the job may have run, in part or wholly.
        may_have_run: bool,
    },
}

/// Who says why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause<R> {
    /// The worker, or another pool, in its answer.
    Peer(R),
    /// This pool.
    Pool(Reason),
}

/// A worker's answer to one job, as the engine read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<R> {
    /// The job's result.
    Done(R),
    /// The job's failure.
    Failed {
        /// The code that the peer sent.
        code: Code,
        /// What it said.
        error: R,
    },
}

/// The protocol's codes. `docs/protocol.md` says for each who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// `bad_request`
    BadRequest,
    /// `body_too_large`
    BodyTooLarge,
    /// `unknown_op`
    UnknownOp,
    /// `handshake_required`
    HandshakeRequired,
    /// `unauthorized`
    Unauthorized,
    /// `queue_full`
    QueueFull,
    /// `queue_timeout`
    QueueTimeout,
    /// `timeout`
    Timeout,
    /// `cancelled`
    Cancelled,
    /// `worker_lost`
    WorkerLost,
    /// `poisoned`
    Poisoned,
    /// `handler_error`
    HandlerError,
    /// `draining`
    Draining,
    /// `internal`
    Internal,
}

/// Why this pool ended a job without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Its budget was spent in the queue.
    #[error(
        "the job waited in the queue until its time was over: allow more time, or run more workers"
    )]
    QueueTimeout,
    /// It waited for too long for a pool that is overloaded.
    #[error("the pool is overloaded and the job had waited for too long: try again later")]
    Overloaded,
    /// Its budget was spent while it ran.
    #[error("the job's time was over before its worker answered")]
    Deadline,
    /// It ran for longer than [`exec_ttl`](crate::Supervisor::exec_ttl).
    #[error("the job ran for longer than exec_ttl (of map: --timeout), and its worker was killed")]
    ExecTimeout,
    /// Its client cancelled it.
    #[error("the job was cancelled")]
    Cancelled,
    /// Its worker died.
    #[error("the worker {0} while it had the job")]
    WorkerLost(Exit),
    /// Its worker broke the protocol.
    #[error("the worker was killed while it had the job: {0}")]
    WorkerFault(Fault),
    /// Its worker was killed by this pool for another reason.
    #[error("the pool killed the worker while it had the job")]
    WorkerKilled,
    /// The link to an attached peer was lost.
    #[error("the link to the peer was lost while it had the job")]
    LinkLost,
    /// Too many workers died under it.
    #[error("{0} workers died while they had this job: it is not tried again")]
    Poisoned(u32),
    /// The pool is draining, and drops what is queued.
    #[error("the pool is draining")]
    Draining,
    /// The pool was stopped at once.
    #[error("the pool was stopped")]
    Stopped,
    /// No worker could be started.
    #[error("no worker could be started: see the pool's log for the workers' standard error")]
    NoWorker,
}

/// How a worker broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It answered a call that it wasn't sent, or had answered already.
    #[error("it answered a call that it was not sent, or had answered already")]
    UnknownCall,
    /// It answered a batch with another number of answers than the batch has jobs.
    #[error("it answered a batch of {jobs} with {answers} answers")]
    AnswerCount {
        /// The batch's jobs.
        jobs: u32,
        /// The answers.
        answers: u32,
    },
    /// It declared that it is ordered, and answered out of order.
    #[error("it declared that it is ordered, and answered out of order")]
    OutOfOrder,
    /// What it sent can't be read: the engine found out.
    #[error("what it sent can't be read")]
    Garbage,
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KillReason {
    /// It wasn't ready within `allocate_timeout` (in a reset: `reset_timeout`).
    AllocateTimeout,
    /// Its job ran for longer than that job may.
    ExecTimeout,
    /// It was asked to end and didn't within `destroy_timeout`.
    DestroyTimeout,
    /// It broke the protocol.
    Fault(Fault),
    /// The pool is stopped at once, or no longer wants a worker that wasn't ready yet.
    Stopped,
}

/// Where and when a job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The worker that had it last.
    pub worker: Option<WorkerId>,
    /// That worker's slot.
    pub slot: Option<u32>,
    /// How often it was sent to a worker that may have run it.
    pub tries: u32,
    pub(crate) submitted: Nanos,
    /// [`NEVER`]: not at all.
    pub(crate) started: Nanos,
    pub(crate) ended: Nanos,
}

impl Facts {
    /// When it was submitted.
    pub fn submitted_at(&self) -> Duration {
        Duration::from_nanos(self.submitted)
    }

    /// When its last try started: for one that was handed ahead, when the answer before it came.
    pub fn started_at(&self) -> Option<Duration> {
        (self.started != NEVER).then(|| Duration::from_nanos(self.started))
    }

    /// From when it was submitted until its last try started, or until it ended.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.started.min(self.ended).saturating_sub(self.submitted))
    }

    /// From when its last try started until it ended.
    pub fn ran(&self) -> Duration {
        Duration::from_nanos(self.ended.saturating_sub(self.started))
    }
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Code; 14] = [
        Code::BadRequest,
        Code::BodyTooLarge,
        Code::UnknownOp,
        Code::HandshakeRequired,
        Code::Unauthorized,
        Code::QueueFull,
        Code::QueueTimeout,
        Code::Timeout,
        Code::Cancelled,
        Code::WorkerLost,
        Code::Poisoned,
        Code::HandlerError,
        Code::Draining,
        Code::Internal,
    ];

    /// As the protocol spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::BodyTooLarge => "body_too_large",
            Code::UnknownOp => "unknown_op",
            Code::HandshakeRequired => "handshake_required",
            Code::Unauthorized => "unauthorized",
            Code::QueueFull => "queue_full",
            Code::QueueTimeout => "queue_timeout",
            Code::Timeout => "timeout",
            Code::Cancelled => "cancelled",
            Code::WorkerLost => "worker_lost",
            Code::Poisoned => "poisoned",
            Code::HandlerError => "handler_error",
            Code::Draining => "draining",
            Code::Internal => "internal",
        }
    }

    /// Whether a job may have run when a peer answers it with this code.
    pub fn may_have_run(self) -> bool {
        match self {
            Code::Timeout
            | Code::Cancelled
            | Code::WorkerLost
            | Code::Poisoned
            | Code::HandlerError
            | Code::Internal => true,
            Code::BadRequest
            | Code::BodyTooLarge
            | Code::UnknownOp
            | Code::HandshakeRequired
            | Code::Unauthorized
            | Code::QueueFull
            | Code::QueueTimeout
            | Code::Draining => false,
        }
    }
}

impl Reason {
    /// The code that goes with it.
    pub fn code(self) -> Code {
        match self {
            Reason::QueueTimeout | Reason::Overloaded => Code::QueueTimeout,
            Reason::Deadline | Reason::ExecTimeout => Code::Timeout,
            Reason::Cancelled => Code::Cancelled,
            Reason::WorkerLost(_)
            | Reason::WorkerFault(_)
            | Reason::WorkerKilled
            | Reason::LinkLost
            | Reason::Stopped => Code::WorkerLost,
            Reason::Poisoned(_) => Code::Poisoned,
            Reason::Draining => Code::Draining,
            Reason::NoWorker => Code::Internal,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl KillReason {
    /// In lower-case words, joined by underscores.
    pub fn as_str(self) -> &'static str {
        match self {
            KillReason::AllocateTimeout => "allocate_timeout",
            KillReason::ExecTimeout => "exec_timeout",
            KillReason::DestroyTimeout => "destroy_timeout",
            KillReason::Fault(_) => "fault",
            KillReason::Stopped => "stopped",
        }
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillReason::AllocateTimeout => f.write_str("it was not ready in time"),
            KillReason::ExecTimeout => f.write_str("its job ran for longer than it may"),
            KillReason::DestroyTimeout => f.write_str("it did not end when it was asked to"),
            KillReason::Fault(fault) => fault.fmt(f),
            KillReason::Stopped => f.write_str("the pool was stopped"),
        }
    }
}
