//! What a pool is made of, and its limits.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use remuda_protocol::{Address, MAX_BODY_BYTES_DEFAULT, Raw};

pub use remuda_dispatch::{Delivery, Overload, RetryOn, Supervisor};

use crate::keeper::{KeeperCommand, KeeperOptions};

/// How long a worker that is to be killed has between SIGTERM and SIGKILL, unless
/// `destroy_timeout` is shorter: 1 s.
pub const KILL_GRACE: Duration = Duration::from_secs(1);

/// What a worker is.
#[derive(Debug, Clone)]
pub enum WorkerKind {
    /// A process that speaks the protocol on its descriptor 3.
    Process {
        /// Its program: a path, or a name to be looked up in `PATH`.
        program: OsString,
        /// Its arguments.
        args: Vec<OsString>,
        /// Changes to its environment: a value sets, `None` removes.
        env: Vec<(OsString, Option<OsString>)>,
    },
    /// Any filter that answers each line of stdin with one line of stdout.
    Filter {
        /// Its program.
        program: OsString,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// A function that runs on threads of this process.
    ///
    /// A thread can't be killed. One whose job is over its time, or that doesn't end when it is
    /// asked to, is left behind: its job ends as `timeout`, and another thread takes its place. At
    /// most `num_workers` are replaced so; beyond that, the next one waits until one that was left
    /// behind has ended. The status counts those that still run (`threads_left_behind`).
    Threads(ThreadHandler),
    /// None of its own: the pool has only the peers that it is attached to.
    None,
}

impl WorkerKind {
    /// True if its workers are processes, for which a keeper is needed.
    pub(crate) fn has_processes(&self) -> bool {
        !matches!(self, Self::Threads(_) | Self::None)
    }
}

/// A function that thread workers run: it appends the result as JSON, or gives the message of the
/// failure.
#[derive(Clone)]
pub struct ThreadHandler(Arc<ThreadFunction>);

type ThreadFunction = dyn Fn(Raw<'_>, &mut Vec<u8>) -> Result<(), String> + Send + Sync;

impl ThreadHandler {
    /// Workers that run `function`; a panic in it fails the job alone.
    pub fn new(
        function: impl Fn(Raw<'_>, &mut Vec<u8>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(function))
    }

    /// Runs it.
    pub(crate) fn run(&self, body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        (self.0)(body, out)
    }
}

impl fmt::Debug for ThreadHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadHandler")
    }
}

/// A pool: its workers, their limits, and what happens to jobs. The names are RoadRunner's where
/// they mean the same.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// What its workers are.
    pub kind: WorkerKind,
    /// The directory that workers run in. Default: the pool's own.
    pub cwd: Option<PathBuf>,
    /// Workers and pools that run already and are workers of this pool, too: at `unix:`, `tcp:`,
    /// `tls:` and `shm:` addresses. Default: none.
    pub attach: Vec<Address>,
    /// The dispatch's options: workers, queue, delivery, supervision.
    pub dispatch: remuda_dispatch::Config,
    /// So many of the workers are started at once, the others when
    /// [`Pool::want_workers`](crate::Pool::want_workers) asks for them. Default: all.
    pub workers_at_start: Option<u32>,
    /// The most bytes that a body or a result may have. Default: 16 MiB.
    pub max_body_bytes: usize,
    /// The most bytes of bodies in the queue and at workers together. Default: 256 MiB. A job that
    /// would go over it is refused as `queue_full`.
    pub max_bodies_bytes: usize,
    /// The most bytes that all connections together may hold of lines without an end. Default: 256
    /// MiB. A connection over its share is then not read until there is room.
    pub max_unfinished_bytes: usize,
    /// Whether workers that can are served over rings in shared memory instead of their socket.
    /// Each takes up to 2 MiB for them. Default: true, unless `REMUDA_SHM` is 0.
    pub shm: bool,
    /// For how long a worker may look for its next call before it sleeps: `REMUDA_SPIN_US` in its
    /// environment, in whole microseconds; workers take at most a second of it. Zero tells it to
    /// sleep at once. Default `None`: it isn't told.
    pub worker_spin: Option<Duration>,
    /// How long a client's line may take from its first byte to its end; a slower sender is cut.
    /// Between lines there is no limit: a person may type. Default: 30 s.
    pub line_timeout: Duration,
    /// How long a client may take no byte of what is sent to it, until it is cut. Default: 10 s.
    pub write_timeout: Duration,
    /// How often the workers' memory is looked at. Default: 1 s.
    pub watch_tick: Duration,
    /// How the keeper is started.
    pub keeper: KeeperCommand,
    /// Whether the keeper uses a PID namespace.
    pub keeper_options: KeeperOptions,
    /// A filter whose answers can't be told apart ends the pool; else it is replaced. Default: false.
    pub stop_at_wrong_filter: bool,
    /// Where the workers' stdout and stderr go, line by line. Default: stderr, tagged.
    pub logs: LogSink,
}

impl PoolConfig {
    /// A pool of such workers, one for each core, with every option at its default.
    pub fn new(kind: WorkerKind) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Self {
            kind,
            cwd: None,
            attach: Vec::new(),
            dispatch: remuda_dispatch::Config { num_workers: cores, ..Default::default() },
            workers_at_start: None,
            max_body_bytes: MAX_BODY_BYTES_DEFAULT,
            max_bodies_bytes: 256 << 20,
            max_unfinished_bytes: 256 << 20,
            shm: std::env::var_os("REMUDA_SHM").is_none_or(|value| value != "0"),
            worker_spin: None,
            line_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            watch_tick: Duration::from_secs(1),
            keeper: KeeperCommand::default(),
            keeper_options: KeeperOptions::default(),
            stop_at_wrong_filter: false,
            logs: LogSink::stderr(),
        }
    }
}

/// Takes a line that a worker printed. It must not block for long: the pool waits for it.
#[derive(Clone)]
pub struct LogSink(Arc<LogFunction>);

type LogFunction = dyn Fn(u64, &str) + Send + Sync;

impl LogSink {
    /// Calls `sink` with the worker's number and the line, without its line break.
    pub fn new(sink: impl Fn(u64, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Prints lines to stderr, tagged with the worker's number. Where it is closed or full, they
    /// are dropped.
    pub fn stderr() -> Self {
        Self::new(|worker, line| {
            let _ = io::stderr().write_all(format!("[worker {worker}] {line}\n").as_bytes());
        })
    }

    /// Takes a line.
    pub(crate) fn line(&self, worker: u64, line: &str) {
        (self.0)(worker, line);
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogSink")
    }
}
