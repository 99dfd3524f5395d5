//! The keeper proper: one thread that waits for requests and for the ends of its children.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{
    self, Pid, PidfdFlags, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open,
    set_child_subreaper, setsid, wait,
};

use super::descent::Roster;
use super::error::{StartError, StartFailure};
use super::frame::{Filled, Frame, Inbox, Outbox};
use super::guardian::{mount_proc, own_socket};
use super::message::{Event, Scope, Signal, Spawn, Status};
use super::signals::Signals;
use super::start;
use super::sweep::{self, Name, PAUSE_FIRST, PAUSE_LAST, Verdict};
use super::wire::{Report, Request};

/// Serves the pool until its end of the socket closes, then kills all descendants.
pub(super) fn run(signals: &Signals, namespaced: bool) -> Result<(), String> {
    let said = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    // A session without a terminal, for itself and all workers.
    setsid().map_err(|errno| said("no session of its own", &errno))?;
    set_child_subreaper(Some(getpid())).map_err(|errno| said("can't adopt orphans", &errno))?;
    let pool_proc = File::open("/proc").map_err(|error| said("can't open /proc", &error))?;
    if namespaced {
        mount_proc().map_err(|errno| said("can't mount the namespace's /proc", &errno))?;
    }
    let mut keeper = Serving {
        socket: own_socket()?,
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        workers: HashMap::new(),
        pool_proc,
        run: format!("{:016x}", RandomState::new().hash_one(getpid())),
        starts: 0,
        strangers: HashSet::new(),
        pause: PAUSE_FIRST,
    };
    keeper.report(Report::Ready { namespaced });
    // Whatever went wrong with the socket: without the pool the workers have to go.
    let _ = keeper.serve(signals);
    if !namespaced {
        sweep::kill_all(signals);
    }
    // In a namespace this process is init, and its end ends all others at once.
    Ok(())
}

struct Worker {
    pid: Pid,
    mark: String,
    /// Its own process has ended and was reaped.
    reaped: bool,
    /// Everything of it has to go.
    clearing: Option<Verdict>,
}

struct Serving {
    socket: OwnedFd,
    inbox: Inbox,
    outbox: Outbox,
    workers: HashMap<u64, Worker>,
    /// The `/proc` that shows process numbers as the pool knows them.
    pool_proc: File,
    /// Names this run in the marks of its workers.
    run: String,
    starts: u64,
    /// Orphans that stayed unknown for so long that they hold up no worker's clearing any more.
    strangers: HashSet<Name>,
    pause: Duration,
}

impl Serving {
    fn serve(&mut self, signals: &Signals) -> io::Result<()> {
        loop {
            self.wait(signals)?;
            let filled = self.inbox.fill(self.socket.as_fd())?;
            if filled == Filled::Ended {
                return Ok(());
            }
            while let Some(frame) = self.inbox.next().map_err(|_| Errno::PROTO)? {
                self.handle(frame)?;
            }
            signals.drain();
            self.reap();
            self.clear();
            self.outbox.flush(self.socket.as_fd())?;
        }
    }

    fn wait(&self, signals: &Signals) -> io::Result<()> {
        let mut wanted = PollFlags::IN;
        if !self.outbox.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let mut fds = [
            PollFd::new(&self.socket, wanted),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        let busy = self.workers.values().any(|worker| worker.clearing.is_some());
        let patience = busy.then(|| Timespec::try_from(self.pause).unwrap_or_default());
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn handle(&mut self, frame: Frame) -> io::Result<()> {
        let fds_lost = frame.fds_lost;
        match Request::from_frame(frame).map_err(|_| Errno::PROTO)? {
            Request::Spawn { id, spawn } => {
                let program = spawn.program.clone();
                let refused = |kind, errno: Errno| {
                    let errno = errno.raw_os_error();
                    Event::StartFailed { id, error: StartError { program, kind, errno } }
                };
                let event = if self.workers.contains_key(&id) {
                    let what = format!("the id {id} belongs to a worker that isn't cleared yet");
                    refused(StartFailure::BadRequest(what), Errno::EXIST)
                } else if fds_lost {
                    refused(StartFailure::NoResources, Errno::MFILE)
                } else {
                    self.start(id, spawn)
                };
                self.report(Report::Event(event));
            }
            Request::Signal { id, signal, scope } => self.signal(id, signal, scope),
        }
        Ok(())
    }

    fn start(&mut self, id: u64, spawn: Spawn) -> Event {
        self.starts += 1;
        let mark = format!("{}:{}", self.run, self.starts);
        let program = spawn.program.clone();
        let failed = |kind, errno: Errno| Event::StartFailed {
            id,
            error: StartError { program, kind, errno: errno.raw_os_error() },
        };
        let pid = match start::start(id, &mark, spawn) {
            Ok(pid) => pid,
            Err(error) => return Event::StartFailed { id, error },
        };
        let Some(pid) = Pid::from_raw(pid.cast_signed()) else {
            return failed(StartFailure::Other, Errno::SRCH);
        };
        // Not reaped yet, so the number is still this child's.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                // It is reaped with the orphans, whose number nobody knows.
                let _ = kill_process(pid, process::Signal::KILL);
                return failed(StartFailure::NoResources, errno);
            }
        };
        let shown = self.pid_for_pool(&pidfd).unwrap_or(pid.as_raw_pid().cast_unsigned());
        self.workers.insert(id, Worker { pid, mark, reaped: false, clearing: None });
        Event::Started { id, pid: shown, pidfd: Some(pidfd) }
    }

    /// The process's number in the pool's namespace, which its `/proc` gives for any pidfd.
    fn pid_for_pool(&self, pidfd: &OwnedFd) -> Option<u32> {
        let path = format!("self/fdinfo/{}", pidfd.as_raw_fd());
        let file =
            openat(&self.pool_proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let info = io::read_to_string(File::from(file)).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        line.trim().parse().ok()
    }

    fn signal(&mut self, id: u64, signal: Signal, scope: Scope) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let number = match signal {
            Signal::Interrupt => process::Signal::INT,
            Signal::Terminate => process::Signal::TERM,
            Signal::Kill => process::Signal::KILL,
        };
        match (scope, signal) {
            (Scope::Process, _) => {
                if !worker.reaped {
                    // It fails only if the worker took another user's identity.
                    let _ = kill_process(worker.pid, number);
                }
            }
            (Scope::Tree, Signal::Kill) => {
                worker.clearing.get_or_insert_default();
                self.pause = PAUSE_FIRST;
            }
            (Scope::Tree, _) => {
                sweep::signal_trees(&self.roster(), &HashSet::from([id]), number);
            }
        }
    }

    /// Reaps all children that have ended, workers and the orphans that were given to the keeper.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let ended =
                self.workers.iter_mut().find(|(_, worker)| worker.pid == pid && !worker.reaped);
            if let Some((&id, worker)) = ended {
                worker.reaped = true;
                worker.clearing.get_or_insert_default();
                self.pause = PAUSE_FIRST;
                self.report(Report::Event(Event::Exited { id, status: status_of(status) }));
            }
        }
    }

    /// Kills what belongs to workers that have to go, and reports those of whom nothing is left.
    fn clear(&mut self) {
        let ids: HashSet<u64> = self
            .workers
            .iter()
            .filter_map(|(id, worker)| worker.clearing.is_some().then_some(*id))
            .collect();
        if ids.is_empty() {
            return;
        }
        let look = sweep::signal_trees(&self.roster(), &ids, process::Signal::KILL);
        // Whoever had ended when it was looked at must not be there when the pool hears of it.
        self.reap();
        self.strangers.retain(|name| look.unknown.contains(name));
        let unknown = look.outrun || look.unknown.len() > self.strangers.len();
        let now = Instant::now();
        for id in ids {
            let found = look.found.get(&id).copied().unwrap_or_default();
            if let Some(worker) = self.workers.get_mut(&id)
                && let Some(verdict) = worker.clearing.as_mut().filter(|_| worker.reaped)
                && verdict.is_clear(found, unknown, now)
            {
                self.workers.remove(&id);
                self.strangers.extend(&look.unknown);
                self.report(Report::Event(Event::Cleared { id }));
            }
        }
        self.pause = (self.pause * 2).min(PAUSE_LAST);
    }

    fn roster(&self) -> Roster {
        let mut roster = Roster::default();
        for (id, worker) in &self.workers {
            let pid = worker.pid.as_raw_pid();
            // A reaped worker's number may be a later one's: the living goes first.
            if !worker.reaped || !roster.roots.contains_key(&pid) {
                roster.roots.insert(pid, (*id, !worker.reaped));
            }
            roster.marks.insert(worker.mark.clone().into_bytes(), *id);
        }
        roster
    }

    fn report(&mut self, report: Report) {
        self.outbox.push(report.into_frame());
    }
}

fn status_of(status: WaitStatus) -> Status {
    match status.terminating_signal() {
        Some(signal) => Status::Signal(signal),
        None => Status::Code(status.exit_status().unwrap_or_default()),
    }
}
