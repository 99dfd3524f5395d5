//! A keeper under test, and ways to wait for what happens to processes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use remuda_engine::keeper::{
    Event, Keeper, KeeperCommand, KeeperOptions, PidNamespace, Spawn, Status,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A test that gets the mode that it has to run the keeper in.
pub type Test = (&'static str, fn(PidNamespace));

/// Far more than anything here takes, on the slowest machine.
pub const LONG: Duration = Duration::from_secs(60);

pub fn has_python() -> bool {
    static PRESENT: LazyLock<bool> = LazyLock::new(|| {
        Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success())
    });
    *PRESENT
}

pub fn may_namespace() -> bool {
    static PERMITTED: LazyLock<bool> =
        LazyLock::new(|| start_keeper(PidNamespace::Auto).is_namespaced());
    *PERMITTED
}

pub fn start_keeper(pid_namespace: PidNamespace) -> Keeper {
    let mut options = KeeperOptions::default();
    options.pid_namespace = pid_namespace;
    options.start_patience = LONG;
    options.stop_patience = LONG;
    Keeper::start(KeeperCommand::default(), options).unwrap()
}

/// A keeper, and its events one by one.
pub struct Herd {
    pub keeper: Keeper,
    events: VecDeque<Event>,
}

impl Herd {
    pub fn start(mode: PidNamespace) -> Self {
        Self { keeper: start_keeper(mode), events: VecDeque::new() }
    }

    pub fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(wait(self.keeper.as_fd(), LONG), "no event");
            self.events.extend(self.keeper.events().unwrap());
        }
    }

    pub fn spawn(&mut self, id: u64, spawn: Spawn) {
        self.keeper.spawn(id, spawn).unwrap();
    }

    /// Starts a worker whose stdout the test reads.
    pub fn spawn_talking(&mut self, id: u64, mut spawn: Spawn) -> Talk {
        let (reader, writer) = std::io::pipe().unwrap();
        spawn.stdout = Some(writer.into());
        self.spawn(id, spawn);
        Talk(BufReader::new(reader))
    }

    pub fn started(&mut self, id: u64) -> (u32, OwnedFd) {
        match self.next() {
            Event::Started { id: told, pid, pidfd } if told == id => (pid, pidfd.unwrap()),
            other => panic!("{other:?} instead of the start of {id}"),
        }
    }

    pub fn exited(&mut self, id: u64) -> Status {
        match self.next() {
            Event::Exited { id: told, status } if told == id => status,
            other => panic!("{other:?} instead of the exit of {id}"),
        }
    }

    pub fn cleared(&mut self, id: u64) {
        match self.next() {
            Event::Cleared { id: told } if told == id => {}
            other => panic!("{other:?} instead of the clearing of {id}"),
        }
    }

    /// The keeper proper: the guardian's only child.
    pub fn keeper_pid(&self) -> u32 {
        let children = children_of(self.keeper.guardian_pid());
        assert_eq!(children.len(), 1);
        children[0]
    }
}

/// The reading end of what a worker and its offspring have as stdout. Its end comes when the last
/// of them is gone, so waiting for that proves the death of them all.
pub struct Talk(BufReader<PipeReader>);

impl Talk {
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.wait();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "ended, with {line:?} as last words");
        line.trim_end().to_owned()
    }

    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let end = Instant::now() + LONG;
        loop {
            self.wait();
            assert!(Instant::now() < end, "still talking");
            let buffer = self.0.fill_buf().unwrap();
            if buffer.is_empty() {
                return String::from_utf8_lossy(&rest).into_owned();
            }
            rest.extend_from_slice(buffer);
            let count = buffer.len();
            self.0.consume(count);
        }
    }

    /// True if somebody still holds the other end and has said nothing.
    pub fn is_held(&self) -> bool {
        self.0.buffer().is_empty() && !wait(self.0.get_ref().as_fd(), Duration::ZERO)
    }

    fn wait(&self) {
        if self.0.buffer().is_empty() {
            assert!(wait(self.0.get_ref().as_fd(), LONG), "nobody speaks, and somebody lives");
        }
    }
}

impl From<PipeReader> for Talk {
    fn from(reader: PipeReader) -> Self {
        Self(BufReader::new(reader))
    }
}

/// Waits until the descriptor is readable or has ended.
pub fn wait(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).unwrap() > 0
}

pub fn sh(script: &str) -> Spawn {
    program("sh", &["-c", script])
}

pub fn python(script: &str) -> Spawn {
    program("python3", &["-c", script])
}

pub fn program(program: &str, args: &[&str]) -> Spawn {
    Spawn { args: args.iter().map(Into::into).collect(), ..Spawn::new(program) }
}

pub fn children_of(pid: u32) -> Vec<u32> {
    let mut list = String::new();
    File::open(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap()
        .read_to_string(&mut list)
        .unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub fn pidfd(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap()
}

pub fn kill(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

pub fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}
