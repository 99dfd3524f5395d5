//! Starts worker processes through the keeper, and takes note of how they fare.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use remuda_dispatch::{Exit, Offer, WorkerId};
use remuda_net::ReadyFd;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::config::WorkerKind;
use crate::core::Core;
use crate::error::PoolError;
use crate::keeper::{Event, Signal, Spawn, StartFailure, Status};
use crate::link::filter::{self, FilterLink, GROUP_LINES, Pipes};
use crate::link::process::{self, ProcessLink};
use crate::link::{Link, Transport};
use crate::pool::Pool;

/// How much of a worker's log is read at once, in bytes.
const LOG_READ_SIZE: usize = 8 << 10;
/// How often a log is read in a row, before others get their turn.
const LOG_READS: usize = 32;
/// The exit status of a worker that can't be configured (`EX_CONFIG`): another start won't help.
const CONFIG_STATUS: i32 = 78;
/// A worker whose socket has ended has so long to end itself before it is killed.
const END_GRACE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a service manager says to the pool, and to the pool alone.
const SERVICE_VARIABLES: [&str; 4] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

impl Core {
    /// Starts a worker. Whatever goes wrong is a start that failed.
    pub(crate) fn start_worker(&mut self, worker: WorkerId, slot: u32, generation: u32) {
        let number = self.next_number();
        if let Err(error) = self.try_start(worker, number, slot, generation) {
            let now = self.now();
            if self.links.of(worker).is_none() {
                let link = Link::new(worker, number, slot, Transport::Filter(FilterLink::new()));
                self.links.insert(link);
            }
            if let Some(link) = self.links.of(worker) {
                link.trouble = Some(error);
            }
            let me = self.me.clone();
            tracing::debug!(worker = number, ?now, "the worker could not be started");
            // Not from within: the dispatch is being asked for what to do.
            remuda_net::spawn(async move {
                if let Some(pool) = me.upgrade() {
                    pool.core.borrow_mut().worker_gone(worker);
                }
            });
        }
    }

    fn try_start(
        &mut self,
        worker: WorkerId,
        number: u64,
        slot: u32,
        generation: u32,
    ) -> Result<(), String> {
        let Some(pool) = self.me.upgrade().map(Pool) else { return Ok(()) };
        let kind = self.kinds.range(..=generation).next_back().map(|(_, kind)| kind);
        let (mut spawn, is_filter) = match kind.unwrap_or(&self.config.kind) {
            WorkerKind::Process { program, args, env } => {
                let mut spawn = Spawn::new(program.clone());
                spawn.args.clone_from(args);
                spawn.env.clone_from(env);
                (spawn, false)
            }
            WorkerKind::Filter { program, args } => {
                let mut spawn = Spawn::new(program.clone());
                spawn.args.clone_from(args);
                (spawn, true)
            }
            WorkerKind::Threads(handler) => {
                let handler = handler.clone();
                return self.start_thread(worker, number, slot, handler);
            }
            WorkerKind::None => return Err("the pool has no workers of its own".into()),
        };
        spawn.cwd.clone_from(&self.config.cwd);
        self.add_environment(&mut spawn, number, slot);
        let (log, their_log) = pipe_to_us().map_err(no_descriptors)?;
        let transport = if is_filter {
            Transport::Filter(open_filter(&pool, worker, &mut spawn)?)
        } else {
            spawn.stdout = Some(their_log.try_clone().map_err(no_descriptors)?);
            Transport::Process(self.open_process(&pool, worker, &mut spawn)?)
        };
        spawn.stderr = Some(their_log);
        let readable = ReadyFd::readable(&log).map_err(no_descriptors)?;
        let mut link = Link::new(worker, number, slot, transport);
        link.log = Some(log);
        self.links.insert(link);
        remuda_net::spawn(follow_log(pool, worker, readable));
        let Some(keeper) = &mut self.keeper else { return Err("there is no keeper".into()) };
        keeper.spawn(number, spawn).map_err(|error| error.to_string())
    }

    /// What a worker finds in its environment besides what the pool has in its own.
    fn add_environment(&self, spawn: &mut Spawn, number: u64, slot: u32) {
        for name in SERVICE_VARIABLES {
            spawn.env.push((name.into(), None));
        }
        spawn.env.push(("REMUDA_WORKER_ID".into(), Some(number.to_string().into())));
        spawn.env.push(("REMUDA_WORKER_SLOT".into(), Some(slot.to_string().into())));
        // A pool that has it from its own environment, as a worker, doesn't hand it on.
        let spin = self.config.worker_spin.map(|spin| spin.as_micros().to_string().into());
        spawn.env.push(("REMUDA_SPIN_US".into(), spin));
    }

    /// The pool's side of a worker that speaks the protocol; `spawn` gets the worker's.
    fn open_process(
        &mut self,
        pool: &Pool,
        worker: WorkerId,
        spawn: &mut Spawn,
    ) -> Result<ProcessLink, String> {
        let (ours, theirs) = UnixStream::pair().map_err(no_descriptors)?;
        spawn.socket = Some(theirs.into());
        let rendezvous = match self.config.shm {
            true => Some(ours.try_clone().map_err(no_descriptors)?.into()),
            false => None,
        };
        let conn = remuda_net::adopt_unix(ours).map_err(|error| error.to_string())?;
        let link = ProcessLink::open(conn, rendezvous, &mut self.scratch)
            .map_err(|error| error.to_string())?;
        remuda_net::spawn(process::read(pool.clone(), worker, conn));
        Ok(link)
    }

    /// The keeper told of something.
    pub(crate) fn keeper_event(&mut self, event: Event) {
        match event {
            Event::Started { id, pid, pidfd } => {
                let Some(link) = self.links.numbered(id) else { return };
                link.pid = Some(pid);
                link.pidfd = pidfd;
                if let Transport::Filter(_) = link.transport {
                    link.ready = true;
                    link.tail.lines().for_each(|line| self.config.logs.line(id, line));
                    let (worker, now) = (link.worker, self.now());
                    let offer =
                        Offer { capacity: 1, ordered: true, batch: GROUP_LINES, cancel: false };
                    self.dispatch.ready(now, worker, offer);
                    self.carry_out(&[]);
                }
            }
            Event::StartFailed { id, error } => {
                let Some(link) = self.links.numbered(id) else { return };
                link.trouble = Some(error.to_string());
                link.hopeless =
                    !matches!(error.kind, StartFailure::NoResources | StartFailure::Other);
                let worker = link.worker;
                self.worker_gone(worker);
            }
            Event::Exited { id, status } => {
                let Some(link) = self.links.numbered(id) else { return };
                link.exit = Some(match status {
                    Status::Code(code) => Exit::Status(code),
                    Status::Signal(signal) => Exit::Signal(signal),
                });
                if link.read_to_end {
                    let worker = link.worker;
                    self.worker_gone(worker);
                }
            }
            Event::Cleared { id } => {
                let Some(link) = self.links.numbered(id) else { return };
                let worker = link.worker;
                self.gone_after_grace(worker);
            }
            Event::Lost => {
                for link in self.links.iter() {
                    if let Some(pidfd) = &link.pidfd {
                        // One that has ended already needs no signal.
                        let _ = rustix::process::pidfd_send_signal(
                            pidfd,
                            rustix::process::Signal::KILL,
                        );
                    }
                }
                self.fail(PoolError::KeeperLost);
            }
        }
    }

    /// A run that can do nothing without workers ends with a start that says that none will do
    /// better.
    pub(crate) fn end_if_hopeless(&mut self, link: &Link, exit: Exit) {
        let hopeless = link.hopeless || exit == Exit::Status(CONFIG_STATUS);
        let any_ready = self.history.was_any_ready() || self.links.iter().any(|link| link.ready);
        if hopeless && !any_ready && self.config.dispatch.give_up {
            let why = self.history.last_failed_start();
            self.fail(PoolError::Hopeless { why });
        }
    }

    /// Takes in what a worker printed.
    pub(crate) fn read_log(&mut self, worker: WorkerId) -> LogRead {
        let Some(link) = self.links.of(worker) else { return LogRead::Ended };
        let Some(log) = &mut link.log else { return LogRead::Ended };
        let (number, sink) = (link.number, &self.config.logs);
        // Until it is ready, its lines are kept: if it never is, they are part of the report.
        let each = |line: &str| {
            if link.ready {
                sink.line(number, line);
            }
        };
        let mut bytes = [0; LOG_READ_SIZE];
        for _ in 0..LOG_READS {
            match log.read(&mut bytes) {
                Ok(0) => {
                    link.tail.end(each);
                    return LogRead::Ended;
                }
                Ok(read) => link.tail.feed(&bytes[..read], each),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return LogRead::All,
                Err(_) => return LogRead::Ended,
            }
        }
        LogRead::Some
    }

    /// A worker's socket, or a filter's stdout, has ended.
    pub(crate) fn worker_read_to_end(&mut self, worker: WorkerId) {
        let Some(link) = self.links.of(worker) else { return };
        link.read_to_end = true;
        if link.exit.is_some() {
            self.worker_gone(worker);
            return;
        }
        // It can't be asked for anything any more. Until its process has ended, its jobs run.
        let me = self.me.clone();
        remuda_net::spawn(async move {
            remuda_net::sleep(END_GRACE).await;
            let Some(pool) = me.upgrade() else { return };
            let core = &mut *pool.core.borrow_mut();
            // Else all that could be told is by which signal it ended, which is the pool's own.
            if let Some(link) = core.links.of(worker)
                && link.trouble.is_none()
                && link.killed.is_none()
            {
                let closed = match link.transport {
                    Transport::Filter(_) => "the filter closed its stdout",
                    _ => "the worker closed its connection to the pool",
                };
                link.trouble = Some(format!("{closed} and did not end, so it was killed"));
            }
            core.signal(worker, Signal::Kill);
        });
    }

    /// All that belonged to a worker is gone: if its socket doesn't end all the same, somebody
    /// else holds it, and it is not waited for.
    fn gone_after_grace(&self, worker: WorkerId) {
        let me = self.me.clone();
        remuda_net::spawn(async move {
            remuda_net::sleep(END_GRACE).await;
            if let Some(pool) = me.upgrade() {
                pool.core.borrow_mut().worker_gone(worker);
            }
        });
    }
}

/// The pool's side of a filter; `spawn` gets the filter's.
fn open_filter(pool: &Pool, worker: WorkerId, spawn: &mut Spawn) -> Result<Rc<FilterLink>, String> {
    let (stdout, their_stdout) = pipe_to_us().map_err(no_descriptors)?;
    let (stdin, their_stdin) = pipe_from_us().map_err(no_descriptors)?;
    spawn.stdin = Some(their_stdin);
    spawn.stdout = Some(their_stdout);
    let filter = FilterLink::new();
    let pipes = Pipes::new(stdin, stdout).map_err(no_descriptors)?;
    remuda_net::spawn(filter::run(pool.clone(), worker, filter.clone(), pipes));
    Ok(filter)
}

/// How much of what a worker printed was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogRead {
    /// All that was there.
    All,
    /// So much that others are to get their turn.
    Some,
    /// All, and nothing more will come.
    Ended,
}

/// Reads what a worker prints until nobody holds the pipe's other end.
async fn follow_log(pool: Pool, worker: WorkerId, log: ReadyFd) {
    let pool = Rc::downgrade(&pool.0);
    let mut read = LogRead::All;
    loop {
        match read {
            LogRead::All if log.ready().await.is_err() => return,
            LogRead::All => {}
            LogRead::Some => remuda_net::yield_now().await,
            LogRead::Ended => return,
        }
        let Some(pool) = pool.upgrade() else { return };
        read = pool.core.borrow_mut().read_log(worker);
    }
}

/// A pipe whose reading end is the pool's.
fn pipe_to_us() -> rustix::io::Result<(File, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((never_waits(read)?, write))
}

/// A pipe whose writing end is the pool's.
fn pipe_from_us() -> rustix::io::Result<(File, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((never_waits(write)?, read))
}

fn never_waits(end: OwnedFd) -> rustix::io::Result<File> {
    fcntl_setfl(&end, fcntl_getfl(&end)? | OFlags::NONBLOCK)?;
    Ok(File::from(end))
}

fn no_descriptors(error: impl std::fmt::Display) -> String {
    format!("no pipe or socket for another worker ({error}): raise the limit of open files")
}
