//! A worker as the pool sees it.

use std::fmt;

use crate::KillReason;
use crate::deadline::{NEVER, Nanos};
use crate::service::{LastAnswer, ServiceTime};
use crate::slab::NONE;

/// What a worker declared in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How many jobs it runs at once. Zero is read as one.
    pub capacity: u32,
    /// It runs them one after the other, in the order they came, and sends each answer before it
    /// starts the next. Its `capacity` is then read as one.
    pub ordered: bool,
    /// How many bodies one call may carry. Zero or one: no batches.
    pub batch: u32,
    /// It can be told to cancel a call.
    pub cancel: bool,
}

impl Default for Offer {
    /// One job at a time, in order, no batches, no cancelling: what the simplest worker does.
    fn default() -> Self {
        Self { capacity: 1, ordered: true, batch: 0, cancel: false }
    }
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// With a status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows: a thread, a link, a keeper that died.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "exited with status {status}"),
            Exit::Signal(signal) => {
                write!(f, "was killed by signal {signal}")?;
                signal_name(*signal).map_or(Ok(()), |name| write!(f, " ({name})"))
            }
            Exit::Unknown => f.write_str("was lost"),
        }
    }
}

/// The name of a signal that ends workers and has the same number wherever Linux runs.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerState {
    /// Spawned, not ready yet.
    Starting,
    /// Ready, without a job.
    Idle,
    /// Ready, with at least one job.
    Busy,
    /// Finishes what it has, and gets no more.
    Draining,
    /// Asked to end.
    Stopping,
    /// Being killed.
    Killed,
    /// An attached peer without a link.
    Away,
}

impl WorkerState {
    /// All states, in the order of their numbers.
    pub const ALL: [WorkerState; 7] = [
        WorkerState::Starting,
        WorkerState::Idle,
        WorkerState::Busy,
        WorkerState::Draining,
        WorkerState::Stopping,
        WorkerState::Killed,
        WorkerState::Away,
    ];

    /// In one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Idle => "idle",
            WorkerState::Busy => "busy",
            WorkerState::Draining => "draining",
            WorkerState::Stopping => "stopping",
            WorkerState::Killed => "killed",
            WorkerState::Away => "away",
        }
    }
}

/// Why a worker was replaced, or started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RestartReason {
    /// It died by itself.
    Lost,
    /// It was never ready.
    StartFailed,
    /// Its job ran for longer than it may.
    ExecTimeout,
    /// It broke the protocol.
    Fault,
    /// It had done `max_jobs`.
    MaxJobs,
    /// It had reached its `ttl`.
    Ttl,
    /// It had reached its `idle_ttl`.
    IdleTtl,
    /// It was over `max_worker_memory`.
    Memory,
    /// The pool was reset.
    Reset,
}

impl RestartReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [RestartReason; 9] = [
        RestartReason::Lost,
        RestartReason::StartFailed,
        RestartReason::ExecTimeout,
        RestartReason::Fault,
        RestartReason::MaxJobs,
        RestartReason::Ttl,
        RestartReason::IdleTtl,
        RestartReason::Memory,
        RestartReason::Reset,
    ];

    /// In lower-case words, joined by underscores.
    pub fn as_str(self) -> &'static str {
        match self {
            RestartReason::Lost => "lost",
            RestartReason::StartFailed => "start_failed",
            RestartReason::ExecTimeout => "exec_timeout",
            RestartReason::Fault => "fault",
            RestartReason::MaxJobs => "max_jobs",
            RestartReason::Ttl => "ttl",
            RestartReason::IdleTtl => "idle_ttl",
            RestartReason::Memory => "memory",
            RestartReason::Reset => "reset",
        }
    }
}

/// The pool's part of [`WorkerState`]: whether a ready one is idle can be told from its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    Ready,
    Draining,
    Stopping,
    Killed,
    Away,
}

/// A worker, from its spawn until it is gone, or an attached peer.
#[derive(Debug)]
pub(crate) struct Worker {
    /// [`NONE`]: an attached peer.
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) stage: Stage,
    pub(crate) offer: Offer,
    /// The calls that it has not answered, in the order in which they were sent.
    pub(crate) first_call: u32,
    pub(crate) last_call: u32,
    pub(crate) calls: u32,
    pub(crate) jobs: u32,
    pub(crate) answered: u64,
    /// After so many jobs it is replaced.
    pub(crate) max_jobs: u64,
    pub(crate) service: ServiceTime,
    pub(crate) last_answer: LastAnswer,
    /// It had no job before the one that it runs.
    pub(crate) began_idle: bool,
    pub(crate) spawned: Nanos,
    pub(crate) idle_since: Nanos,
    /// By when it has to be ready, drained or gone.
    pub(crate) stage_by: Nanos,
    pub(crate) memory: Option<u64>,
    /// What it may use: never below what it needed when it was fresh.
    pub(crate) memory_first: u64,
    pub(crate) memory_over: u32,
    /// Why it is to be replaced, or was.
    pub(crate) retire: Option<RestartReason>,
    pub(crate) killed: Option<KillReason>,
    /// It broke the protocol: nothing that it says counts any more.
    pub(crate) faulted: bool,
    /// Whether the list of the idle ones, and of those with room, has an entry of it.
    pub(crate) in_idle: bool,
    pub(crate) in_room: bool,
}

impl Worker {
    pub(crate) fn new(slot: u32, generation: u32, now: Nanos) -> Self {
        Self {
            slot,
            generation,
            stage: if slot == NONE { Stage::Away } else { Stage::Starting },
            offer: Offer::default(),
            first_call: NONE,
            last_call: NONE,
            calls: 0,
            jobs: 0,
            answered: 0,
            max_jobs: u64::MAX,
            service: ServiceTime::unknown(),
            last_answer: LastAnswer::default(),
            began_idle: false,
            spawned: now,
            idle_since: now,
            stage_by: NEVER,
            memory: None,
            memory_first: 0,
            memory_over: 0,
            retire: None,
            killed: None,
            faulted: false,
            in_idle: false,
            in_room: false,
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.slot == NONE
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    pub(crate) fn state(&self) -> WorkerState {
        match self.stage {
            Stage::Starting => WorkerState::Starting,
            Stage::Ready if self.calls == 0 => WorkerState::Idle,
            Stage::Ready => WorkerState::Busy,
            Stage::Draining => WorkerState::Draining,
            Stage::Stopping => WorkerState::Stopping,
            Stage::Killed => WorkerState::Killed,
            Stage::Away => WorkerState::Away,
        }
    }

    /// What its end, if it came now, would be counted as.
    pub(crate) fn restart_reason(&self) -> RestartReason {
        match (self.retire, self.killed) {
            (Some(reason), _) if self.stage != Stage::Ready => reason,
            (_, Some(KillReason::Fault(_))) => RestartReason::Fault,
            (_, Some(KillReason::ExecTimeout)) => RestartReason::ExecTimeout,
            (_, Some(KillReason::AllocateTimeout)) => RestartReason::StartFailed,
            _ if self.stage == Stage::Starting => RestartReason::StartFailed,
            _ => RestartReason::Lost,
        }
    }

    /// Whether its death is none of its jobs' fault: the pool killed it.
    pub(crate) fn was_killed_by_pool(&self) -> bool {
        !matches!(self.killed, None | Some(KillReason::Fault(_)))
    }
}
