//! A client on a connection: its requests are read here, and become jobs.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use remuda_dispatch::{JobId, JobOptions};
use remuda_net::{Notifier, ParseResult};
use remuda_protocol::{
    Accepting, BadRequest, Call, Code, ENVELOPE_BYTES_MAX, FirstBytes, HANDSHAKE_BYTES_MAX,
    HOPS_MAX, Id, IdBuf, LineScan, Op, Payload, Request, Verdict, encode, first_bytes, salvage_id,
};

use crate::config::PoolConfig;
use crate::core::{Core, HandingOut};
use crate::front::ClientKey;
use crate::front::limits::unsent_limit;
use crate::front::listener::Gate;
use crate::front::places::Places;
use crate::front::reply::Unnamed;
use crate::job::{Body, Job, Name, Origin};
use crate::long_line::{LongLine, Taken, shared_body};
use crate::wire::Wire;

/// After so many bytes that it was given, a client is looked at: how many it has yet to take.
const UNSENT_STEP: u64 = 1 << 20;
/// A client for whom so many bytes wait behind a reply without an id is not read further.
const HELD_LIMIT: usize = 1 << 20;

/// A client. In this order: what every job looks at lies together, in as few lines of memory as it
/// takes, since of many clients none is in the cache when its next job comes.
#[repr(C)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
    scan: LineScan,
    /// The beginning of a long line.
    long: LongLine,
    greeted: bool,
    discarding: bool,
    /// It is not read because much waits for a reply without an id; told when that is over.
    held_back: bool,
    /// Nothing more is read: it is about to be closed.
    pub(super) closing: bool,
    /// It was told that nothing more is begun: what it sends is not looked at.
    pub(super) parting: bool,
    /// It passes calls of others on: it is a pool.
    pub(super) relays: bool,
    pub(crate) paused: bool,
    /// The jobs that it waits for.
    pub(crate) places: Places,
    /// Bytes of answers that it was given to take, and how many they were at the last look.
    given: u64,
    given_at_look: u64,
    pub(crate) unnamed: Unnamed,
    released: Notifier,
    gate: Gate,
    /// Bytes of a line that has no end yet, and since when.
    pub(super) unfinished: usize,
    pub(super) unfinished_since: Option<Duration>,
    /// The most that may wait for it.
    unsent_limit: usize,
    /// Where something waits for it: how many it had taken when that was last looked at, and since
    /// when it took none.
    stuck: Option<(u64, Duration)>,
}

impl Client {
    pub(crate) fn new(wire: Wire, gate: Gate, config: &PoolConfig) -> Self {
        Self {
            wire,
            scan: LineScan::new(HANDSHAKE_BYTES_MAX),
            long: LongLine::default(),
            greeted: false,
            discarding: false,
            held_back: false,
            closing: false,
            parting: false,
            relays: false,
            paused: false,
            places: Places::default(),
            given: 0,
            given_at_look: 0,
            unnamed: Unnamed::default(),
            released: Notifier::new(),
            gate,
            unfinished: 0,
            unfinished_since: None,
            unsent_limit: unsent_limit(config),
            stuck: None,
        }
    }

    /// Sends what the connection takes; one that doesn't take it is cut.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.wire.send_or_cut(bytes);
        self.note_given(bytes.len());
    }

    /// Sends what `write` appends, but it may be gathered with more; `true` says that
    /// [`send_gathered`](Self::send_gathered) is due.
    #[inline]
    pub(crate) fn gather(
        &mut self,
        scratch: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut given = 0;
        let counted = |out: &mut Vec<u8>| {
            let before = out.len();
            write(out);
            given = out.len() - before;
        };
        let is_gathered = self.wire.gather(scratch, counted).unwrap_or_else(|_| {
            self.wire.close();
            false
        });
        self.note_given(given);
        is_gathered
    }

    /// Sends a line in three parts, the middle one without a copy.
    pub(crate) fn send_parts(&mut self, head: &[u8], body: Bytes, tail: &[u8]) {
        let len = head.len() + body.len() + tail.len();
        if self.wire.send_parts(head, body, tail).is_err() {
            self.wire.close();
        }
        self.note_given(len);
    }

    fn note_given(&mut self, bytes: usize) {
        self.given += bytes as u64;
        if self.given - self.given_at_look >= UNSENT_STEP {
            self.given_at_look = self.given;
            if self.wire.unsent() > self.unsent_limit {
                tracing::info!("a client that reads too slowly was cut");
                self.wire.close();
            }
        }
    }

    /// Whether what it sends next is read at once.
    #[inline]
    pub(super) fn is_read_on(&self) -> bool {
        !self.closing && !self.held_back
    }

    /// What tells when it is read again, if it is held back.
    pub(super) fn held_back(&self) -> Option<Notifier> {
        self.held_back.then(|| self.released.clone())
    }

    /// Sees to it that no more is read while much waits for an earlier reply without an id.
    pub(crate) fn hold_back(&mut self) {
        let held = self.unnamed.held();
        if held > self.unsent_limit {
            tracing::info!("a client was cut for whom too much waits behind a reply without an id");
            self.wire.close();
        }
        let was_held_back = std::mem::replace(&mut self.held_back, held > HELD_LIMIT);
        if was_held_back && !self.held_back {
            self.unfinished_since = None;
            self.released.notify();
        }
    }

    /// Sends what was gathered.
    pub(crate) fn send_gathered(&self) {
        self.wire.send_gathered();
    }

    /// True if it took nothing of what is there for it for too long.
    pub(super) fn takes_nothing(&mut self, now: Duration, limit: Duration) -> bool {
        let unsent = self.wire.unsent() as u64;
        if unsent == 0 {
            self.stuck = None;
            return false;
        }
        let taken = self.given.saturating_sub(unsent);
        match self.stuck {
            Some((before, since)) if before == taken => now - since > limit,
            // What is looked at for the first time may be about to be sent.
            _ => {
                self.stuck = Some((taken, now));
                false
            }
        }
    }

    /// Whether it may reset and stop the pool.
    pub(crate) fn is_admin(&self) -> bool {
        self.gate.admin
    }

    /// The pool keeps it waiting, whatever it sends.
    pub(super) fn is_not_read(&self) -> bool {
        self.paused || self.held_back
    }
}

impl Core {
    /// Takes in the requests that are whole in `bytes`.
    pub(super) fn read_client(&mut self, key: ClientKey, bytes: &[u8]) -> ParseResult {
        self.wake_worker_ahead(bytes);
        let (mut used, mut is_another) = (0, false);
        loop {
            let Some(client) = self.clients.of(key) else {
                return ParseResult::Consumed(bytes.len());
            };
            if client.closing || client.parting {
                return ParseResult::Consumed(bytes.len());
            }
            if client.held_back && used > 0 {
                break;
            }
            let rest = &bytes[used..];
            if client.discarding {
                let (skipped, ended) = client.scan.discard(rest);
                used += skipped;
                client.discarding = !ended;
                is_another = true;
                if !ended {
                    break;
                }
                continue;
            }
            if client.long.is_begun() {
                let taken = self.client_long_line(key, rest);
                used += taken;
                if used == bytes.len() {
                    break;
                }
                is_another = true;
                continue;
            }
            match client.scan.next(rest) {
                Ok(Some(end)) => {
                    used += end + 1;
                    is_another = true;
                    match client.greeted {
                        true => self.client_line(key, &rest[..end]),
                        false => self.client_first_line(key, &rest[..end]),
                    }
                    if used == bytes.len() {
                        break;
                    }
                }
                Ok(None) => {
                    if !client.greeted && first_bytes(rest) == FirstBytes::Foreign {
                        self.client_is_foreign(key);
                        return ParseResult::Consumed(bytes.len());
                    }
                    if client.greeted && client.long.begin(rest) {
                        client.scan.reset();
                        used = bytes.len();
                    }
                    break;
                }
                Err(_) => self.client_line_too_long(key, rest),
            }
        }
        let begun = self.clients.of(key).map_or(0, |client| client.long.len());
        let unfinished = bytes.len() - used + begun;
        if unfinished > 0 || self.unfinished > 0 {
            self.note_unfinished(key, unfinished, is_another || unfinished == 0);
        }
        if used == 0 || !remuda_net::others_can_run() {
            self.carry_out(&[]);
        } else if self.handing_out == HandingOut::Done {
            self.handing_out = HandingOut::Due;
        }
        if used == 0 { ParseResult::NeedMore } else { ParseResult::Consumed(used) }
    }

    /// Takes in what comes of a long line, and the line if it is whole; gives how much that was.
    fn client_long_line(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(client) = self.clients.of(key) else { return bytes.len() };
        match client.long.take(bytes, client.scan.max_line()) {
            Taken::All => bytes.len(),
            Taken::Whole(count, line) => {
                line.read(self, |core, line| core.client_line(key, line));
                count
            }
            Taken::TooLong(beginning) => {
                self.client_line_too_long(key, &beginning);
                0
            }
        }
    }

    #[cold] // Once a connection: kept out of the way of each line.
    fn client_first_line(&mut self, key: ClientKey, line: &[u8]) {
        if first_bytes(line) == FirstBytes::Foreign {
            self.client_is_foreign(key);
        } else {
            self.greet(key, line);
        }
    }

    fn client_line(&mut self, key: ClientKey, line: &[u8]) {
        match Request::parse(line) {
            Ok(request) => self.client_request(key, &request),
            // A person who presses Enter once too often has asked for nothing.
            Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Err(BadRequest { code, id, message }) => {
                self.reply_error(key, id.as_ref().map(IdBuf::as_id), code, &message);
            }
        }
    }

    fn greet(&mut self, key: ClientKey, line: &[u8]) {
        let offer = self.offer();
        let max_line = self.config.max_body_bytes.saturating_add(ENVELOPE_BYTES_MAX);
        let Some(client) = self.clients.of(key) else { return };
        self.scratch.clear();
        let accepting = Accepting::new(&offer).token(client.gate.token.as_deref());
        match accepting.first_line(line, &mut self.scratch) {
            Verdict::Accepted => {
                client.greeted = true;
                client.scan.set_max_line(max_line);
            }
            Verdict::Refused(code) => {
                client.closing = true;
                tracing::debug!(%code, "a connection was refused");
            }
        }
        client.send(&self.scratch);
    }

    #[cold] // Ends a connection.
    fn client_is_foreign(&mut self, key: ClientKey) {
        let message = "this is a pool that speaks JSON lines, not HTTP or TLS: the first line must \
                       be {\"op\":\"handshake\",\"version\":\"1\"}";
        self.reply_error(key, None, Code::HandshakeRequired, message);
        if let Some(client) = self.clients.of(key) {
            client.closing = true;
        }
    }

    #[cold] // Kept out of the way of each line.
    fn client_line_too_long(&mut self, key: ClientKey, beginning: &[u8]) {
        let limit = self.config.max_body_bytes;
        let Some(client) = self.clients.of(key) else { return };
        if !client.greeted {
            client.closing = true;
            self.reply_error(key, None, Code::HandshakeRequired, "the first line is too long");
            return;
        }
        client.discarding = true;
        let id = salvage_id(beginning);
        let message = format!("the request is larger than max_body_bytes ({limit}) allows");
        self.reply_error(key, id.as_ref().map(IdBuf::as_id), Code::BodyTooLarge, &message);
    }

    fn client_request(&mut self, key: ClientKey, request: &Request<'_>) {
        match &request.op {
            Op::Call(call) => self.client_call(key, request.id, call),
            about_pool => self.client_asks(key, request.id, about_pool),
        }
    }

    /// A request that is no job.
    #[cold] // Kept out of the way of jobs.
    fn client_asks(&mut self, key: ClientKey, id: Option<Id<'_>>, op: &Op<'_>) {
        match op {
            Op::Call(call) => self.client_call(key, id, call),
            Op::Cancel => {
                let now = self.now();
                let (Some(client), Some(id)) = (self.clients.of(key), id) else { return };
                let of = |job: &JobId| self.dispatch.payload(*job);
                let job =
                    client.places.iter().find(|job| of(job).is_some_and(|job| job.is_called(id)));
                if let Some(job) = job {
                    self.dispatch.cancel(now, job);
                }
            }
            Op::Status => self.client_status(key, id),
            Op::Reset => self.client_reset(key, id),
            Op::Shutdown => self.client_shutdown(key, id),
            Op::Handshake { .. } => {
                // Only a pool asks again: calls that come through it are passed on.
                if let Some(client) = self.clients.of(key) {
                    client.relays = true;
                }
                let offer = self.offer();
                self.reply(key, None, |out| encode::offer(out, id, &offer));
            }
        }
    }

    fn client_call(&mut self, key: ClientKey, id: Option<Id<'_>>, call: &Call<'_>) {
        let body = match self.admissible(call) {
            Ok(body) => body,
            Err((code, message)) => return self.reply_error(key, id, code, &message),
        };
        let now = self.now();
        let body = match shared_body(self.line.as_ref(), body) {
            Some(shared) => Body::Shared(shared),
            None => Body::Own(self.bodies.copy(body)),
        };
        let Some(client) = self.clients.of(key) else { return };
        client.relays |= call.hops > 0;
        let place = client.places.find();
        let name = match id {
            Some(id) => Name::Id(id.to_owned()),
            None => Name::Turn(client.unnamed.begin()),
        };
        // It is admissible, so that they are few.
        let hops = call.hops as u8;
        let job = Job { body, origin: Origin::Client { client: key, place, hops, name } };
        let deadline = call.timeout_ms.map(|ms| now.saturating_add(Duration::from_millis(ms)));
        let relayed = call.hops > 0;
        let options = JobOptions { deadline, relayed, ..JobOptions::default() };
        self.bodies_bytes += job.body.len();
        match self.dispatch.submit(now, job, options) {
            Ok(job) => client.places.set(place, job),
            Err(refused) => self.refuse(refused.payload, refused.reason),
        }
    }

    /// The body of a call that may be submitted, or why it may not.
    fn admissible<'a>(&self, call: &Call<'a>) -> Result<&'a [u8], (Code, Cow<'static, str>)> {
        let body = match call.payload {
            Payload::One(body) => body.as_bytes(),
            Payload::Many(_) => {
                let message = "this pool declared no `batch`: send one `body` a call";
                return Err((Code::BadRequest, message.into()));
            }
        };
        if call.hops > HOPS_MAX {
            let message = "the call came through too many pools: they are attached in a circle";
            return Err((Code::BadRequest, message.into()));
        }
        let limit = self.config.max_body_bytes;
        if body.len() > limit {
            let message = format!("the body is larger than max_body_bytes ({limit})");
            return Err((Code::BodyTooLarge, message.into()));
        }
        // One alone is held to `max_body_bytes`.
        if self.bodies_bytes > 0 && self.bodies_bytes + body.len() > self.config.max_bodies_bytes {
            return Err((Code::QueueFull, "the bodies in the queue are at their limit".into()));
        }
        Ok(body)
    }

    /// The client waits for nothing any more: what it asked for and nobody else wants is dropped.
    pub(crate) fn client_gone(&mut self, key: ClientKey) {
        let now = self.now();
        let Some(client) = self.clients.remove(key) else { return };
        self.unfinished -= client.unfinished;
        self.paused -= usize::from(client.paused);
        if self.favoured == Some(key) {
            self.favoured = None;
        }
        for job in client.places.iter() {
            self.dispatch.cancel(now, job);
        }
        self.resume_paused();
        self.carry_out(&[]);
    }
}
