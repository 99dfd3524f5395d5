//! The link to a filter: lines into its stdin, and as many lines out of its stdout.
//!
//! A filter does not say which line an answer belongs to, so answers are taken a group at a time:
//! a group's lines are written, and nothing of its answers is passed on until exactly as many came
//! as lines were written. The next group is written after that. A filter that drops a line or adds
//! one is found out by the count, before any result of the group was seen by anybody.
//!
//! What it prints is bounded: an answer over `max_body_bytes` is thrown away and fails its line, and
//! a group whose answers are larger than a few of these together is tried again one by
//! one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::rc::Rc;
use std::time::Duration;

use remuda_dispatch::{CallId, Code, Dispatch, Exit, Fault, Reply as Outcome, WorkerId};
use remuda_net::{Notifier, ReadyFd};
use remuda_protocol::{Raw, encode};

use crate::core::Core;
use crate::error::PoolError;
use crate::job::{Answer, Form, Job, Origin, Span};
use crate::link::talk::{Idle, Talk, Told};
use crate::link::{Link, Transport};
use crate::pool::Pool;

/// The most lines of a group.
pub(crate) const GROUP_LINES: u32 = 512;
/// After so long without an answer, the filter is looked at: does it wait for more input?
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// What the dispatch hands to the filter, and the task that talks to it takes up.
pub(crate) struct FilterLink {
    groups: RefCell<VecDeque<Group>>,
    pub(super) changed: Notifier,
    ending: Cell<bool>,
    /// The number of the first line that was handed over and has no answer.
    unanswered: Cell<Option<u64>>,
    /// It has answered lines.
    has_answered: Cell<bool>,
    /// It has ended, and of what was written for it, it read nothing.
    never_read: Cell<bool>,
}

/// Lines that are written together.
pub(super) struct Group {
    call: CallId,
    pub(super) lines: Vec<u8>,
    pub(super) count: usize,
    form: Form,
    /// The number of its first job, where it is one of the program's own.
    first: Option<u64>,
}

impl FilterLink {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            groups: RefCell::default(),
            changed: Notifier::new(),
            ending: Cell::new(false),
            unanswered: Cell::new(None),
            has_answered: Cell::new(false),
            never_read: Cell::new(false),
        })
    }

    pub(crate) fn send(&self, dispatch: &Dispatch<Job, Answer>, call: CallId) {
        let mut group = Group { call, lines: Vec::new(), count: 0, form: Form::Text, first: None };
        for (job, _) in dispatch.call(call) {
            if let Origin::Local { number, .. } = job.origin {
                group.first.get_or_insert(number);
            }
            if job.is_text() {
                group.lines.extend_from_slice(&job.body);
            } else {
                encode::push_body(&mut group.lines, &job.body);
                group.form = Form::Json;
            }
            group.lines.push(b'\n');
            group.count += 1;
        }
        self.groups.borrow_mut().push_back(group);
        self.changed.notify();
    }

    pub(crate) fn stop(&self) {
        self.ending.set(true);
        self.changed.notify();
    }
}

/// The pool's ends of a filter's pipes, which never wait, and what they are waited for by: to
/// watch a pipe takes a descriptor, which is not to be lacking in the midst of a job.
pub(crate) struct Pipes {
    pub(super) stdin: File,
    pub(super) writable: ReadyFd,
    pub(super) stdout: File,
    pub(super) readable: ReadyFd,
}

impl Pipes {
    pub(crate) fn new(stdin: File, stdout: File) -> remuda_net::Result<Self> {
        let writable = ReadyFd::writable(&stdin)?;
        let readable = ReadyFd::readable(&stdout)?;
        Ok(Self { stdin, writable, stdout, readable })
    }
}

/// Talks to the filter until it ends.
pub(crate) async fn run(pool: Pool, worker: WorkerId, link: Rc<FilterLink>, pipes: Pipes) {
    let max_line = pool.0.core.borrow().config.max_body_bytes;
    let mut talk = Talk::with(pipes, max_line);
    loop {
        let group = link.groups.borrow_mut().pop_front();
        let trouble = match group {
            Some(group) => match talk.group(&pool, worker, &group).await {
                Told::Answered => {
                    link.has_answered.set(true);
                    pool.0.core.borrow_mut().group_answered(worker, &group, &mut talk);
                    None
                }
                Told::Ended => {
                    link.unanswered.set(group.first);
                    break;
                }
                Told::Trouble(trouble) => Some((trouble, group.first)),
            },
            None if link.ending.get() => {
                talk.stdin = None;
                match talk.read_some().await {
                    false => break,
                    true => Some((talk.unasked(), None)),
                }
            }
            None => match talk.idle(&link).await {
                Idle::Work => None,
                Idle::Ended => break,
                Idle::Unasked => Some((talk.unasked(), None)),
            },
        };
        if let Some((trouble, first)) = trouble {
            pool.0.core.borrow_mut().filter_trouble(worker, &trouble, first);
            talk.stdin = None;
            while talk.read_some().await {
                talk.taken(Vec::new());
            }
            break;
        }
    }
    link.never_read.set(talk.is_unread());
    drop(talk);
    pool.0.core.borrow_mut().worker_read_to_end(worker);
}

/// How a filter shows that it can't be used.
pub(super) enum Trouble {
    /// So many lines were written, fewer came back, and it waits for more.
    Silent { written: usize, answered: usize },
    /// It has closed its stdin, and goes on without these lines.
    Deaf { written: usize },
    /// More lines came than were written; this is the first that is too many.
    Unasked { written: usize, answered: usize, line: String },
    /// The answers to so many lines are larger than all of them may be together.
    TooMuch { written: usize },
}

impl Trouble {
    /// What to tell the user, of lines that begin with number `first`.
    fn explain(&self, first: Option<u64>) -> String {
        let lines = |count: usize| match (first, count) {
            (Some(first), 1) => format!("line {first}"),
            (Some(first), count) => format!("lines {first} to {}", first + count as u64 - 1),
            (None, 1) => "a line".to_owned(),
            (None, count) => format!("{count} lines"),
        };
        match self {
            Self::Silent { written, answered } => format!(
                "{} got {answered} answers, and the filter waits for more input: it drops lines, or \
                 holds its output back. It must answer each line with one line at once: try \
                 `grep --line-buffered`, `jq -c --unbuffered`, `sed -u`, awk with `fflush()`, or \
                 `stdbuf -oL COMMAND`",
                lines(*written)
            ),
            Self::Deaf { written } => format!(
                "{} can't be given to the filter: it has closed its stdin, and did not end. It must \
                 read until there is no more input",
                lines(*written)
            ),
            Self::Unasked { written: 0, line, .. } => format!(
                "the filter printed a line that no line of input asked for: {line:?}. It must \
                 answer each line with exactly one line"
            ),
            Self::Unasked { written, answered, line } => format!(
                "{} got {answered} answers; the first too many is {line:?}. The filter must answer \
                 each line with exactly one line: `jq -c` prints each value on one line",
                lines(*written)
            ),
            Self::TooMuch { written } => format!(
                "the answers to {} are too large together: they are asked for one by one",
                lines(*written)
            ),
        }
    }
}

impl Core {
    /// All answers of a group are there: passes them on.
    fn group_answered(&mut self, worker: WorkerId, group: &Group, talk: &mut Talk) {
        let now = self.now();
        let max = self.config.max_body_bytes;
        let mut bytes = std::mem::take(&mut talk.answers);
        let answers_end = bytes.len();
        bytes.extend_from_slice(NOT_JSON.as_bytes());
        let too_long_from = bytes.len();
        bytes.extend_from_slice(too_large(max).as_bytes());
        let answers = &bytes[..answers_end];
        let failed = |code, message| {
            let body = Span::of(message, &bytes);
            let error = Answer { body, form: Form::Json, traceback: None };
            Outcome::Failed { code, error }
        };
        let outcomes: Vec<Outcome<Answer>> = answers
            .split(|byte| *byte == b'\n')
            .take(group.count)
            .enumerate()
            .map(|(place, line)| match group.form {
                _ if line.len() > max || talk.too_long.contains(&place) => {
                    failed(Code::BodyTooLarge, &bytes[too_long_from..])
                }
                Form::Json if Raw::new(line).is_err() => {
                    failed(Code::HandlerError, &bytes[answers_end..too_long_from])
                }
                form => {
                    let body = Span::of(line, &bytes);
                    Outcome::Done(Answer { body, form, traceback: None })
                }
            })
            .collect();
        // A fault is acted upon by the dispatch.
        let _ = self.dispatch.replied(now, worker, group.call, outcomes);
        self.carry_out(&bytes);
        bytes.clear();
        talk.taken(bytes);
    }

    fn filter_trouble(&mut self, worker: WorkerId, trouble: &Trouble, first: Option<u64>) {
        let now = self.now();
        let Some(link) = self.links.of(worker) else { return };
        let words = trouble.explain(first);
        let was_told = self.history.was_trouble(&words);
        link.trouble = Some(words.clone());
        match trouble {
            // Its lines are tried again one by one: then it can be told which of them it is.
            Trouble::Silent { written, .. } if *written > 1 => {}
            Trouble::TooMuch { .. } => {}
            _ if self.config.stop_at_wrong_filter => self.fail(PoolError::Filter(words)),
            _ if was_told => {}
            _ => tracing::warn!("{words}"),
        }
        self.dispatch.faulted(now, worker, Fault::Garbage);
        self.carry_out(&[]);
    }

    /// Why a filter that has ended by itself, while its input was open, is none; nothing if it may
    /// have died of a line, as any worker may.
    pub(crate) fn wrong_filter(&self, link: &Link, exit: Exit) -> Option<String> {
        let Transport::Filter(filter) = &link.transport else { return None };
        if filter.ending.get() || link.killed.is_some() || link.trouble.is_some() {
            return None;
        }
        let Exit::Status(status) = exit else { return None };
        if status == 0 {
            let which = filter
                .unanswered
                .get()
                .map_or_else(String::new, |line| format!("line {line} got no answer: "));
            return Some(format!(
                "{which}the filter ended with status 0 while its input was open. It must answer \
                 each line with one line until its input ends"
            ));
        }
        (filter.never_read.get() && !self.has_any_filter_answered()).then(|| {
            format!(
                "the filter ended with status {status} before it read a line: run it by itself on \
                 one line of the input to see why"
            )
        })
    }

    fn has_any_filter_answered(&self) -> bool {
        let answered = |link: &Link| match &link.transport {
            Transport::Filter(filter) => filter.has_answered.get(),
            Transport::Process(_) | Transport::Thread(_) => false,
        };
        self.links.iter().any(answered)
    }
}

/// The message for an answer over `max` bytes, as JSON.
fn too_large(max: usize) -> String {
    format!("\"the answer is larger than max_body_bytes ({max}): raise it, or print less\"")
}

/// The message for an answer that should be JSON, as JSON.
const NOT_JSON: &str = "\"the filter's answer is not a JSON value on one line\"";
