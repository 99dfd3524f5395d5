//! The run itself: hands in jobs as there is room for them, and writes what has ended.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use remuda_engine::{
    Code, Drain, End, Failed, Finished, FinishedJob, LogSink, NewJob, Pool, WorkerKind,
};
use remuda_net::{Config as NetConfig, Either, Either3, Signals, mpsc};
use remuda_protocol::Raw;

use super::MapConfig;
use super::emit::{Emitter, Ended, Held, failure};
use super::error::MapError;
use super::failures::Failures;
use super::halt::Halt;
use super::input::{Piece, read_pieces};
use super::joblog;
use super::order::Reorder;
use super::output::{PORTIONS_LIMIT, Portion, WriteFailed, Writer};
use super::progress::Progress;
use super::resume::Plan;
use crate::cli::exit;

/// How many jobs may be on their way: handed in and not written yet.
const WINDOW_JOBS: u64 = 16 << 10;
/// How many bytes of jobs and results may be on their way.
const WINDOW_BYTES: usize = 16 << 20;
/// How many pieces of input may wait.
const PIECES_LIMIT: usize = 2;
/// A portion that has grown to so many bytes is written.
const PORTION_SIZE: usize = 256 << 10;
/// How long workers may take to end once all jobs are done; then they are killed.
const END_GRACE: Duration = Duration::from_secs(1);
/// How often the progress line is told where the run is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Runs it all, and returns the exit status.
pub(crate) fn run(mut config: MapConfig) -> Result<u8, MapError> {
    let plan = Plan::make(&config)?;
    let (input, input_name) = open_input(&config)?;
    let shown = config.bar.unwrap_or_else(|| {
        std::io::IsTerminal::is_terminal(&io::stderr())
            && (config.output.is_some() || !std::io::IsTerminal::is_terminal(&io::stdout()))
    });
    let progress = Arc::new(Progress::new(shown));
    config.pool.dispatch.max_queue_size = WINDOW_JOBS as usize;
    config.pool.dispatch.give_up = true;
    config.pool.stop_at_wrong_filter = true;
    let sink = progress.clone();
    config.pool.logs =
        LogSink::new(move |worker, line| sink.say(&format!("[worker {worker}] {line}")));
    let net =
        NetConfig { recv_limit: config.pool.max_body_bytes + (1 << 20), ..NetConfig::default() };
    let told = progress.clone();
    let ended = remuda_net::run_local(net, async move {
        let mut run = Run::start(config, plan, input, input_name, told)?;
        let status = run.drive().await;
        run.end(status).await
    });
    progress.clear();
    ended?
}

fn open_input(config: &MapConfig) -> Result<(File, std::path::PathBuf), MapError> {
    let (name, opened) = match &config.input {
        Some(path) if path.as_os_str() != "-" => (path.clone(), File::open(path)),
        _ => ("stdin".into(), io::stdin().as_fd().try_clone_to_owned().map(File::from)),
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
    plan: Plan,
    pieces: mpsc::Receiver<Piece>,
    written: mpsc::Receiver<Result<Portion, WriteFailed>>,
    writer: Option<Writer>,
    signals: Signals,
    progress: Arc<Progress>,
    emitter: Emitter,
    halt: Option<Halt>,
    json: bool,
    delimiter: u8,
    max_line: usize,
    takes_bytes: bool,
    input_name: std::path::PathBuf,
    order: Option<Reorder<Held>>,
    /// Bytes of results that wait for their turn.
    held_bytes: usize,
    finished: Finished,
    piece: Bytes,
    /// The number of the next job.
    next: u64,
    input_ended: bool,
    /// The last line of the input had no end.
    unterminated: bool,
    in_flight: u64,
    in_flight_bytes: usize,
    /// Jobs that were written, or that an earlier run had ended.
    emitted: u64,
    portion: Portion,
    spare: Vec<Portion>,
    in_writer: usize,
    stop: Stop,
    interrupted: bool,
    started_ms: u64,
    progress_at: Instant,
}

impl Run {
    fn start(
        config: MapConfig,
        mut plan: Plan,
        input: File,
        input_name: std::path::PathBuf,
        progress: Arc<Progress>,
    ) -> Result<Self, MapError> {
        let max_line = config.pool.max_body_bytes;
        let takes_bytes = matches!(config.pool.kind, WorkerKind::Filter { .. });
        let signals = remuda_net::signals(&[SIGINT, SIGTERM])?;
        let pool = Pool::start(config.pool)?;
        let sinks = plan.take_sinks()?;
        let emitter = Emitter {
            json: config.json,
            tag: config.tag,
            on_error: config.on_error,
            joblog: sinks.joblog.is_some(),
            errors: sinks.errors.is_some(),
            succeeded: 0,
            failed: 0,
            failures: Failures::default(),
        };
        let (done, written) = mpsc::channel(PORTIONS_LIMIT + 1);
        let writer = Writer::start(sinks, move |portion| {
            // Nobody waits any more once the run has ended.
            let _ = done.blocking_send(portion);
        })
        .map_err(MapError::Thread)?;
        let (give, pieces) = mpsc::channel(PIECES_LIMIT);
        let delimiter = config.delimiter;
        std::thread::Builder::new()
            .name("remuda-input".into())
            .spawn(move || {
                read_pieces(input, delimiter, max_line, |piece| give.blocking_send(piece).is_ok());
            })
            .map_err(MapError::Thread)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            pool,
            order: (config.keep_order || plan.rewrites()).then(|| Reorder::starting_at(1)),
            plan,
            pieces,
            written,
            writer: Some(writer),
            signals,
            progress,
            emitter,
            halt: config.halt,
            json: config.json,
            delimiter,
            max_line,
            takes_bytes,
            input_name,
            held_bytes: 0,
            finished: Finished::default(),
            piece: Bytes::new(),
            next: 1,
            input_ended: false,
            unterminated: false,
            in_flight: 0,
            in_flight_bytes: 0,
            emitted: 0,
            portion: Portion::default(),
            spare: Vec::new(),
            in_writer: 0,
            stop: Stop::No,
            interrupted: false,
            started_ms: started.as_millis() as u64,
            progress_at: remuda_net::now(),
        })
    }

    /// Goes on until all is done, or nothing more is to be done.
    async fn drive(&mut self) -> Result<(), MapError> {
        loop {
            self.take_lines()?;
            self.pool.flush();
            self.write(false);
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
        let ahead = match &self.order {
            Some(order) => self.next - order.next(),
            None => self.in_flight,
        };
        self.stop == Stop::No
            && ahead < WINDOW_JOBS
            && self.in_flight_bytes + self.held_bytes < WINDOW_BYTES
            && self.in_writer < PORTIONS_LIMIT
            && self.portion.results.len() < PORTION_SIZE
    }

    /// Takes lines while there are some, and room for them.
    fn take_lines(&mut self) -> Result<(), MapError> {
        while !self.piece.is_empty() && self.has_room() {
            let line = match memchr::memchr(self.delimiter, &self.piece) {
                Some(end) => {
                    let line = self.piece.split_to(end + 1);
                    line.slice(..end)
                }
                None => {
                    self.unterminated = true;
                    std::mem::take(&mut self.piece)
                }
            };
            self.take_line(line)?;
        }
        Ok(())
    }

    fn take_line(&mut self, line: Bytes) -> Result<(), MapError> {
        let number = self.next;
        if let Some(past) = self.plan.history.jobs.get(&number) {
            if past.hash != joblog::hash(&line) {
                return Err(MapError::InputChanged { line: number });
            }
            self.next += 1;
            self.emit_or_hold(number, Held::Past);
            return Ok(());
        }
        self.next += 1;
        if let Err(failed) = self.check(&line) {
            self.refuse(number, line, failed);
            return Ok(());
        }
        self.in_flight += 1;
        self.in_flight_bytes += line.len();
        let job = NewJob { number, body: line.clone(), text: !self.json };
        if let Err(refused) = self.pool.submit(job) {
            self.in_flight -= 1;
            self.in_flight_bytes -= line.len();
            self.refuse(number, line, failure(refused.code(), refused.to_string()));
        }
        Ok(())
    }

    /// Why a line can't be a job.
    fn check(&self, line: &[u8]) -> Result<(), Failed> {
        if line.len() > self.max_line {
            return Err(self.too_long(line.len() as u64));
        }
        if self.json {
            Raw::new(line).map(|_| ()).map_err(|error| {
                failure(Code::BadRequest, format!("the line is not a JSON value: {error}"))
            })
        } else if self.takes_bytes {
            match self.delimiter != b'\n' && memchr::memchr(b'\n', line).is_some() {
                true => Err(failure(
                    Code::BadRequest,
                    "the job holds a line break, which a filter takes for two jobs",
                )),
                false => Ok(()),
            }
        } else {
            std::str::from_utf8(line).map(|_| ()).map_err(|error| {
                failure(
                    Code::BadRequest,
                    format!(
                        "the line is not UTF-8 (at byte {}): only --stdio takes any bytes",
                        error.valid_up_to() + 1
                    ),
                )
            })
        }
    }

    fn too_long(&self, bytes: u64) -> Failed {
        let limit = self.max_line;
        failure(
            Code::BodyTooLarge,
            format!(
                "the line has {bytes} bytes, and a job at most {limit}: raise --max-body-bytes"
            ),
        )
    }

    /// A line that was never a job of the pool.
    fn refuse(&mut self, number: u64, line: Bytes, failed: Failed) {
        let held = Held::Ended {
            input: line,
            result: Err(Box::new(failed)),
            start_ms: self.started_ms,
            run_ms: 0,
        };
        self.emit_or_hold(number, held);
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
        // Once nobody writes any more, nothing more is heard of it.
        let (written, is_writing) = (&mut self.written, self.writer.is_some());
        let written = async {
            match is_writing {
                true => written.recv().await,
                false => std::future::pending().await,
            }
        };
        let jobs = self.pool.finished(&mut self.finished);
        let others = remuda_net::select(self.signals.recv(), written);
        match remuda_net::select3(jobs, input, others).await {
            Either3::First(any) => {
                if any? {
                    self.take_finished();
                } else {
                    // The pool ended by itself, with all its jobs: nothing more will run.
                    self.stop = Stop::Now;
                }
            }
            Either3::Second(piece) => self.take_piece(piece)?,
            Either3::Third(Either::First(_signal)) => self.interrupt(),
            Either3::Third(Either::Second(written)) => self.take_written(written)?,
        }
        Ok(())
    }

    fn take_piece(&mut self, piece: Option<Piece>) -> Result<(), MapError> {
        match piece {
            Some(Piece::Lines(bytes)) => self.piece = bytes,
            Some(Piece::TooLong(bytes)) => {
                let number = self.next;
                self.next += 1;
                self.refuse(number, Bytes::new(), self.too_long(bytes));
            }
            Some(Piece::Failed(source)) => {
                let name = self.input_name.clone();
                return Err(MapError::Input { name, source });
            }
            Some(Piece::End) | None => {
                self.input_ended = true;
                let lines = self.next - 1;
                if let Some((&logged, _)) = self.plan.history.jobs.last_key_value()
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
            if self.stop != Stop::No && was_stopped(job) {
                continue;
            }
            self.emit_job(job, &finished.bytes);
            self.look_at_halt();
        }
        self.finished = finished;
    }

    /// Writes a job that has ended, or keeps it until its turn comes.
    fn emit_job(&mut self, job: &FinishedJob, bytes: &[u8]) {
        let started = job.facts.started_at.unwrap_or(job.facts.submitted_at);
        let start_ms = self.started_ms + started.as_millis() as u64;
        let run_ms = job.facts.ran.as_millis() as u64;
        let in_turn = match &mut self.order {
            Some(order) => order.take_turn(job.number),
            None => true,
        };
        if in_turn {
            let result = match &job.end {
                End::Done { at, form } => Ok((&bytes[at.clone()], *form)),
                End::Failed(failed) => Err(&**failed),
            };
            let unterminated = self.is_last_unterminated();
            let number = job.number;
            let input = &job.body;
            let ended = Ended { number, input, result, start_ms, run_ms, unterminated };
            self.emit(&ended);
            self.emit_held();
        } else if let Some(order) = &mut self.order {
            let result = match &job.end {
                End::Done { at, form } => Ok((Bytes::copy_from_slice(&bytes[at.clone()]), *form)),
                End::Failed(failed) => Err(failed.clone()),
            };
            let held = Held::Ended { input: job.body.clone(), result, start_ms, run_ms };
            self.held_bytes += held.size();
            order.insert(job.number, held);
        }
    }

    /// The same for what the pool never had.
    fn emit_or_hold(&mut self, number: u64, held: Held) {
        if let Some(order) = &mut self.order
            && !order.take_turn(number)
        {
            self.held_bytes += held.size();
            order.insert(number, held);
            return;
        }
        self.emit_held_one(number, &held);
        self.emit_held();
    }

    /// Writes what waited for its turn.
    fn emit_held(&mut self) {
        while let Some(order) = &mut self.order {
            let number = order.next();
            let Some(held) = order.pop() else { return };
            self.held_bytes -= held.size();
            self.emit_held_one(number, &held);
        }
    }

    fn emit_held_one(&mut self, number: u64, held: &Held) {
        match held {
            Held::Ended { input, result, start_ms, run_ms } => {
                let result = match result {
                    Ok((result, form)) => Ok((&result[..], *form)),
                    Err(failed) => Err(&**failed),
                };
                let unterminated = self.is_last_unterminated();
                let (start_ms, run_ms) = (*start_ms, *run_ms);
                self.emit(&Ended { number, input, result, start_ms, run_ms, unterminated });
            }
            Held::Past => self.emit_past(number),
        }
    }

    fn emit(&mut self, ended: &Ended<'_>) {
        self.emitted += 1;
        self.emitter.emit(ended, &mut self.portion, &self.progress);
        if self.portion.results.len() >= PORTION_SIZE {
            self.write(false);
        }
    }

    /// A job that an earlier run ended: where files are written anew, its result stands there.
    fn emit_past(&mut self, number: u64) {
        self.emitted += 1;
        if !self.plan.rewrites() {
            return;
        }
        if let Err(error) = self.plan.write_past(number, &mut self.portion) {
            self.progress
                .say(&format!("remuda: line {number}: its old result can't be read: {error}"));
        }
    }

    fn is_last_unterminated(&self) -> bool {
        self.unterminated && self.emitted + 2 == self.next && self.input_is_done_or_last()
    }

    fn input_is_done_or_last(&self) -> bool {
        self.piece.is_empty()
    }

    /// Hands over what is to be written, if the writer has nothing to do or there is much.
    fn write(&mut self, all: bool) {
        let Some(writer) = &self.writer else { return };
        let much = self.portion.results.len() >= PORTION_SIZE;
        let free = self.in_writer == 0 || (much && self.in_writer < PORTIONS_LIMIT) || all;
        if self.portion.is_empty() || !free {
            return;
        }
        let empty = self.spare.pop().unwrap_or_default();
        writer.write(std::mem::replace(&mut self.portion, empty));
        self.in_writer += 1;
    }

    fn take_written(
        &mut self,
        written: Option<Result<Portion, WriteFailed>>,
    ) -> Result<(), MapError> {
        match written {
            Some(Ok(portion)) => {
                self.in_writer -= 1;
                self.spare.push(portion);
                Ok(())
            }
            Some(Err(WriteFailed::Other(name, source))) => {
                self.writer = None;
                Err(MapError::Write { name, source })
            }
            Some(Err(WriteFailed::ReaderGone)) | None => {
                self.writer = None;
                self.stop_now();
                Ok(())
            }
        }
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
        if self.stop == Stop::No && halt.reached(self.emitter.failed, self.emitter.succeeded) {
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
            self.progress.update(self.emitted, self.emitter.failed, busy, workers);
        }
    }

    /// Writes what is left, ends the workers, and gives the status.
    async fn end(mut self, driven: Result<(), MapError>) -> Result<u8, MapError> {
        let drained = match &driven {
            Ok(()) => self.end_workers().await,
            Err(_) => Ok(()),
        };
        self.write(true);
        let mut written = Ok(());
        while self.in_writer > 0 && self.writer.is_some() && written.is_ok() {
            let next = self.written.recv().await;
            written = self.take_written(next);
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        for line in self.emitter.failures.summary() {
            self.progress.say(&line);
        }
        driven?;
        drained?;
        written?;
        let whole = self.stop == Stop::No;
        if whole {
            self.plan.finish()?;
        }
        if self.interrupted {
            return Ok(exit::INTERRUPTED);
        }
        if self.halt.is_some_and(|halt| halt.is_success()) && !whole {
            return Ok(0);
        }
        Ok(exit::of_failures(self.emitter.failed))
    }

    /// Lets the workers end: what a filter still says then shows whether it answered each line.
    async fn end_workers(&mut self) -> Result<(), MapError> {
        self.pool.drain(Drain { queued: true, within: Some(END_GRACE) });
        let pool = self.pool.clone();
        let finished = &mut self.finished;
        while pool.finished(finished).await? {}
        Ok(())
    }
}

/// True for a job that the end of the run kept from running, or stopped: it is as if it had never
/// been taken.
fn was_stopped(job: &FinishedJob) -> bool {
    match &job.end {
        End::Done { .. } => false,
        End::Failed(failed) => failed.stopped,
    }
}
