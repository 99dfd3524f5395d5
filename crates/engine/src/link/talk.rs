//! The talk with a filter: its lines are written while its answers are read, and both are counted.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use remuda_dispatch::WorkerId;
use remuda_net::{Either3, ReadyFd};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::link::asleep;
use crate::link::filter::{FilterLink, Group, Pipes, SILENCE, Trouble};
use crate::pool::Pool;

/// How long is waited at a time for a filter to read again, once it has answered a group.
const SETTLE_STEP: Duration = Duration::from_millis(1);
/// How often that is waited.
const SETTLE_STEPS: u32 = 100;
/// A filter that so many groups in a row were waited for in vain doesn't show when it reads: from
/// there on, only its lines are counted.
const UNSETTLED_LIMIT: u32 = 3;
/// How much is read at once, in bytes.
const READ_SIZE: usize = 64 << 10;
/// The answers of a group may take so many times `max_body_bytes`.
const GROUP_BODIES: usize = 4;

/// What became of a group.
pub(super) enum Told {
    Answered,
    /// The filter's stdout has ended.
    Ended,
    Trouble(Trouble),
}

/// What happened while nothing was asked.
pub(super) enum Idle {
    Work,
    Ended,
    Unasked,
}

/// The talk with one filter.
pub(super) struct Talk {
    /// What waits for it holds it open, too.
    pub(super) stdin: Option<(File, ReadyFd)>,
    /// It has closed its stdin.
    is_deaf: bool,
    stdout: File,
    readable: ReadyFd,
    /// The last look at stdout found nothing: what comes will be told of.
    is_drained: bool,
    chunk: Box<[u8]>,
    /// What it wrote and was not taken yet.
    pub(super) answers: Vec<u8>,
    /// How much was written, in bytes.
    written: u64,
    /// How many groups in a row it was not seen to read again after.
    unsettled: u32,
    /// How far line ends were counted, and how many there are.
    counted: usize,
    lines: usize,
    /// The most bytes that a line may have.
    max_line: usize,
    /// Where the line begins that has no end yet.
    line_start: usize,
    /// It is over the limit, and thrown away.
    skips: bool,
    /// Which lines were: they stand in `answers` as empty ones.
    pub(super) too_long: Vec<usize>,
}

impl Talk {
    pub(super) fn with(pipes: Pipes, max_line: usize) -> Self {
        let chunk = vec![0; READ_SIZE].into_boxed_slice();
        let Pipes { stdin, writable, stdout, readable } = pipes;
        Self {
            stdin: Some((stdin, writable)),
            is_deaf: false,
            stdout,
            readable,
            is_drained: false,
            chunk,
            answers: Vec::new(),
            written: 0,
            unsettled: 0,
            counted: 0,
            lines: 0,
            max_line,
            line_start: 0,
            skips: false,
            too_long: Vec::new(),
        }
    }

    /// Writes a group's lines while reading its answers, until they are all there.
    pub(super) async fn group(&mut self, pool: &Pool, worker: WorkerId, group: &Group) -> Told {
        let mut written = 0;
        loop {
            written += self.write_some(&group.lines[written..]);
            if self.lines > group.count
                && let Some(line) = self.surplus(group.count)
            {
                let (written, answered) = (group.count, self.lines);
                return Told::Trouble(Trouble::Unasked { written, answered, line });
            }
            let most = self.max_line.saturating_mul(GROUP_BODIES);
            if group.count > 1 && self.answers.len() > most {
                return Told::Trouble(Trouble::TooMuch { written: group.count });
            }
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
                    Some((_, writable)) if written < group.lines.len() && !self.is_deaf => {
                        let _ = writable.ready().await;
                    }
                    _ => std::future::pending().await,
                }
            };
            let silence = remuda_net::sleep(SILENCE);
            let happened = remuda_net::select3(self.something_to_read(), more, silence).await;
            match happened {
                Either3::First(_) => {
                    if self.read_now() == Got::Ended {
                        return Told::Ended;
                    }
                }
                Either3::Second(()) => {}
                Either3::Third(()) => {
                    let pid = pool.0.core.borrow_mut().links.of(worker).and_then(|link| link.pid);
                    let has_all = written == group.lines.len();
                    if let Some(told) = self.judge_silence(group.count, has_all, pid) {
                        return told;
                    }
                }
            }
        }
    }

    /// Nothing was heard for long: whether more is to be waited for, or what became of the group.
    fn judge_silence(&mut self, written: usize, has_all: bool, pid: Option<u32>) -> Option<Told> {
        let waits = has_all && pid.is_some_and(asleep::waits_for_input);
        // What it printed before it waited is in the pipe by then. It may have answered just now, or
        // long ago, where it was this process that stood still.
        match self.read_now() {
            Got::Some => None,
            Got::Ended => Some(Told::Ended),
            Got::Nothing if self.is_deaf || self.leaves_unread() => {
                Some(Told::Trouble(Trouble::Deaf { written }))
            }
            Got::Nothing if waits => {
                Some(Told::Trouble(Trouble::Silent { written, answered: self.lines }))
            }
            Got::Nothing => None,
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
            let step = remuda_net::sleep(SETTLE_STEP);
            remuda_net::select(self.something_to_read(), step).await;
        }
        self.unsettled += 1;
        self.surplus(count)
    }

    /// Waits for work, for the end, or for what nobody asked for.
    pub(super) async fn idle(&mut self, link: &FilterLink) -> Idle {
        let happened = remuda_net::select(link.changed.notified(), self.something_to_read()).await;
        match happened {
            remuda_net::Either::First(()) => Idle::Work,
            remuda_net::Either::Second(_) => match self.read_now() {
                Got::Ended => Idle::Ended,
                Got::Nothing => Idle::Work,
                Got::Some => Idle::Unasked,
            },
        }
    }

    /// Waits until something was read; false at the end.
    pub(super) async fn read_some(&mut self) -> bool {
        loop {
            match self.read_now() {
                Got::Ended => return false,
                Got::Some => return true,
                Got::Nothing => {
                    if self.readable.ready().await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits until a look at stdout may find something.
    async fn something_to_read(&self) {
        if self.is_drained {
            let _ = self.readable.ready().await;
        }
    }

    /// Reads what is there.
    fn read_now(&mut self) -> Got {
        self.is_drained = false;
        match self.stdout.read(&mut self.chunk) {
            Ok(0) => Got::Ended,
            Ok(read) => {
                self.take_in(read);
                Got::Some
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.is_drained = error.kind() == ErrorKind::WouldBlock;
                Got::Nothing
            }
            Err(_) => Got::Ended,
        }
    }

    /// Takes in the first `read` bytes of the chunk.
    fn take_in(&mut self, read: usize) {
        let mut bytes = &self.chunk[..read];
        if self.skips {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return };
            self.skips = false;
            bytes = &bytes[end..];
        }
        self.answers.extend_from_slice(bytes);
        for end in memchr::memchr_iter(b'\n', &self.answers[self.counted..]) {
            self.line_start = self.counted + end + 1;
            self.lines += 1;
        }
        if self.answers.len() - self.line_start > self.max_line {
            self.answers.truncate(self.line_start);
            self.too_long.push(self.lines);
            self.skips = true;
        }
        self.counted = self.answers.len();
    }

    /// Writes what the pipe takes. A filter that has closed its stdin is mostly about to end.
    fn write_some(&mut self, lines: &[u8]) -> usize {
        match &mut self.stdin {
            Some((stdin, _)) if !lines.is_empty() => {
                let written = stdin.write(lines).unwrap_or_else(|error| {
                    self.is_deaf |= error.kind() == ErrorKind::BrokenPipe;
                    0
                });
                self.written += written as u64;
                written
            }
            _ => 0,
        }
    }

    /// True if something stands in the pipe that nobody can read any more.
    fn leaves_unread(&self) -> bool {
        let Some((stdin, _)) = &self.stdin else { return false };
        let mut polled = [PollFd::new(stdin, PollFlags::empty())];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok()
            && polled[0].revents().contains(PollFlags::ERR)
            && rustix::io::ioctl_fionread(stdin).is_ok_and(|unread| unread > 0)
    }

    /// True if all that was written still stands in the pipe.
    pub(super) fn is_unread(&self) -> bool {
        let unread = |(stdin, _): &(File, _)| {
            rustix::io::ioctl_fionread(stdin).is_ok_and(|n| n == self.written)
        };
        self.stdin.as_ref().is_some_and(unread)
    }

    /// What stands behind the first `count` lines, if anything does.
    fn surplus(&self, count: usize) -> Option<String> {
        let end = memchr::memchr_iter(b'\n', &self.answers).nth(count.checked_sub(1)?)?;
        let rest = &self.answers[end + 1..];
        (!rest.is_empty()).then(|| first_line(rest))
    }

    /// The answers were taken; `empty` is used for the next ones.
    pub(super) fn taken(&mut self, empty: Vec<u8>) {
        self.answers = empty;
        self.counted = 0;
        self.lines = 0;
        self.line_start = 0;
        self.skips = false;
        self.too_long.clear();
    }

    pub(super) fn unasked(&self) -> Trouble {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn a_line_that_is_thrown_away_is_no_end() {
        let pipe = || {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
            (File::from(reader), File::from(writer))
        };
        let ((_, stdin), (stdout, mut filter)) = (pipe(), pipe());
        remuda_net::run_local(remuda_net::Config::default(), async move {
            let mut talk = Talk::with(Pipes::new(stdin, stdout).unwrap(), 100);
            // The third piece is too much, the fourth is thrown away, the fifth ends the line.
            for piece in ["a line", "\nx", &"x".repeat(200), "xxx", "x\nnext"] {
                filter.write_all(piece.as_bytes()).unwrap();
                assert!(talk.read_some().await, "{piece}");
            }
            assert_eq!((&talk.answers[..], &talk.too_long[..]), (&b"a line\n\nnext"[..], &[1][..]));
            drop(filter);
            assert!(!talk.read_some().await);
        })
        .unwrap();
    }

    #[test]
    fn a_filter_that_has_just_answered_and_waits_is_not_silent() {
        use std::process::{Command, Stdio};
        let mut filter =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = File::from(std::os::fd::OwnedFd::from(filter.stdin.take().unwrap()));
        let stdout = File::from(std::os::fd::OwnedFd::from(filter.stdout.take().unwrap()));
        rustix::io::ioctl_fionbio(&stdout, true).unwrap();
        let pid = filter.id();
        remuda_net::run_local(remuda_net::Config::default(), async move {
            let mut talk = Talk::with(Pipes::new(stdin, stdout).unwrap(), 100);
            assert_eq!(talk.write_some(b"a line\n"), 7);
            let has_answered = |talk: &Talk| rustix::io::ioctl_fionread(&talk.stdout).unwrap() == 7;
            while !(has_answered(&talk) && asleep::waits_for_input(pid)) {
                std::thread::yield_now();
            }
            assert!(talk.judge_silence(1, true, Some(pid)).is_none());
            assert_eq!(talk.answers, b"a line\n");
            // Of the next one nothing is heard.
            let silent = talk.judge_silence(2, true, Some(pid));
            assert!(matches!(silent, Some(Told::Trouble(Trouble::Silent { written: 2, .. }))));
        })
        .unwrap();
        filter.kill().unwrap();
        filter.wait().unwrap();
    }
}
