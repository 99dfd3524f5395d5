//! The link to a filter: lines into its stdin, and as many lines out of its stdout.
//!
//! A filter does not say which line an answer belongs to, so answers are taken a group at a time:
//! a group's lines are written, and nothing of its answers is passed on until exactly as many came
//! as lines were written. The next group is written after that. A filter that drops a line or adds
//! one is found out by the count, before any result of the group was seen by anybody.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use remuda_dispatch::{CallId, Code, Dispatch, Exit, Fault, Reply as Outcome, WorkerId};
use remuda_net::{Either3, Notifier};
use remuda_protocol::{Raw, encode};

use crate::core::Core;
use crate::error::PoolError;
use crate::job::{Answer, Form, Job, Origin, Span};
use crate::link::{Link, Transport, asleep};
use crate::pool::Pool;

/// The most lines of a group.
pub(crate) const GROUP_LINES: u32 = 512;
/// After so long without an answer, the filter is looked at: does it wait for more input?
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// How long is waited at a time for a filter to read again, once it has answered a group.
const SETTLE_STEP: Duration = Duration::from_millis(1);
/// How often that is waited.
const SETTLE_STEPS: u32 = 100;
/// A filter that so many groups in a row were waited for in vain doesn't show when it reads: from
/// there on, only its lines are counted.
const UNSETTLED_LIMIT: u32 = 3;
/// How much is read at once, in bytes.
const READ_SIZE: usize = 64 << 10;

/// What the dispatch hands to the filter, and the task that talks to it takes up.
pub(crate) struct FilterLink {
    groups: RefCell<VecDeque<Group>>,
    changed: Notifier,
    ending: Cell<bool>,
    /// The number of the first line that was handed over and has no answer.
    unanswered: Cell<Option<u64>>,
    /// It has answered lines.
    has_answered: Cell<bool>,
    /// It has ended, and of what was written for it, it read nothing.
    never_read: Cell<bool>,
}

/// Lines that are written together.
struct Group {
    call: CallId,
    lines: Vec<u8>,
    count: usize,
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
            if let Origin::Local(number) = job.origin {
                group.first.get_or_insert(number);
            }
            if job.text {
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

/// The pool's ends of a filter's pipes.
pub(crate) struct Pipes {
    pub(crate) stdin: File,
    pub(crate) stdout: File,
}

/// Talks to the filter until it ends.
pub(crate) async fn run(pool: Pool, worker: WorkerId, link: Rc<FilterLink>, pipes: Pipes) {
    let Pipes { stdin, stdout } = pipes;
    let mut talk = Talk::with(stdin, stdout);
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
                    0 => break,
                    _ => Some((talk.unasked(), None)),
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
            while talk.read_some().await > 0 {
                talk.answers.clear();
            }
            break;
        }
    }
    link.never_read.set(talk.is_unread());
    drop(talk);
    pool.0.core.borrow_mut().worker_read_to_end(worker);
}

/// What became of a group.
enum Told {
    Answered,
    /// The filter's stdout has ended.
    Ended,
    Trouble(Trouble),
}

/// What happened while nothing was asked.
enum Idle {
    Work,
    Ended,
    Unasked,
}

/// How a filter shows that it can't be used.
enum Trouble {
    /// So many lines were written, fewer came back, and it waits for more.
    Silent { written: usize, answered: usize },
    /// More lines came than were written; this is the first that is too many.
    Unasked { written: usize, answered: usize, line: String },
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
            Self::Unasked { written: 0, line, .. } => format!(
                "the filter printed a line that no line of input asked for: {line:?}. It must \
                 answer each line with exactly one line"
            ),
            Self::Unasked { written, answered, line } => format!(
                "{} got {answered} answers; the first too many is {line:?}. The filter must answer \
                 each line with exactly one line: `jq -c` prints each value on one line",
                lines(*written)
            ),
        }
    }
}

/// The talk with one filter.
struct Talk {
    stdin: Option<File>,
    stdout: File,
    chunk: Box<[u8]>,
    /// What it wrote and was not taken yet.
    answers: Vec<u8>,
    /// How much was written, in bytes.
    written: u64,
    /// How many groups in a row it was not seen to read again after.
    unsettled: u32,
    /// How far line ends were counted, and how many there are.
    counted: usize,
    lines: usize,
}

impl Talk {
    fn with(stdin: File, stdout: File) -> Self {
        let chunk = vec![0; READ_SIZE].into_boxed_slice();
        Self {
            stdin: Some(stdin),
            stdout,
            chunk,
            answers: Vec::new(),
            written: 0,
            unsettled: 0,
            counted: 0,
            lines: 0,
        }
    }

    /// Writes a group's lines while reading its answers, until they are all there.
    async fn group(&mut self, pool: &Pool, worker: WorkerId, group: &Group) -> Told {
        let mut written = 0;
        loop {
            written += self.write_some(&group.lines[written..]);
            if self.lines >= group.count && written == group.lines.len() {
                let pid = pool.0.core.borrow_mut().links.of(worker).and_then(|link| link.pid);
                return match self.surplus_once_settled(group.count, pid).await {
                    Some(line) => Told::Trouble(Trouble::Unasked {
                        written: group.count,
                        answered: self.lines.max(group.count + 1),
                        line,
                    }),
                    None => Told::Answered,
                };
            }
            let more = async {
                match &self.stdin {
                    Some(stdin) if written < group.lines.len() => {
                        let _ = remuda_net::writable(stdin).await;
                    }
                    _ => std::future::pending().await,
                }
            };
            let silence = remuda_net::sleep(SILENCE);
            let happened =
                remuda_net::select3(remuda_net::readable(&self.stdout), more, silence).await;
            match happened {
                Either3::First(_) => {
                    if self.read_now() == Got::Ended {
                        return Told::Ended;
                    }
                }
                Either3::Second(()) => {}
                Either3::Third(()) => {
                    let pid = pool.0.core.borrow_mut().links.of(worker).and_then(|link| link.pid);
                    if written == group.lines.len() && pid.is_some_and(asleep::waits_for_input) {
                        return Told::Trouble(Trouble::Silent {
                            written: group.count,
                            answered: self.lines,
                        });
                    }
                }
            }
        }
    }

    /// All answers seem to be there: waits until the filter reads again, and gives the first line
    /// that is too many. A line that it prints a moment later would else pass for an answer to the
    /// next group, and one that it printed before the first, for an answer of this one.
    async fn surplus_once_settled(&mut self, count: usize, pid: Option<u32>) -> Option<String> {
        for _ in 0..SETTLE_STEPS {
            if let Some(line) = self.surplus(count) {
                return Some(line);
            }
            let waits = pid.is_none_or(asleep::waits_for_input);
            // What it printed before it waited is in the pipe by then.
            match self.read_now() {
                Got::Some => continue,
                Got::Ended => return None,
                Got::Nothing => {}
            }
            if waits || self.unsettled >= UNSETTLED_LIMIT {
                self.unsettled = if waits { 0 } else { self.unsettled };
                return None;
            }
            let readable = remuda_net::readable(&self.stdout);
            remuda_net::select(readable, remuda_net::sleep(SETTLE_STEP)).await;
        }
        self.unsettled += 1;
        self.surplus(count)
    }

    /// Waits for work, for the end, or for what nobody asked for.
    async fn idle(&mut self, link: &FilterLink) -> Idle {
        let happened =
            remuda_net::select(link.changed.notified(), remuda_net::readable(&self.stdout)).await;
        match happened {
            remuda_net::Either::First(()) => Idle::Work,
            remuda_net::Either::Second(_) => match self.read_now() {
                Got::Ended => Idle::Ended,
                Got::Nothing => Idle::Work,
                Got::Some => Idle::Unasked,
            },
        }
    }

    /// Waits until something was read; 0 at the end.
    async fn read_some(&mut self) -> usize {
        loop {
            let before = self.answers.len();
            match self.read_now() {
                Got::Ended => return 0,
                Got::Some => return self.answers.len() - before,
                Got::Nothing => {
                    if remuda_net::readable(&self.stdout).await.is_err() {
                        return 0;
                    }
                }
            }
        }
    }

    /// Reads what is there.
    fn read_now(&mut self) -> Got {
        let read = self.stdout.read(&mut self.chunk);
        self.answers.extend_from_slice(&self.chunk[..*read.as_ref().unwrap_or(&0)]);
        self.lines += memchr::memchr_iter(b'\n', &self.answers[self.counted..]).count();
        self.counted = self.answers.len();
        match read {
            Ok(0) => Got::Ended,
            Ok(_) => Got::Some,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Got::Nothing
            }
            Err(_) => Got::Ended,
        }
    }

    /// Writes what the pipe takes. A filter that has closed its stdin is found out by its end.
    fn write_some(&mut self, lines: &[u8]) -> usize {
        match &mut self.stdin {
            Some(stdin) if !lines.is_empty() => {
                let written = stdin.write(lines).unwrap_or(0);
                self.written += written as u64;
                written
            }
            _ => 0,
        }
    }

    /// True if all that was written still stands in the pipe.
    fn is_unread(&self) -> bool {
        let unread = |stdin| rustix::io::ioctl_fionread(stdin).is_ok_and(|n| n == self.written);
        self.stdin.as_ref().is_some_and(unread)
    }

    /// What stands behind the first `count` lines, if anything does.
    fn surplus(&self, count: usize) -> Option<String> {
        let end = memchr::memchr_iter(b'\n', &self.answers).nth(count.checked_sub(1)?)?;
        let rest = &self.answers[end + 1..];
        (!rest.is_empty()).then(|| first_line(rest))
    }

    /// The answers were taken; `empty` is used for the next ones.
    fn taken(&mut self, empty: Vec<u8>) {
        self.answers = empty;
        self.counted = 0;
        self.lines = 0;
    }

    fn unasked(&self) -> Trouble {
        Trouble::Unasked {
            answered: self.lines.max(1),
            written: 0,
            line: first_line(&self.answers),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Got {
    Some,
    Nothing,
    Ended,
}

/// The first line, cut to what fits in a message.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned()
}

impl Core {
    /// All answers of a group are there: passes them on.
    fn group_answered(&mut self, worker: WorkerId, group: &Group, talk: &mut Talk) {
        let now = self.now();
        let all = std::mem::take(&mut talk.answers);
        let bad = all.len();
        let mut bytes = all;
        bytes.extend_from_slice(NOT_JSON.as_bytes());
        let (answers, message) = bytes.split_at(bad);
        let message = Answer { body: Span::of(message, &bytes), form: Form::Json, traceback: None };
        let outcomes: Vec<Outcome<Answer>> = answers
            .split(|byte| *byte == b'\n')
            .take(group.count)
            .map(|line| match group.form {
                Form::Json if Raw::new(line).is_err() => {
                    Outcome::Failed { code: Code::HandlerError, error: message }
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
        link.trouble = Some(words.clone());
        match trouble {
            // Its lines are tried again one by one: then it can be told which of them it is.
            Trouble::Silent { written, .. } if *written > 1 => {}
            _ if self.config.stop_at_wrong_filter => self.fail(PoolError::Filter(words)),
            _ => tracing::warn!("{words}"),
        }
        self.dispatch.faulted(now, worker, Fault::Garbage);
        self.carry_out(&[]);
    }

    /// Judges a filter that has ended by itself, while its input was open.
    pub(crate) fn filter_gone(&mut self, link: &Link, exit: Exit) {
        let Transport::Filter(filter) = &link.transport else { return };
        if filter.ending.get() || link.killed.is_some() || link.trouble.is_some() {
            return;
        }
        let Exit::Status(status) = exit else { return };
        let words = if status == 0 {
            let which = filter
                .unanswered
                .get()
                .map_or_else(String::new, |line| format!("line {line} got no answer: "));
            format!(
                "{which}the filter ended with status 0 while its input was open. It must answer \
                 each line with one line until its input ends"
            )
        } else if filter.never_read.get() && !self.has_any_filter_answered() {
            format!(
                "the filter ended with status {status} before it read a line: run it by itself on \
                 one line of the input to see why"
            )
        } else {
            // It may have died of a line, as any worker may.
            return;
        };
        match self.config.stop_at_wrong_filter {
            true => self.fail(PoolError::Filter(words)),
            false => tracing::warn!("{words}"),
        }
    }

    fn has_any_filter_answered(&self) -> bool {
        let answered = |link: &Link| match &link.transport {
            Transport::Filter(filter) => filter.has_answered.get(),
            Transport::Process(_) | Transport::Thread(_) => false,
        };
        self.links.iter().any(answered)
    }
}

/// The message for an answer that should be JSON, as JSON.
const NOT_JSON: &str = "\"the filter's answer is not a JSON value on one line\"";
