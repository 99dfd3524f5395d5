//! The last exits and failures of workers, for whoever asks why.

use std::collections::VecDeque;
use std::time::Duration;

use remuda_dispatch::{Dispatch, Exit, KillReason, RestartReason, WorkerId};

use crate::job::{Answer, Job, Origin};
use crate::link::Link;

/// How many incidents are kept.
pub const INCIDENTS_LIMIT: usize = 100;
/// The same incident is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A worker that ended, and what it left to read.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The worker's number.
    pub worker: u64,
    /// Its slot.
    pub slot: u32,
    /// When, on the pool's clock.
    pub at: Duration,
    /// How it ended.
    pub exit: Exit,
    /// Why the pool killed it, if it did.
    pub killed: Option<KillReason>,
    /// Whether it had been ready.
    pub was_ready: bool,
    /// What went wrong, where more is known than how it ended.
    pub trouble: Option<String>,
    /// The last lines that it printed.
    pub stderr: Vec<String>,
    /// What it was counted as; `None` if it was no restart: the pool ends, or another thread took
    /// the place of one that panicked.
    pub reason: Option<RestartReason>,
    /// The job that it had had for longest, if it had one.
    pub job: Option<LostJob>,
    /// How many jobs it had.
    pub jobs: usize,
}

/// A job that a worker had when it ended.
#[derive(Debug, Clone)]
pub struct LostJob {
    /// The id that its client gave, or its number, as JSON; `None` if it has neither.
    pub id: Option<String>,
    /// The length of its body, in bytes.
    pub bytes: usize,
    /// For how long it had been running; `None` if that is not known.
    pub ran: Option<Duration>,
}

impl LostJob {
    pub(crate) fn of(job: &Job, ran: Option<Duration>) -> Self {
        let id = match &job.origin {
            Origin::Local { number, .. } => Some(number.to_string()),
            Origin::Client { name, .. } => name.id().map(|id| id.to_string()),
            Origin::Remote { .. } => None,
        };
        Self { id, bytes: job.body.len(), ran }
    }
}

impl std::fmt::Display for LostJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.id {
            Some(id) => write!(f, "job {id}, {} bytes", self.bytes)?,
            None => write!(f, "a job of {} bytes", self.bytes)?,
        }
        match self.ran {
            Some(ran) => write!(f, ", for {:.1}s", ran.as_secs_f64()),
            None => Ok(()),
        }
    }
}

impl Incident {
    pub(crate) fn of(link: &Link, exit: Exit, at: Duration) -> Self {
        Self {
            worker: link.number,
            slot: link.slot,
            at,
            exit,
            killed: link.killed,
            was_ready: link.ready,
            trouble: link.trouble.clone(),
            stderr: link.tail.lines().map(str::to_owned).collect(),
            reason: None,
            job: link.overdue.clone(),
            jobs: 0,
        }
    }

    /// Takes note of what the worker had, before the dispatch is told that it is gone.
    pub(crate) fn take_note(&mut self, dispatch: &Dispatch<Job, Answer>, worker: WorkerId) {
        let view = dispatch.view(self.at, worker);
        self.reason = view.and_then(|view| view.restart_reason);
        let ran = view.and_then(|view| view.job_age);
        let mut jobs = dispatch.jobs_of(worker).map(|job| LostJob::of(job, ran));
        self.job = self.job.take().or_else(|| jobs.next());
        self.jobs = usize::from(self.job.is_some()) + jobs.count();
    }

    /// What happened, in one sentence.
    fn what(&self) -> String {
        match &self.trouble {
            Some(trouble) => trouble.clone(),
            None if self.was_ready => match self.killed {
                Some(reason) => format!("the worker was killed: {reason}"),
                None => format!("the worker {}", self.exit),
            },
            None if self.killed == Some(KillReason::AllocateTimeout) => "the worker did not answer \
                 the handshake within allocate_timeout: it must answer as docs/protocol.md says; if \
                 it needs longer to start, raise allocate_timeout"
                .to_owned(),
            None => format!("the worker {} before it answered the handshake", self.exit),
        }
    }

    /// What happened, in one sentence, then what the worker printed last.
    pub fn explain(&self) -> String {
        let mut text = self.what();
        let said = |line: &&String| !text.contains(line.trim_start_matches("remuda: "));
        let lines: Vec<&String> = self.stderr.iter().filter(said).collect();
        if !lines.is_empty() {
            text.push_str("; it printed:");
            for line in lines {
                text.push_str("\n  ");
                text.push_str(line);
            }
        }
        text
    }
}

/// The last incidents.
#[derive(Debug, Default)]
pub(crate) struct History {
    incidents: VecDeque<Incident>,
    was_any_ready: bool,
    /// What was logged last, and when.
    logged: Option<(String, Duration)>,
}

impl History {
    pub(crate) fn record(&mut self, incident: Incident) {
        self.was_any_ready |= incident.was_ready;
        self.log(&incident);
        if self.incidents.len() == INCIDENTS_LIMIT {
            self.incidents.pop_front();
        }
        self.incidents.push_back(incident);
    }

    /// Logs an end that nobody wanted, and not each time for what is tried again and again. One
    /// that broke the protocol was told of when it did.
    fn log(&mut self, incident: &Incident) {
        use RestartReason::{ExecTimeout, Lost, Memory, StartFailed};
        let Some(reason @ (Lost | StartFailed | ExecTimeout | Memory)) = incident.reason else {
            return;
        };
        let text = match incident.was_ready {
            // What it printed was logged when it came.
            true => incident.what(),
            false => incident.explain(),
        };
        let since = |at: &Duration| incident.at.saturating_sub(*at);
        let was_logged = |(last, at): &(String, _)| *last == text && since(at) < LOG_INTERVAL;
        if !self.logged.as_ref().is_some_and(was_logged) {
            let (number, slot, reason) = (incident.worker, incident.slot, reason.as_str());
            match &incident.job {
                Some(job) => {
                    tracing::warn!("worker {number} (slot {slot}, {reason}) with {job}: {text}")
                }
                None => tracing::warn!("worker {number} (slot {slot}, {reason}): {text}"),
            }
            self.logged = Some((text, incident.at));
        }
    }

    /// The incidents, oldest first.
    pub(crate) fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter()
    }

    /// True if a worker was ready among those that have ended.
    pub(crate) fn was_any_ready(&self) -> bool {
        self.was_any_ready
    }

    /// True if a worker that is gone had the same trouble: it has been told of.
    pub(crate) fn was_trouble(&self, trouble: &str) -> bool {
        self.incidents.iter().any(|incident| incident.trouble.as_deref() == Some(trouble))
    }

    /// How the last worker died, as the end of a message.
    pub(crate) fn last_death(&self) -> String {
        let Some(incident) = self.incidents.back() else { return String::new() };
        match &incident.trouble {
            Some(trouble) => format!(". The last time, {trouble}"),
            None => format!(". The last time, the worker {}", incident.exit),
        }
    }

    /// Why the last start that failed did.
    pub(crate) fn last_failed_start(&self) -> String {
        self.incidents
            .iter()
            .rev()
            .find(|incident| !incident.was_ready)
            .map_or_else(|| "nothing is known of it".to_owned(), Incident::explain)
    }

    /// Why a worker that is still there, or the last one that is gone, was not ready.
    pub(crate) fn why_not_ready(&self, link: Option<&mut Link>) -> String {
        match link {
            Some(link) => {
                let exit = link.exit.unwrap_or(Exit::Unknown);
                let mut incident = Incident::of(link, exit, Duration::ZERO);
                if incident.trouble.is_none() && link.exit.is_none() {
                    incident.trouble = Some("the worker was not ready in time".to_owned());
                }
                incident.explain()
            }
            None => self.last_failed_start(),
        }
    }
}
