//! What has ended, on its way out: in turn where the order is kept, in portions, and never more of
//! it in memory than may be.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use remuda_engine::{End, FinishedJob};
use remuda_net::mpsc;

use super::emit::{Emitter, Ended, Held};
use super::error::MapError;
use super::order::Reorder;
use super::output::{PORTIONS_LIMIT, Portion, Sinks, WriteFailed, Writer};
use super::progress::Progress;
use super::resume::Plan;

/// A portion that has grown to so many bytes is written.
const PORTION_SIZE: usize = 256 << 10;

/// What the writer says of a portion: it comes back to be filled again.
pub(super) type Written = Option<Result<Portion, WriteFailed>>;

/// The results of a run.
pub(super) struct Results {
    pub(super) emitter: Emitter,
    pub(super) plan: Plan,
    /// Jobs that were written, or that an earlier run had ended.
    pub(super) emitted: u64,
    /// The number of lines of an input whose last line has no end: nor has the last result.
    pub(super) unterminated: Option<u64>,
    /// When the run began, in milliseconds since 1970.
    pub(super) started_ms: u64,
    progress: Arc<Progress>,
    order: Option<Reorder<Held>>,
    /// Bytes of results that wait for their turn.
    held_bytes: usize,
    portion: Portion,
    spare: Vec<Portion>,
    in_writer: usize,
    writer: Option<Writer>,
    written: mpsc::Receiver<Result<Portion, WriteFailed>>,
}

impl Results {
    /// Starts the thread that writes.
    pub(super) fn start(
        mut plan: Plan,
        keep_order: bool,
        progress: Arc<Progress>,
        emitter: impl FnOnce(&Sinks) -> Emitter,
    ) -> Result<Self, MapError> {
        let sinks = plan.take_sinks()?;
        let emitter = emitter(&sinks);
        let (done, written) = mpsc::channel(PORTIONS_LIMIT + 1);
        let writer = Writer::start(sinks, move |portion| {
            // Nobody waits any more once the run has ended.
            let _ = done.blocking_send(portion);
        })
        .map_err(MapError::Thread)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            emitter,
            order: (keep_order || plan.rewrites()).then(|| Reorder::starting_at(1)),
            plan,
            emitted: 0,
            unterminated: None,
            started_ms: started.as_millis() as u64,
            progress,
            held_bytes: 0,
            portion: Portion::default(),
            spare: Vec::new(),
            in_writer: 0,
            writer: Some(writer),
            written,
        })
    }

    /// How many jobs the next is ahead of the first that isn't written, where the order is kept.
    pub(super) fn ahead(&self, next: u64) -> Option<u64> {
        self.order.as_ref().map(|order| next - order.next())
    }

    /// Bytes of results that wait for their turn.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// False if the files take less than what comes.
    pub(super) fn have_room(&self) -> bool {
        self.in_writer < PORTIONS_LIMIT && self.portion.results.len() < PORTION_SIZE
    }

    /// Writes a job that has ended, or keeps it until its turn comes.
    pub(super) fn emit_job(&mut self, job: &FinishedJob, bytes: &[u8]) {
        let started = job.facts.started_at().unwrap_or(job.facts.submitted_at());
        let start_ms = self.started_ms + started.as_millis() as u64;
        let run_ms = job.facts.ran().as_millis() as u64;
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
    pub(super) fn emit_or_hold(&mut self, number: u64, held: Held) {
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
        self.unterminated == Some(self.emitted + 1)
    }

    /// Hands over what is to be written, if the writer has nothing to do or there is much.
    pub(super) fn write(&mut self, all: bool) {
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

    /// Waits until a portion was written. Once nobody writes any more, nothing more is heard.
    pub(super) async fn written(&mut self) -> Written {
        match self.writer.is_some() {
            true => self.written.recv().await,
            false => std::future::pending().await,
        }
    }

    /// Takes a portion back. Returns false if the reader of the results is gone.
    pub(super) fn take_written(&mut self, written: Written) -> Result<bool, MapError> {
        match written {
            Some(Ok(portion)) => {
                self.in_writer -= 1;
                self.spare.push(portion);
                Ok(true)
            }
            Some(Err(WriteFailed::Other(name, source))) => {
                self.writer = None;
                Err(MapError::Write { name, source })
            }
            Some(Err(WriteFailed::ReaderGone)) | None => {
                self.writer = None;
                Ok(false)
            }
        }
    }

    /// Writes what is left. Returns false if the reader of the results is gone.
    pub(super) async fn finish(&mut self) -> Result<bool, MapError> {
        self.write(true);
        let mut written = Ok(true);
        while self.in_writer > 0 && self.writer.is_some() && written.is_ok() {
            let next = self.written().await;
            written = self.take_written(next);
        }
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        written
    }
}
