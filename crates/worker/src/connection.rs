//! One connection, served by one thread: read once, answer all that is complete, read again.

use std::io::{self, ErrorKind, Read, Write};

use remuda_protocol::encode;
use remuda_protocol::{
    Accepting, Call, Code, ENVELOPE_BYTES_MAX, FirstBytes, Framer, HANDSHAKE_BYTES_MAX, Id, IdBuf,
    Offer, Op, Request, TooLong, Verdict, first_bytes, salvage_id,
};

use crate::job::Job;
use crate::results::Runner;

/// When held back answers are sent even though more calls wait.
const FLUSH_BYTES: usize = 64 * 1024;

/// What the buffer for answers may keep of its memory: a result of 1 MiB and what is around it.
pub(crate) const KEEP_BYTES: usize = 2 * 1024 * 1024;

/// What a line asks of the loop that read it.
pub(crate) enum Step<'a> {
    /// Nothing more; the answer is in `out`, if there is one.
    Done,
    /// Run this call.
    Run {
        /// Its id.
        id: Option<Id<'a>>,
        /// What it says.
        call: Call<'a>,
        /// The whole line, for those who can't keep the borrowed call.
        line: &'a [u8],
    },
    /// Stop the call with this id.
    Cancel(Id<'a>),
    /// Send what is in `out`, then close.
    Close,
}

/// The reading side of a connection: bytes in, lines and their meaning out.
pub(crate) struct Lines<'w> {
    framer: Framer,
    offer: &'w Offer,
    runner: &'w Runner,
    shaken: bool,
}

impl<'w> Lines<'w> {
    pub(crate) fn new(offer: &'w Offer, runner: &'w Runner) -> Lines<'w> {
        Lines { framer: Framer::new(HANDSHAKE_BYTES_MAX), offer, runner, shaken: false }
    }

    /// Reads once. `false` when the peer has ended the connection, in whatever way.
    pub(crate) fn fill(&mut self, reader: &mut impl Read) -> io::Result<bool> {
        loop {
            match reader.read(self.framer.spare()) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.framer.filled(n);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_end(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether hands were shaken and nothing that was read is left.
    pub(crate) fn is_between(&self) -> bool {
        self.shaken && self.framer.rest().is_empty()
    }

    /// Whether another line is complete, so that an answer may be held back.
    fn has_line(&mut self) -> bool {
        // A line that is too long is reported when it is taken.
        self.framer.has_line().unwrap_or(true)
    }

    /// Takes the next line, if one is complete, and appends what it answers by itself to `out`.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> Option<Step<'_>> {
        if self.is_between() {
            return None;
        }
        match self.framer.has_line() {
            Ok(true) => {}
            Ok(false) if self.shaken || first_bytes(self.framer.rest()) != FirstBytes::Foreign => {
                return None;
            }
            Err(error) if self.shaken => {
                self.refuse_long_line(error, out);
                return Some(Step::Close);
            }
            _ => {
                let error = "this is a Remuda worker, and the first line must be a handshake";
                encode::error(out, None, Code::HandshakeRequired, error);
                return Some(Step::Close);
            }
        }
        if !self.shaken {
            return self.shake(out);
        }
        let line = self.framer.next_line().ok().flatten()?;
        Some(meaning(line, out))
    }

    fn shake(&mut self, out: &mut Vec<u8>) -> Option<Step<'static>> {
        let line = self.framer.next_line().ok().flatten()?;
        match Accepting::new(self.offer).first_line(line, out) {
            Verdict::Accepted => {
                self.shaken = true;
                self.framer.set_max_line(self.runner.max_body_bytes + ENVELOPE_BYTES_MAX);
                Some(Step::Done)
            }
            Verdict::Refused(_) => Some(Step::Close),
        }
    }

    fn refuse_long_line(&self, error: TooLong, out: &mut Vec<u8>) {
        let id = salvage_id(self.framer.rest());
        let id = id.as_ref().map(IdBuf::as_id);
        encode::error(out, id, Code::BodyTooLarge, &error.to_string());
    }
}

fn meaning<'a>(line: &'a [u8], out: &mut Vec<u8>) -> Step<'a> {
    let request = match Request::parse(line) {
        Ok(request) => request,
        Err(bad) => {
            encode::error(out, bad.id.as_ref().map(IdBuf::as_id), bad.code, &bad.message);
            return Step::Done;
        }
    };
    match (request.op, request.id) {
        (Op::Call(call), id) => return Step::Run { id, call, line },
        (Op::Cancel, Some(id)) => return Step::Cancel(id),
        (Op::Status, id) => {
            let members = format!("\"pid\":{}", std::process::id());
            encode::ok(out, id, "status", members.as_bytes());
        }
        (Op::Handshake { .. }, id) => {
            encode::error(out, id, Code::BadRequest, "hands were shaken already");
        }
        (Op::Reset | Op::Shutdown | Op::Cancel, id) => {
            let error = "a worker ends with its socket: reset and shutdown are for pools";
            encode::error(out, id, Code::UnknownOp, error);
        }
    }
    Step::Done
}

/// Whether an error only means that the peer is gone, which is how a worker's life ends.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

/// Serves a connection on this thread until it ends.
///
/// With `coalesce`, answers are held back while more calls are complete in the buffer.
pub(crate) fn serve(
    reader: &mut impl Read,
    writer: &mut impl Write,
    lines: &mut Lines<'_>,
    coalesce: bool,
) -> io::Result<()> {
    // No call can be stopped here, so one job stands for all of them.
    let job = Job::default();
    job.run(|| serve_as(&job, reader, writer, lines, coalesce))
}

fn serve_as(
    job: &Job,
    reader: &mut impl Read,
    writer: &mut impl Write,
    lines: &mut Lines<'_>,
    coalesce: bool,
) -> io::Result<()> {
    let (runner, mut out) = (lines.runner, Vec::new());
    loop {
        while let Some(step) = lines.next(&mut out) {
            let close = match step {
                Step::Run { id, call, .. } => {
                    runner.call(id, &call, job, &mut out);
                    false
                }
                // One thread can't be told to stop what it runs; the call is answered by now.
                Step::Done | Step::Cancel(_) => false,
                Step::Close => true,
            };
            let due = close || !coalesce || out.len() >= FLUSH_BYTES || !lines.has_line();
            if due && !send(writer, &mut out)? {
                return Ok(());
            }
            if close {
                return Ok(());
            }
        }
        if !lines.fill(reader)? {
            return Ok(());
        }
    }
}

/// Shakes hands. `false` when there is nothing more to do: the peer is gone, or was refused.
pub(crate) fn shake(
    reader: &mut impl Read,
    writer: &mut impl Write,
    lines: &mut Lines<'_>,
) -> io::Result<bool> {
    let mut out = Vec::new();
    while !lines.shaken {
        if !lines.fill(reader)? {
            return Ok(false);
        }
        let refused = matches!(lines.next(&mut out), Some(Step::Close));
        if !out.is_empty() && !send(writer, &mut out)? || refused {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes all of `out` and empties it. `false` when the peer is gone.
pub(crate) fn send(writer: &mut impl Write, out: &mut Vec<u8>) -> io::Result<bool> {
    let sent = writer.write_all(out).and_then(|()| writer.flush());
    out.clear();
    if out.capacity() > KEEP_BYTES {
        *out = Vec::new();
    }
    match sent {
        Ok(()) => Ok(true),
        Err(error) if is_end(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
