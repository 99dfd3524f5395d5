//! A worker before it starts: its function, and what it declares about itself.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use remuda_protocol::{MAX_BODY_BYTES_DEFAULT, Offer, Raw};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{self, Lines};
use crate::handler::{Each, Handler, Lists, Plain};
use crate::permits::Permits;
use crate::results::Runner;
#[cfg(target_os = "linux")]
use crate::rings;
use crate::watch::Watch;
use crate::{environment, inherited, listen, threaded};

/// How many bodies a worker takes in one call unless told otherwise by [`Worker::batch`].
pub const BATCH_DEFAULT: u32 = 256;

/// How long a worker over shared memory watches its ring before it sleeps, at most, unless told
/// otherwise by its pool or by [`Worker::spin`].
pub const SPIN_DEFAULT: Duration = Duration::from_micros(10);

/// A function, and how it is to be served.
///
/// ```no_run
/// use remuda_worker::Worker;
///
/// fn main() -> std::process::ExitCode {
///     Worker::list(|texts: Vec<String>| {
///         // A model would look at all of them together.
///         Ok::<Vec<usize>, std::convert::Infallible>(texts.iter().map(String::len).collect())
///     })
///     .batch(32)
///     .run()
/// }
/// ```
pub struct Worker {
    handler: Box<dyn Handler>,
    capacity: u32,
    batch: u32,
    cancellable: bool,
    coalesce: bool,
    max_body_bytes: usize,
    /// As the pool or the program said; neither may have.
    spin: Option<Duration>,
    shm: bool,
}

impl Worker {
    /// Serves a function of one value, which any type of serde can be.
    ///
    /// Batches are run one by one. A body that has another shape is answered by `handler_error`.
    pub fn new<T, R, E>(function: impl Fn(T) -> Result<R, E> + Send + Sync + 'static) -> Worker
    where
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Display + 'static,
    {
        Worker::serving(Each { function, types: PhantomData })
    }

    /// Serves a function that gets the body as JSON text, and appends its result as JSON text.
    ///
    /// What it appends must be one JSON value; anything else is answered by `handler_error`.
    pub fn raw<E>(
        function: impl Fn(Raw<'_>, &mut Vec<u8>) -> Result<(), E> + Send + Sync + 'static,
    ) -> Worker
    where
        E: Display + 'static,
    {
        Worker::serving(Plain { function, types: PhantomData })
    }

    /// Serves a function of a list of values, which must give as many results.
    ///
    /// An error, a panic or a wrong number of results fails the whole list; a body that has another
    /// shape fails alone. A call with one body is a list of one.
    pub fn list<T, R, E>(
        function: impl Fn(Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
    ) -> Worker
    where
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Display + 'static,
    {
        Worker::serving(Lists { function, types: PhantomData })
    }

    fn serving(handler: impl Handler + 'static) -> Worker {
        Worker {
            handler: Box::new(handler),
            capacity: 1,
            batch: BATCH_DEFAULT,
            cancellable: false,
            coalesce: false,
            max_body_bytes: MAX_BODY_BYTES_DEFAULT,
            spin: environment::spin(),
            shm: cfg!(target_os = "linux"),
        }
    }

    /// How many calls run at once, each on a thread of its own. Default 1; 0 is taken as 1.
    #[must_use]
    pub fn capacity(mut self, calls: u32) -> Worker {
        self.capacity = calls.max(1);
        self
    }

    /// How many bodies one call may carry; 0 or 1 for no batches. Default [`BATCH_DEFAULT`].
    #[must_use]
    pub fn batch(mut self, bodies: u32) -> Worker {
        self.batch = if bodies == 1 { 0 } else { bodies };
        self
    }

    /// Lets a pool stop a call that runs: the function asks [`Job::is_cancelled`]. Default no.
    ///
    /// Calls then run on a thread of their own, which costs a few microseconds each.
    ///
    /// [`Job::is_cancelled`]: crate::Job::is_cancelled
    #[must_use]
    pub fn cancellable(mut self) -> Worker {
        self.cancellable = true;
        self
    }

    /// Sends the answers of calls that came together together. Default no.
    ///
    /// It saves system calls when many small calls are in flight. The price: when the worker dies,
    /// a pool can't know which of them ran, so it declares itself as not `ordered`. With several
    /// threads it has no effect.
    #[must_use]
    pub fn coalesce(mut self) -> Worker {
        self.coalesce = true;
        self
    }

    /// The largest body and result, in bytes. Default 16 MiB, as a pool's.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Worker {
        self.max_body_bytes = bytes;
        self
    }

    /// How long the worker watches for the next call before it sleeps, at most. Zero sleeps at once.
    ///
    /// Default: what the pool says (`REMUDA_SPIN_US`, by `remuda serve --spin`), which tells its
    /// workers where they are fewer than the processors, and where it is 0. Where no pool says it,
    /// [`SPIN_DEFAULT`] over shared memory, and zero over a socket.
    ///
    /// Waking a thread costs several microseconds on both sides, and watching costs this thread's
    /// processor meanwhile, which it offers to others after the first 10 us. It is given up where it
    /// leads to nothing: when jobs are far apart, and on a machine with one processor.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Worker {
        self.spin = Some(spin);
        self
    }

    /// Whether a pool that started this process may go on over rings in shared memory, which cost
    /// no system call a job under load. Default yes, on Linux.
    #[must_use]
    pub fn shm(mut self, shm: bool) -> Worker {
        self.shm = shm && cfg!(target_os = "linux");
        self
    }

    /// Serves the pool that started this process, until it closes the socket; or, with the
    /// arguments `--listen PATH`, all who connect to a Unix socket there, for ever.
    ///
    /// What goes wrong is printed to stderr, which is the pool's log.
    #[must_use = "return it from main, so that the pool sees a failure"]
    pub fn run(self) -> ExitCode {
        match self.serve_as_started() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tell(format_args!("{error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn serve_as_started(self) -> io::Result<()> {
        if let Some(stream) = inherited::take().map_err(io::Error::other)? {
            return self.serve(&stream);
        }
        match listen_argument(std::env::args_os().skip(1)) {
            Some(path) => self.listen(path),
            None => Err(io::Error::new(
                ErrorKind::InvalidInput,
                "no pool started this worker: run it as `remuda map -- WORKER`, or with --listen PATH",
            )),
        }
    }

    /// Serves one connected socket until it ends.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, but for those that only say that the peer is gone.
    pub fn serve(self, stream: &UnixStream) -> io::Result<()> {
        self.start(false).serve(stream)
    }

    /// Serves all who connect to a Unix socket at `path`, each on a thread of its own, for ever.
    ///
    /// It says on stderr when it listens. Only this user can connect. [`Worker::capacity`] holds
    /// over all connections together. The file of a worker that was killed is replaced.
    ///
    /// # Errors
    ///
    /// If the socket can't be made there, or can't accept any more.
    pub fn listen(self, path: impl AsRef<Path>) -> io::Result<()> {
        let named = |error: io::Error| {
            let what = format!("cannot listen at {}: {error}", path.as_ref().display());
            io::Error::new(error.kind(), what)
        };
        let listener = listen::bind(path.as_ref()).map_err(named)?;
        tell(format_args!("listening at {}", path.as_ref().display()));
        let serving = Arc::new(self.start(true));
        loop {
            let (stream, _) = listener.accept()?;
            let serving = Arc::clone(&serving);
            std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
                if let Err(error) = serving.serve(&stream) {
                    tell(format_args!("a connection failed: {error}"));
                }
            })?;
        }
    }

    /// With `shared`, several connections are served at a time.
    fn start(self, shared: bool) -> Serving {
        let mut offer = Offer::default();
        offer.pid = std::process::id();
        offer.instance = format!("{}-{}", offer.pid, started_nanos());
        offer.capacity = self.capacity;
        offer.batch = self.batch;
        // Several threads write each answer as it comes, whatever `coalesce` says.
        let threads =
            if self.capacity > 1 || self.cancellable { self.capacity as usize } else { 0 };
        let coalesce = self.coalesce && threads == 0;
        offer.ordered = self.capacity == 1 && !coalesce;
        if self.cancellable {
            offer.capabilities.push(Offer::CANCEL.to_owned());
        }
        if self.shm {
            offer.capabilities.push(Offer::SHM.to_owned());
        }
        let permits = (shared || threads > 0).then(|| Permits::new(self.capacity as usize));
        let runner = Runner { handler: self.handler, permits, max_body_bytes: self.max_body_bytes };
        Serving { runner, offer, threads, coalesce, spin: self.spin, shm: self.shm }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("capacity", &self.capacity)
            .field("batch", &self.batch)
            .field("cancellable", &self.cancellable)
            .finish_non_exhaustive()
    }
}

/// A worker that runs: what its connections share.
struct Serving {
    runner: Runner,
    offer: Offer,
    /// How many a connection has besides the one that reads; 0 for none.
    threads: usize,
    coalesce: bool,
    spin: Option<Duration>,
    shm: bool,
}

impl Serving {
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let (mut reader, mut writer) = (stream, stream);
        let mut lines = Lines::new(&self.offer, &self.runner);
        if !connection::shake(&mut reader, &mut writer, &mut lines)? {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        if self.shm
            && lines.is_between()
            && let Some((mut reader, writer)) =
                rings::taken_over(stream, self.spin.unwrap_or(SPIN_DEFAULT))?
        {
            return self.serve_lines(&mut reader, writer, &mut lines);
        }
        let mut reader = Watch::new(stream, self.spin.unwrap_or_default());
        self.serve_lines(&mut reader, writer, &mut lines)
    }

    /// The seam: all below takes any reader and writer.
    fn serve_lines(
        &self,
        reader: &mut impl Read,
        mut writer: impl Write + Send,
        lines: &mut Lines<'_>,
    ) -> io::Result<()> {
        match self.threads {
            0 => connection::serve(reader, &mut writer, lines, self.coalesce),
            count => threaded::serve(reader, writer, lines, &self.runner, count),
        }
    }
}

/// Says something on stderr, which is the pool's log. Where nobody takes it, it is lost.
fn tell(text: std::fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("worker: {text}\n").as_bytes());
}

/// Tells apart two processes that had the same id one after the other.
fn started_nanos() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

/// The path after `--listen`, or behind its equals sign.
fn listen_argument(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<PathBuf> {
    while let Some(argument) = arguments.next() {
        if argument == "--listen" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--listen=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}
