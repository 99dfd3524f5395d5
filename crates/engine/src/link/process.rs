//! The link to a worker process, or to a peer: the protocol's lines on a socket, or over rings.

use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use remuda_dispatch::{CallId, Dispatch, Fault, Offer, WorkerId};
use remuda_net::{ConnCtx, NetError, ParseResult};
use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{
    Connecting, ENVELOPE_BYTES_MAX, HANDSHAKE_BYTES_MAX, HandshakeError, Id, LineScan,
    PROTOCOL_VERSION, SHM_LINE, json_string,
};
use remuda_shm::SpscFace;
use rustix::net::{SendFlags, send};

use crate::core::Core;
use crate::job::{Answer, Job};
use crate::link::Transport;
use crate::long_line::{LongLine, Taken};
use crate::pool::Pool;
use crate::rings::{self, Rings};
use crate::wire::Wire;

/// How much of a line that can't be read is shown.
const SHOWN_BYTES: usize = 80;

/// The socket, what the lines go by, and how far that was read.
pub(crate) struct ProcessLink {
    /// What lines go by.
    wire: Wire,
    /// The socket of a worker with which the pool went on over rings: the proof that it lives.
    life: Option<ConnCtx>,
    /// The socket once more, for handing rings over. Gone once hands were shaken.
    rendezvous: Option<OwnedFd>,
    scan: LineScan,
    /// The beginning of a long line.
    long: LongLine,
    /// Until the handshake is answered.
    connecting: Option<Connecting>,
    /// The rest of a line over the limit is thrown away.
    discarding: bool,
    /// It is a peer that this pool attached to: calls carry how many pools they came through.
    attached: bool,
    /// Whether it can be asked again what it offers, and was.
    asking: Asking,
}

/// Asking a peer again what it offers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// It did not declare that it can be asked.
    Never,
    Possible,
    /// It was asked, and has not answered.
    Asked,
}

impl ProcessLink {
    /// Sends the handshake on a socket that a worker has the other end of. With a duplicate of
    /// the socket, worker and pool go on over rings if the worker can.
    pub(crate) fn open(
        conn: ConnCtx,
        rendezvous: Option<OwnedFd>,
        scratch: &mut Vec<u8>,
    ) -> remuda_net::Result<Self> {
        Ok(Self { rendezvous, ..Self::greet(Wire::Socket(conn), None, scratch, false)? })
    }

    /// Sends the handshake to a peer that runs already.
    pub(crate) fn attach(
        wire: Wire,
        token: Option<&str>,
        scratch: &mut Vec<u8>,
    ) -> remuda_net::Result<Self> {
        Self::greet(wire, token, scratch, true)
    }

    fn greet(
        wire: Wire,
        token: Option<&str>,
        scratch: &mut Vec<u8>,
        attached: bool,
    ) -> remuda_net::Result<Self> {
        scratch.clear();
        let connecting = Some(Connecting::start(token, scratch));
        wire.send_nowait(scratch)?;
        let scan = LineScan::new(HANDSHAKE_BYTES_MAX);
        let (life, rendezvous) = (None, None);
        Ok(Self {
            wire,
            life,
            rendezvous,
            scan,
            long: LongLine::default(),
            connecting,
            discarding: false,
            attached,
            asking: Asking::Never,
        })
    }

    /// Hands rings over; all that follows goes by them. Nothing else was sent since the handshake
    /// was answered, so nothing on the socket can be behind this.
    fn go_on_over_rings(&mut self, socket: &OwnedFd, workers: u32) -> Result<(), String> {
        let (face, worker_part) =
            SpscFace::pair(&rings::worker_options(workers)).map_err(|error| error.to_string())?;
        let rings = Rings::new(face.into_split()).map_err(|error| error.to_string())?;
        let rings = rings.gathering(rings::worker_gather(workers));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        send(socket, SHM_LINE, flags).map_err(|error| error.to_string())?;
        if let Err(error) = worker_part.hand_over(socket) {
            // The worker waits for what will not come.
            self.close();
            return Err(error.to_string());
        }
        let before = std::mem::replace(&mut self.wire, Wire::Rings(Rc::new(rings)));
        if let Wire::Socket(conn) = before {
            self.life = Some(conn);
        }
        Ok(())
    }

    /// The rings, if it went on over them.
    pub(super) fn rings(&self) -> Option<Rc<Rings>> {
        match &self.wire {
            Wire::Rings(rings) => Some(rings.clone()),
            Wire::Socket(_) => None,
        }
    }

    /// Ends the connection: what is read then is its end.
    pub(crate) fn close(&self) {
        match &self.life {
            Some(conn) => conn.close(),
            None => self.wire.close(),
        }
    }

    /// Hands a call over; true if it is gathered with others, and to be sent with them.
    pub(crate) fn send(
        &self,
        dispatch: &Dispatch<Job, Answer>,
        call: CallId,
        scratch: &mut Vec<u8>,
    ) -> bool {
        let mut jobs = dispatch.call(call);
        let id = Some(Id::Number(call.number()));
        let Some((first, remaining)) = jobs.next() else { return false };
        let timeout_ms = remaining.map(|time| time.as_millis() as u64);
        let hops = if self.attached { first.hops() + 1 } else { 0 };
        let fields = CallFields { timeout_ms, hops };
        let gathered = match jobs.next() {
            None if let Some(body) = first.as_it_is() => {
                scratch.clear();
                let body_at = encode::call_around(scratch, id, &fields);
                let (head, tail) = scratch.split_at(body_at);
                if let Err(error) = self.wire.send_parts(head, body.clone(), tail) {
                    self.not_sent(&error);
                }
                return false;
            }
            None => self.wire.gather(scratch, |out| {
                encode::call_with(out, id, &fields, |out| write_body(out, first));
            }),
            Some((second, _)) => {
                let jobs = [first, second].into_iter().chain(jobs.map(|(job, _)| job));
                let fields = CallFields { timeout_ms: None, hops };
                self.wire.gather(scratch, |out| {
                    encode::calls_with(out, id, &fields, jobs, write_body);
                })
            }
        };
        // One that is gone is one whose end is about to be read: the job is judged then.
        gathered.unwrap_or_else(|error| {
            self.not_sent(&error);
            false
        })
    }

    /// A call is about to be handed over.
    pub(crate) fn wake_ahead(&self) {
        self.wire.wake_ahead();
    }

    /// Sends the calls that were gathered.
    pub(crate) fn send_gathered(&self) {
        self.wire.send_gathered();
    }

    pub(crate) fn cancel(&self, call: CallId, scratch: &mut Vec<u8>) {
        scratch.clear();
        encode::cancel(scratch, Id::Number(call.number()));
        self.transmit(scratch);
    }

    /// Takes note that it answered what it offers; false if it wasn't asked.
    pub(super) fn was_asked(&mut self) -> bool {
        let was_asked = self.asking == Asking::Asked;
        if was_asked {
            self.asking = Asking::Possible;
        }
        was_asked
    }

    /// Asks a peer what it offers by now, if it can be asked and has answered the last time; false
    /// if it hasn't.
    pub(super) fn ask_offer(&mut self, scratch: &mut Vec<u8>) -> bool {
        if self.asking == Asking::Possible {
            self.asking = Asking::Asked;
            scratch.clear();
            encode::handshake(scratch, PROTOCOL_VERSION, None);
            self.transmit(scratch);
            return true;
        }
        self.asking == Asking::Never
    }

    pub(crate) fn stop(&self) {
        match &self.wire {
            _ if self.attached => self.close(),
            // The socket stays open: it proves that the worker lives, and it has still to answer.
            Wire::Rings(rings) => rings.shutdown_write(),
            Wire::Socket(conn) => conn.shutdown_write(),
        }
    }

    /// One that doesn't take it is one whose end is about to be read: the job is judged then.
    fn transmit(&self, message: &[u8]) {
        if let Err(error) = self.wire.send_nowait(message) {
            self.not_sent(&error);
        }
    }

    #[cold] // The end of a link: kept out of the way of each call.
    fn not_sent(&self, error: &NetError) {
        match (error, &self.wire) {
            // What such a worker answered before it went is in the rings.
            (NetError::PeerGone(ErrorKind::BrokenPipe), Wire::Rings(_)) => {}
            _ => self.close(),
        }
    }
}

/// Appends a job's body as one JSON value without line breaks.
pub(crate) fn write_body(out: &mut Vec<u8>, job: &Job) {
    if !job.is_text() {
        encode::push_body(out, &job.body);
    } else if json_string(out, &job.body).is_err() {
        // What isn't UTF-8 was refused when it was submitted.
        out.extend_from_slice(b"null");
    }
}

/// Reads what the worker sends, until it ends.
pub(crate) async fn read(pool: Pool, worker: WorkerId, conn: ConnCtx) {
    read_handshake(&pool, worker, conn).await;
    let rings = pool.0.core.borrow_mut().rings_of(worker);
    match rings {
        Some(rings) => {
            remuda_net::spawn(await_end(pool.clone(), worker, conn, rings.clone()));
            let mut core = |bytes: &[u8]| pool.0.core.borrow_mut().read_worker(worker, bytes);
            while rings.with_data(&mut core).await != 0 {}
        }
        None => read_attached(pool.clone(), worker, Wire::Socket(conn), &Cell::default()).await,
    }
    conn.close();
    pool.0.core.borrow_mut().worker_read_to_end(worker);
}

/// Reads until it is known what the lines go by, or there will be none.
async fn read_handshake(pool: &Pool, worker: WorkerId, conn: ConnCtx) {
    loop {
        let mut core = |bytes: &[u8]| pool.0.core.borrow_mut().read_worker(worker, bytes);
        if conn.with_data(&mut core).await == 0 {
            return;
        }
        if pool.0.core.borrow_mut().links.of(worker).is_none_or(|link| link.ready) {
            return;
        }
    }
}

/// Waits for the end of a worker over rings. Nothing but that may come on its socket.
async fn await_end(pool: Pool, worker: WorkerId, conn: ConnCtx, rings: Rc<Rings>) {
    let mut stray = |bytes: &[u8]| {
        let core = &mut *pool.0.core.borrow_mut();
        core.worker_garbage(worker, bytes, "it goes by the socket, and not by the rings");
        core.carry_out(&[]);
        ParseResult::Consumed(bytes.len())
    };
    while conn.with_data(&mut stray).await != 0 {}
    rings.hang_up();
}

/// Reads what a peer sends, until the link is down, and takes note of it that something came.
pub(crate) async fn read_attached(pool: Pool, worker: WorkerId, wire: Wire, heard: &Cell<bool>) {
    let mut core = |bytes: &[u8]| {
        heard.set(true);
        pool.0.core.borrow_mut().read_worker(worker, bytes)
    };
    wire.read_to_end(&mut core).await;
}

impl Core {
    fn rings_of(&mut self, worker: WorkerId) -> Option<Rc<Rings>> {
        match &self.links.of(worker)?.transport {
            Transport::Process(process) => process.rings(),
            _ => None,
        }
    }

    /// Takes in the lines that are whole in `bytes`.
    fn read_worker(&mut self, worker: WorkerId, bytes: &[u8]) -> ParseResult {
        self.wake_client_ahead(worker, bytes);
        let parsed = self.read_worker_lines(worker, bytes);
        self.carry_out(&[]);
        parsed
    }

    fn read_worker_lines(&mut self, worker: WorkerId, bytes: &[u8]) -> ParseResult {
        let mut used = 0;
        loop {
            let Some(link) = self.links.of(worker) else {
                return ParseResult::Consumed(bytes.len());
            };
            let Transport::Process(process) = &mut link.transport else {
                return ParseResult::Consumed(bytes.len());
            };
            if process.attached && (link.trouble.is_some() || link.is_itself) {
                // It is cut: nothing that follows counts.
                return ParseResult::Consumed(bytes.len());
            }
            let rest = &bytes[used..];
            if process.discarding {
                let (skipped, ended) = process.scan.discard(rest);
                used += skipped;
                process.discarding = !ended;
                if !ended {
                    break;
                }
                continue;
            }
            if process.long.is_begun() {
                used += self.go_on_with_long_line(worker, rest);
                if used == bytes.len() {
                    break;
                }
                continue;
            }
            match process.scan.next(rest) {
                Ok(Some(end)) => {
                    used += end + 1;
                    let line = &rest[..end];
                    match process.connecting {
                        None => self.worker_line(worker, line),
                        Some(_) => self.handshake_answered(worker, line),
                    }
                    self.carry_out_of_line(line);
                    if used == bytes.len() {
                        break;
                    }
                }
                Ok(None) => {
                    if process.connecting.is_none() && process.long.begin(rest) {
                        process.scan.reset();
                        used = bytes.len();
                    }
                    break;
                }
                Err(_) => {
                    process.discarding = true;
                    self.worker_line_too_long(worker, rest);
                }
            }
        }
        if used == 0 { ParseResult::NeedMore } else { ParseResult::Consumed(used) }
    }

    /// Takes in what comes of a long line, and the line if it is whole; gives how much that was.
    fn go_on_with_long_line(&mut self, worker: WorkerId, bytes: &[u8]) -> usize {
        let Some(link) = self.links.of(worker) else { return bytes.len() };
        let Transport::Process(process) = &mut link.transport else { return bytes.len() };
        match process.long.take(bytes, process.scan.max_line()) {
            Taken::All => bytes.len(),
            Taken::Whole(count, line) => {
                line.read(self, |core, line| {
                    core.worker_line(worker, line);
                    core.carry_out_of_line(line);
                });
                count
            }
            Taken::TooLong(beginning) => {
                process.discarding = true;
                self.worker_line_too_long(worker, &beginning);
                0
            }
        }
    }

    fn worker_line(&mut self, worker: WorkerId, line: &[u8]) {
        if let Err(what) = self.worker_replied(worker, line)
            && !self.nested_too_deep(worker, line)
        {
            self.worker_garbage(worker, line, &what);
        }
    }

    #[cold] // Once a link: kept out of the way of each answer.
    fn handshake_answered(&mut self, worker: WorkerId, line: &[u8]) {
        let now = self.now();
        let max_line = self.config.max_body_bytes.saturating_add(ENVELOPE_BYTES_MAX);
        let instance = self.instance.clone();
        let workers = self.config.dispatch.num_workers;
        let Some(link) = self.links.of(worker) else { return };
        let Transport::Process(process) = &mut link.transport else { return };
        let Some(connecting) = process.connecting.take() else { return };
        match connecting.answer(line) {
            Ok(offer) if link.attached.is_some() && offer.instance == instance => {
                link.is_itself = true;
                self.cut(worker);
            }
            Ok(offer) => {
                link.ready = true;
                link.capacity = offer.capacity;
                if let Some(shaken) = &link.attached {
                    shaken.notify();
                }
                let (number, sink) = (link.number, self.config.logs.clone());
                link.tail.lines().for_each(|line| sink.line(number, line));
                if let Transport::Process(process) = &mut link.transport {
                    process.scan.set_max_line(max_line);
                    if process.attached && offer.takes_offer() {
                        // At once, before any call: so it knows a pool in this one, and says
                        // goodbye to it even if it ends before it has read the first call.
                        process.asking = Asking::Possible;
                        process.ask_offer(&mut self.scratch);
                    }
                    if let Some(socket) = process.rendezvous.take()
                        && offer.takes_shm()
                        && let Err(error) = process.go_on_over_rings(&socket, workers)
                    {
                        tracing::warn!(worker = number, "no rings for a worker: {error}");
                    }
                }
                let offer = Offer {
                    capacity: offer.capacity,
                    ordered: offer.ordered,
                    batch: offer.batch,
                    cancel: offer.takes_cancel(),
                };
                self.links.any_over_rings |= link.is_over_rings();
                self.dispatch.ready(now, worker, offer);
            }
            Err(error) => {
                // A pool that drains refuses, too, and is there again later.
                link.hopeless = link.attached.is_none()
                    || matches!(error, HandshakeError::VersionMismatch { .. });
                link.trouble = Some(match error {
                    HandshakeError::Refused { error, .. } => error,
                    error => error.to_string(),
                });
                self.cut(worker);
            }
        }
    }

    /// Makes an end with a worker that can't be used: kills it, or leaves a peer alone.
    pub(super) fn cut(&mut self, worker: WorkerId) {
        let Some(link) = self.links.of(worker) else { return };
        match &link.transport {
            Transport::Process(process) if process.attached => process.close(),
            _ => self.signal(worker, crate::keeper::Signal::Kill),
        }
    }

    #[cold] // What a worker that works never gets: kept out of the way of its answers.
    pub(super) fn worker_garbage(&mut self, worker: WorkerId, line: &[u8], what: &str) {
        self.dispatch.faulted(self.now(), worker, Fault::Garbage);
        self.broke_the_protocol(worker, || {
            let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES)]);
            format!("the worker sent what is no reply ({what}; see docs/protocol.md): {shown:?}")
        });
    }
}
