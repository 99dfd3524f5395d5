//! The run itself: hands in jobs as there is room for them, and writes what has ended.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remuda_engine::{
    Delivery, Drain, End, Failed, Finished, FinishedJob, LogSink, NewJob, Pool, PoolError,
    WorkerKind,
};
use remuda_net::{Config as NetConfig, Either, Either3, Signals, mpsc};

use super::MapConfig;
use super::clash;
use super::emit::{Emitter, Held, failure};
use super::error::MapError;
use super::failures::Failures;
use super::halt::Halt;
use super::input::{Piece, read_pieces};
use super::joblog;
use super::lines::Lines;
use super::progress::Progress;
use super::results::Results;
use super::resume::Plan;
use crate::cli::{exit, say};

/// How many jobs may be on their way: handed in and not written yet.
const WINDOW_JOBS: u64 = 16 << 10;
/// How many bytes of jobs and results may be on their way.
const WINDOW_BYTES: usize = 16 << 20;
/// How many workers are started before it is known whether there is a job: it often takes a worker
/// longer to start than a line to come.
const WORKERS_AT_START: u32 = 1;
/// How many pieces of input may wait.
const PIECES_LIMIT: usize = 2;
/// How long workers may take to end once all jobs are done; then they are killed.
const END_GRACE: Duration = Duration::from_secs(1);
/// How often the progress line is told where the run is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long a peer may be away before that is said.
const ABSENCE_PATIENCE: Duration = Duration::from_secs(1);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Runs it all, and returns the exit status.
pub(crate) fn run(mut config: MapConfig) -> Result<u8, MapError> {
    // Before anything is cut or written.
    let (input, input_name) = open_input(&config)?;
    clash::check(&config, &input, &input_name)?;
    let plan = Plan::make(&config)?;
    if config.output.is_none() {
        remuda_net::stdout_was_open()
            .map_err(|source| MapError::Write { name: "stdout".into(), source })?;
    }
    if input.is_terminal() {
        say::line("remuda: jobs are read from the terminal, one a line; Ctrl-D ends them");
    }
    let shown = config.bar.unwrap_or_else(|| {
        io::stderr().is_terminal() && (config.output.is_some() || !io::stdout().is_terminal())
    });
    let progress = Arc::new(Progress::new(shown));
    config.pool.dispatch.max_queue_size = WINDOW_JOBS as usize;
    config.pool.dispatch.give_up = true;
    config.pool.stop_at_wrong_filter = true;
    config.pool.workers_at_start = Some(WORKERS_AT_START);
    let sink = progress.clone();
    config.pool.logs =
        LogSink::new(move |worker, line| sink.say(&format!("[worker {worker}] {line}")));
    let net = NetConfig {
        recv_limit: config.pool.max_body_bytes + (1 << 20),
        ..remuda_engine::net_config()
    };
    let told = progress.clone();
    let ended = remuda_net::run_local(net, async move {
        let mut run = Run::start(config, plan, input, input_name, told)?;
        let status = run.drive().await;
        run.end(status).await
    });
    progress.clear();
    ended?
}

/// Whether the jobs come from stdin.
fn is_stdin(config: &MapConfig) -> bool {
    config.input.as_ref().is_none_or(|path| path.as_os_str() == "-")
}

fn own_stdin() -> io::Result<File> {
    remuda_net::stdin_was_open()?;
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

fn open_input(config: &MapConfig) -> Result<(File, std::path::PathBuf), MapError> {
    let (name, opened) = match &config.input {
        Some(path) if !is_stdin(config) => (path.clone(), File::open(path)),
        _ => ("stdin".into(), own_stdin()),
    };
    let checked = opened.and_then(|file| match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    });
    match checked {
        Ok(file) => Ok((file, name)),
        Err(source) => Err(MapError::Input { name, source }),
    }
}

/// Reads the input on a thread of its own.
fn start_reading(
    input: File,
    delimiter: u8,
    max_line: usize,
) -> Result<mpsc::Receiver<Piece>, MapError> {
    let (give, pieces) = mpsc::channel(PIECES_LIMIT);
    std::thread::Builder::new()
        .name("remuda-input".into())
        .spawn(move || {
            read_pieces(input, delimiter, max_line, |piece| give.blocking_send(piece).is_ok());
        })
        .map_err(MapError::Thread)?;
    Ok(pieces)
}

/// Says which peers don't come, and why: a run that has no other worker waits for them.
async fn tell_of_absent(pool: Pool, progress: Arc<Progress>) {
    remuda_net::sleep(ABSENCE_PATIENCE).await;
    for worker in pool.status()["workers"].as_array().into_iter().flatten() {
        let link = &worker["link"];
        if let (Some(address), Some(why)) = (worker["attached"].as_str(), link["because"].as_str())
        {
            progress.say(&format!("remuda: {address} is away, and is tried again: {why}"));
        }
    }
}

/// How far a run is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It takes jobs.
    No,
    /// It takes no more jobs; what runs, finishes.
    Soon,
    /// What runs is killed.
    Now,
}

/// A run.
struct Run {
    pool: Pool,
    pieces: mpsc::Receiver<Piece>,
    signals: Signals,
    progress: Arc<Progress>,
    results: Results,
    halt: Option<Halt>,
    lines: Lines,
    input_name: std::path::PathBuf,
    finished: Finished,
    piece: Bytes,
    /// The number of the next job.
    next: u64,
    input_ended: bool,
    in_flight: u64,
    in_flight_bytes: usize,
    /// How many jobs were handed in, and how many workers there are for them.
    handed_in: u64,
    workers: u32,
    workers_max: u32,
    stop: Stop,
    /// A job that may have run is never run again.
    at_most_once: bool,
    interrupted: bool,
    /// Why no worker can be had, as long as it isn't known whether one is needed.
    no_worker: Option<PoolError>,
    /// Somebody sits there and waits for the first result: a wrong worker is told of at once.
    is_typed: bool,
    progress_at: Instant,
}

impl Run {
    fn start(
        config: MapConfig,
        plan: Plan,
        input: File,
        input_name: std::path::PathBuf,
        progress: Arc<Progress>,
    ) -> Result<Self, MapError> {
        let lines = Lines {
            json: config.json,
            delimiter: config.delimiter,
            max_len: config.pool.max_body_bytes,
            takes_bytes: matches!(config.pool.kind, WorkerKind::Filter { .. }),
        };
        let is_typed = input.is_terminal();
        let signals = remuda_net::signals(&[SIGINT, SIGTERM])?;
        let attached = !config.pool.attach.is_empty();
        let at_most_once = config.pool.dispatch.delivery == Delivery::AtMostOnce;
        let workers_max = config.pool.dispatch.num_workers;
        let pool = Pool::start(config.pool)?;
        if !progress.is_shown() || !io::stderr().is_terminal() {
            // A progress line is drawn at once, and what is said has to stand above it.
            say::behind();
        }
        if attached {
            remuda_net::spawn(tell_of_absent(pool.clone(), progress.clone()));
        }
        let results = Results::start(plan, config.keep_order, progress.clone(), |sinks| Emitter {
            json: config.json,
            tag: config.tag,
            on_error: config.on_error,
            joblog: sinks.joblog.is_some(),
            errors: sinks.errors.is_some(),
            succeeded: 0,
            failed: 0,
            failures: Failures::default(),
        })?;
        let pieces = start_reading(input, lines.delimiter, lines.max_len)?;
        Ok(Self {
            pool,
            pieces,
            signals,
            progress,
            results,
            halt: config.halt,
            lines,
            input_name,
            finished: Finished::default(),
            piece: Bytes::new(),
            next: 1,
            input_ended: false,
            in_flight: 0,
            in_flight_bytes: 0,
            handed_in: 0,
            workers: workers_max.min(WORKERS_AT_START),
            workers_max,
            stop: Stop::No,
            at_most_once,
            interrupted: false,
            no_worker: None,
            is_typed,
            progress_at: remuda_net::now(),
        })
    }

    /// Goes on until all is done, or nothing more is to be done.
    async fn drive(&mut self) -> Result<(), MapError> {
        loop {
            self.take_lines()?;
            self.want_workers()?;
            self.pool.flush();
            self.results.write(false);
            self.show_progress();
            if self.in_flight == 0 && (self.stop != Stop::No || self.input_is_done()) {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// True if no line of the input is left to take.
    fn input_is_done(&self) -> bool {
        self.input_ended && self.piece.is_empty()
    }

    /// True if another job may be handed in.
    fn has_room(&self) -> bool {
        let ahead = self.results.ahead(self.next).unwrap_or(self.in_flight);
        self.stop == Stop::No
            && ahead < WINDOW_JOBS
            && self.in_flight_bytes + self.results.held_bytes() < WINDOW_BYTES
            && self.results.have_room()
    }

    /// Takes lines while there are some, and room for them.
    fn take_lines(&mut self) -> Result<(), MapError> {
        while !self.piece.is_empty() && self.has_room() {
            let line = match memchr::memchr(self.lines.delimiter, &self.piece) {
                Some(end) => {
                    let line = self.piece.split_to(end + 1);
                    line.slice(..end)
                }
                None => {
                    self.results.unterminated = Some(self.next);
                    std::mem::take(&mut self.piece)
                }
            };
            self.take_line(line)?;
        }
        Ok(())
    }

    /// As many workers as there were jobs, up to all: the more there are, the longer it takes to
    /// start them, and a short input needs few.
    fn want_workers(&mut self) -> Result<(), MapError> {
        let wanted = u32::try_from(self.handed_in).unwrap_or(u32::MAX).min(self.workers_max);
        if wanted > self.workers {
            self.workers = wanted;
            self.pool.want_workers(wanted)?;
        }
        Ok(())
    }

    fn take_line(&mut self, line: Bytes) -> Result<(), MapError> {
        let number = self.next;
        if let Some(past) = self.results.plan.history.jobs.get(&number) {
            if past.hash != joblog::hash(&line) {
                return Err(MapError::InputChanged { line: number });
            }
            self.next += 1;
            self.results.emit_or_hold(number, Held::Past);
            return Ok(());
        }
        self.next += 1;
        if let Err(failed) = self.lines.check(&line) {
            self.refuse(number, line, failed);
            return Ok(());
        }
        self.handed_in += 1;
        self.in_flight += 1;
        self.in_flight_bytes += line.len();
        let job = NewJob { number, body: line.clone(), text: !self.lines.json };
        if let Err(refused) = self.pool.submit(job) {
            self.in_flight -= 1;
            self.in_flight_bytes -= line.len();
            self.refuse(number, line, failure(refused.code(), refused.to_string()));
        }
        Ok(())
    }

    /// A line that was never a job of the pool.
    fn refuse(&mut self, number: u64, line: Bytes, failed: Failed) {
        let held = Held::Ended {
            input: line,
            result: Err(Box::new(failed)),
            start_ms: self.results.started_ms,
            run_ms: 0,
        };
        self.results.emit_or_hold(number, held);
        self.look_at_halt();
    }

    /// Waits until something has happened, and takes it in.
    async fn wait(&mut self) -> Result<(), MapError> {
        let wants_input = !self.input_ended && self.piece.is_empty() && self.stop == Stop::No;
        let pieces = &mut self.pieces;
        let input = async {
            match wants_input {
                true => pieces.recv().await,
                false => std::future::pending().await,
            }
        };
        let failed = self.no_worker.is_some();
        let (pool, finished) = (&self.pool, &mut self.finished);
        let jobs = async {
            match failed {
                false => pool.finished(finished).await,
                true => std::future::pending().await,
            }
        };
        let others = remuda_net::select(self.signals.recv(), self.results.written());
        match remuda_net::select3(jobs, input, others).await {
            Either3::First(Ok(true)) => self.take_finished(),
            // The pool ended by itself, with all its jobs: nothing more will run.
            Either3::First(Ok(false)) => self.stop = Stop::Now,
            Either3::First(Err(error)) if self.may_be_empty() && is_of_a_worker(&error) => {
                self.no_worker = Some(error);
            }
            Either3::First(Err(error)) => return Err(error.into()),
            Either3::Second(piece) => self.take_piece(piece)?,
            Either3::Third(Either::First(_signal)) => self.interrupt(),
            Either3::Third(Either::Second(written)) => {
                if !self.results.take_written(written)? {
                    self.stop_now();
                }
            }
        }
        Ok(())
    }

    /// Whether the input may turn out to hold no job: then it doesn't matter that none could run.
    fn may_be_empty(&self) -> bool {
        self.next == 1 && self.piece.is_empty() && !self.input_ended && !self.is_typed
    }

    fn take_piece(&mut self, piece: Option<Piece>) -> Result<(), MapError> {
        if matches!(piece, Some(Piece::Lines(_) | Piece::TooLong(_)))
            && let Some(error) = self.no_worker.take()
        {
            return Err(error.into());
        }
        match piece {
            Some(Piece::Lines(bytes)) => self.piece = bytes,
            Some(Piece::TooLong(bytes)) => {
                let number = self.next;
                self.next += 1;
                self.refuse(number, Bytes::new(), self.lines.too_long(bytes));
            }
            Some(Piece::Failed(source)) => {
                let name = self.input_name.clone();
                return Err(MapError::Input { name, source });
            }
            Some(Piece::End) | None => {
                self.input_ended = true;
                let lines = self.next - 1;
                if let Some((&logged, _)) = self.results.plan.history.jobs.last_key_value()
                    && logged > lines
                {
                    return Err(MapError::InputShorter { lines, logged });
                }
                self.progress.total(lines);
            }
        }
        Ok(())
    }

    fn take_finished(&mut self) {
        let finished = std::mem::take(&mut self.finished);
        for job in &finished.jobs {
            self.in_flight -= 1;
            self.in_flight_bytes -= job.body.len();
            if self.stop != Stop::No && was_stopped(job, self.at_most_once) {
                continue;
            }
            self.results.emit_job(job, &finished.bytes);
            self.look_at_halt();
        }
        self.finished = finished;
    }

    /// Ctrl-C: the first lets finish what runs, the second doesn't.
    fn interrupt(&mut self) {
        self.interrupted = true;
        match self.stop {
            Stop::No => {
                let hint = "remuda: interrupted: running jobs finish; once more to kill them";
                self.progress.say(hint);
                self.stop_soon();
            }
            Stop::Soon | Stop::Now => self.stop_now(),
        }
    }

    fn look_at_halt(&mut self) {
        let Some(halt) = self.halt else { return };
        if self.stop == Stop::No
            && halt.reached(self.results.emitter.failed, self.results.emitter.succeeded)
        {
            match halt.now {
                true => self.stop_now(),
                false => self.stop_soon(),
            }
        }
    }

    fn stop_soon(&mut self) {
        self.stop = Stop::Soon;
        self.pool.drain(Drain { queued: false, within: None });
    }

    fn stop_now(&mut self) {
        self.stop = Stop::Now;
        self.pool.stop_now();
    }

    fn show_progress(&mut self) {
        let now = remuda_net::now();
        if self.progress.is_shown() && now >= self.progress_at {
            self.progress_at = now + PROGRESS_EVERY;
            let (busy, workers) = self.pool.busy();
            let failed = self.results.emitter.failed;
            self.progress.update(self.results.emitted, failed, busy, workers);
        }
    }

    /// Writes what is left, ends the workers, and gives the status.
    async fn end(mut self, driven: Result<(), MapError>) -> Result<u8, MapError> {
        let drained = match &driven {
            Ok(()) => self.end_workers().await,
            Err(_) => Ok(()),
        };
        let written = self.results.finish().await;
        for line in self.results.emitter.failures.summary() {
            self.progress.say(&line);
        }
        driven?;
        drained?;
        if !written? {
            self.stop = Stop::Now;
        }
        let whole = self.stop == Stop::No;
        if whole {
            self.results.plan.finish()?;
        }
        if self.interrupted {
            return Ok(exit::INTERRUPTED);
        }
        if self.halt.is_some_and(|halt| halt.is_success()) && !whole {
            return Ok(0);
        }
        Ok(exit::of_failures(self.results.emitter.failed))
    }

    /// Lets the workers end: what a filter still says then shows whether it answered each line.
    async fn end_workers(&mut self) -> Result<(), MapError> {
        self.pool.drain(Drain { queued: true, within: Some(END_GRACE) });
        let pool = self.pool.clone();
        let finished = &mut self.finished;
        loop {
            match pool.finished(finished).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // There was no job: a worker is not missed.
                Err(error) if self.next == 1 && is_of_a_worker(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether it is the workers that are no use, and not the pool.
fn is_of_a_worker(error: &PoolError) -> bool {
    use PoolError::{Attach, Filter, Hopeless, NoWorker};
    matches!(error, NoWorker { .. } | Hopeless { .. } | Filter(_) | Attach { .. })
}

/// True for a job that the end of the run kept from running, or stopped: it is as if it had never
/// been taken. One that may have run, and may not run again, is a failure.
fn was_stopped(job: &FinishedJob, at_most_once: bool) -> bool {
    match &job.end {
        End::Done { .. } => false,
        End::Failed(failed) => failed.stopped && !(at_most_once && failed.may_have_run),
    }
}
