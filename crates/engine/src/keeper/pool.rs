//! The pool's side: starts the keeper, asks it, and hears from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::KeeperError;
use super::frame::{FRAME_BYTES_MAX, Filled, Frame, Inbox, Outbox};
use super::message::{Event, Scope, Signal, Spawn};
use super::wire::{Report, Request};

/// How long a request may wait for the keeper to read. It reads all the time, so this ends only
/// in an error if the keeper is stopped, or hangs in starting a program from a dead file server.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// What is started as keeper.
#[derive(Debug, Clone)]
pub struct KeeperCommand {
    /// The program. Default: /proc/self/exe, the program's own binary, even if its file was
    /// replaced meanwhile.
    pub program: PathBuf,
    /// Its first arguments. Default: [`ARGUMENT`](super::ARGUMENT) alone.
    pub args: Vec<String>,
}

impl Default for KeeperCommand {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec![super::ARGUMENT.to_owned()] }
    }
}

/// Whether workers live in a PID namespace of their own.
///
/// In one, the kernel kills them all when the keeper dies, whatever kills it. It takes
/// CAP_SYS_ADMIN, and no user namespace is made to get it, since that changes what workers may do.
/// Workers then see their own process numbers (1 is the keeper) and a `/proc` that agrees, in a
/// mount namespace of their own: what they mount isn't seen outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PidNamespace {
    /// Where it is permitted.
    #[default]
    Auto,
    /// In no case.
    Never,
    /// [`Keeper::start`] fails where it isn't permitted.
    Require,
}

impl PidNamespace {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
            Self::Require => "require",
        }
    }
}

/// How the keeper works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeeperOptions {
    /// Default: [`PidNamespace::Auto`].
    pub pid_namespace: PidNamespace,
    /// How long the keeper may take until it serves. Default: 10 seconds.
    pub start_patience: Duration,
    /// How long [`Keeper::stop`] and dropping wait for all processes to end. Default: 5 seconds.
    pub stop_patience: Duration,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            pid_namespace: PidNamespace::Auto,
            start_patience: Duration::from_secs(10),
            stop_patience: Duration::from_secs(5),
        }
    }
}

/// A running keeper, as the pool holds it.
///
/// Wait for its descriptor ([`AsFd`]) to be readable, level- or edge-triggered, then take
/// [`events`](Self::events). Dropping it kills all workers, like [`stop`](Self::stop).
#[derive(Debug)]
pub struct Keeper {
    socket: OwnedFd,
    outbox: Outbox,
    inbox: Inbox,
    guardian: Child,
    namespaced: bool,
    /// The socket has ended, and `Event::Lost` was told.
    lost: bool,
    /// `end` was called.
    ended: bool,
    stop_patience: Duration,
}

impl Keeper {
    /// Starts the keeper and waits until it serves. To be called before any thread is started.
    ///
    /// # Errors
    /// The program can't be started, isn't a keeper, or can't work here: no /proc, or no PID
    /// namespace where [`PidNamespace::Require`] asks for one. [`KeeperError::InKeeper`] in a
    /// program that doesn't look at its first argument.
    pub fn start(command: KeeperCommand, options: KeeperOptions) -> Result<Self, KeeperError> {
        if std::env::args_os().nth(1).is_some_and(|word| word == super::ARGUMENT) {
            return Err(KeeperError::InKeeper);
        }
        let failed =
            |source: io::Error| KeeperError::Start { program: command.program.clone(), source };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed(errno.into()))?;
        let mut guardian = Command::new(&command.program);
        guardian
            .arg0("remuda-keeper")
            .args(&command.args)
            .arg(format!("--pid-namespace={}", options.pid_namespace.word()))
            // Out of the terminal's foreground group at once: a Ctrl-C must not reach it.
            .process_group(0)
            .stdin(theirs)
            // The pool's stdout is for results: a reader of it must not wait for the keeper.
            .stdout(io::stderr().as_fd().try_clone_to_owned().map_or(Stdio::null(), Stdio::from));
        let child = guardian.spawn().map_err(failed)?;
        // Closes this side's copy of the keeper's end.
        drop(guardian);
        let mut keeper = Self {
            socket: ours,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            guardian: child,
            namespaced: false,
            lost: false,
            ended: false,
            stop_patience: options.stop_patience,
        };
        match keeper.first_report(options.start_patience) {
            Some(Report::Ready { namespaced }) => keeper.namespaced = namespaced,
            Some(Report::Refused { reason }) => return Err(KeeperError::Refused { reason }),
            _ => {
                // It may be any program, which need not end when its stdin does.
                let _ = keeper.guardian.kill();
                return Err(KeeperError::NoAnswer { program: command.program });
            }
        }
        Ok(keeper)
    }

    /// Whether the workers live in a PID namespace.
    pub fn is_namespaced(&self) -> bool {
        self.namespaced
    }

    /// The process number of the guardian, which the keeper is the child of.
    pub fn guardian_pid(&self) -> u32 {
        self.guardian.id()
    }

    /// A descriptor that is readable when the guardian has ended.
    pub(crate) fn guardian(&self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.guardian.id().cast_signed()).ok_or(Errno::SRCH)?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// Reaps the guardian if it has ended before the pool, which only happens where it is killed.
    pub(crate) fn reap_guardian(&mut self) {
        let _ = self.guardian.try_wait();
    }

    /// Asks for a worker's start. [`Event::Started`] or [`Event::StartFailed`] answers.
    ///
    /// `id` is free to choose, but for those of workers that are not yet cleared. Blocks only
    /// while the keeper is behind by more than a socket's buffer.
    ///
    /// # Errors
    /// [`KeeperError::TooLarge`], or [`KeeperError::Unreachable`] if the keeper has ended.
    pub fn spawn(&mut self, id: u64, spawn: Spawn) -> Result<(), KeeperError> {
        self.request(Request::Spawn { id, spawn })
    }

    /// Asks for a signal to a worker. Nothing happens if there is none of that id.
    ///
    /// # Errors
    /// [`KeeperError::Unreachable`] if the keeper has ended.
    pub fn signal(&mut self, id: u64, signal: Signal, scope: Scope) -> Result<(), KeeperError> {
        self.request(Request::Signal { id, signal, scope })
    }

    /// All that the keeper reported, without blocking. The last is [`Event::Lost`] if it is gone.
    ///
    /// # Errors
    /// [`KeeperError::Garbage`] or [`KeeperError::Unreachable`]; the pool should end.
    pub fn events(&mut self) -> Result<impl Iterator<Item = Event> + use<>, KeeperError> {
        let mut events = Vec::new();
        if self.lost {
            return Ok(events.into_iter());
        }
        let filled = self.inbox.fill(self.socket.as_fd());
        let filled = filled.map_err(|source| KeeperError::Unreachable { source })?;
        while let Some(report) = self.next_report()? {
            match report {
                Report::Event(event) => events.push(event),
                _ => return Err(KeeperError::Garbage { what: "a second greeting" }),
            }
        }
        if filled == Filled::Ended {
            self.lost = true;
            events.push(Event::Lost);
        }
        Ok(events.into_iter())
    }

    /// Kills all workers and what they left behind, and waits until all are gone.
    ///
    /// # Errors
    /// [`KeeperError::Remains`] if that takes longer than the patience; the killing goes on.
    pub fn stop(mut self) -> Result<(), KeeperError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), KeeperError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        // The keeper takes the end of the requests as the end of the pool. If it is gone already,
        // the guardian is about to end.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        let end = Instant::now() + self.stop_patience;
        let remains = KeeperError::Remains { seconds: self.stop_patience.as_secs() };
        // While it isn't reaped the number is still its own.
        if let Ok(None) = self.guardian.try_wait()
            && let Ok(pidfd) = self.guardian()
            && !wait_for(pidfd.as_fd(), PollFlags::IN, end)
        {
            return Err(remains);
        }
        let _ = self.guardian.wait();
        // Only if the guardian was killed does the keeper live longer than it. Its end of the
        // socket closes when it has killed all others.
        if !wait_for(self.socket.as_fd(), PollFlags::empty(), end) {
            return Err(remains);
        }
        Ok(())
    }

    fn request(&mut self, request: Request) -> Result<(), KeeperError> {
        let gone = |errno: Errno| KeeperError::Unreachable { source: errno.into() };
        let frame: Frame = request.into_frame();
        if frame.body.len() > FRAME_BYTES_MAX {
            return Err(KeeperError::TooLarge { size: frame.body.len(), limit: FRAME_BYTES_MAX });
        }
        if self.lost {
            return Err(gone(Errno::PIPE));
        }
        self.outbox.push(frame);
        while !self.flush()? {
            // The keeper never waits for this side to read, so waiting for it can't lock both up.
            if !wait_for(self.socket.as_fd(), PollFlags::OUT, Instant::now() + SEND_PATIENCE) {
                return Err(gone(Errno::TIMEDOUT));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<bool, KeeperError> {
        let flushed = self.outbox.flush(self.socket.as_fd());
        flushed.map_err(|source| KeeperError::Unreachable { source })
    }

    fn first_report(&mut self, patience: Duration) -> Option<Report> {
        let end = Instant::now() + patience;
        loop {
            if !wait_for(self.socket.as_fd(), PollFlags::IN, end) {
                return None;
            }
            let filled = self.inbox.fill(self.socket.as_fd());
            if let Ok(Some(report)) = self.next_report() {
                return Some(report);
            }
            if !matches!(filled, Ok(Filled::Empty)) {
                return None;
            }
        }
    }

    fn next_report(&mut self) -> Result<Option<Report>, KeeperError> {
        let garbage = |what| KeeperError::Garbage { what };
        let Some(frame) = self.inbox.next().map_err(|_| garbage("no frame"))? else {
            return Ok(None);
        };
        Report::from_frame(frame).map(Some).map_err(|_| garbage("no message"))
    }
}

impl AsFd for Keeper {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Who wants to know calls `stop`.
        let _ = self.end();
    }
}

/// Waits until the descriptor is ready or has ended; false if the time is over.
fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
