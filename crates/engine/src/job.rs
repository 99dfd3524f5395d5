//! A job as the engine sees it: its body, who asked for it, and where its answer stands.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use remuda_dispatch::Payload;
use remuda_protocol::{Id, IdBuf, encode};

use crate::front::ClientKey;
use crate::remote::ReplyTo;

/// A body, and who asked.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) body: Body,
    pub(crate) origin: Origin,
}

/// From here on a body is sent to a worker as it is, and not copied into the line.
const SENT_AS_IT_IS_BYTES: usize = 8 << 10;

// With what the dispatch knows of a job it fills two cache lines.
const _: () = assert!(size_of::<Job>() <= 72);

impl Job {
    /// The body, if it may go into a line as it is and that pays.
    pub(crate) fn as_it_is(&self) -> Option<&Bytes> {
        let Body::Shared(body) = &self.body else { return None };
        let pays = !self.is_text() && body.len() >= SENT_AS_IT_IS_BYTES;
        (pays && encode::is_unbroken(body)).then_some(body)
    }

    /// Whether a client asked for it by this id.
    pub(crate) fn is_called(&self, name: Id<'_>) -> bool {
        let Origin::Client { name: Name::Id(id), .. } = &self.origin else { return false };
        id.as_id() == name
    }

    /// Whether the body is plain text, to be handed over as a JSON string; else it is JSON.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.origin, Origin::Local { text: true, .. })
    }

    /// Through how many pools it came already.
    pub(crate) fn hops(&self) -> u32 {
        match self.origin {
            Origin::Client { hops, .. } => u32::from(hops),
            _ => 0,
        }
    }
}

/// Who asked for a job.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The program that the pool is part of, on the pool's own thread.
    Local {
        /// The program's own.
        number: u64,
        /// The body is plain text, to be handed over as a JSON string; else it is JSON.
        text: bool,
    },
    /// A program on a connection.
    Client {
        client: ClientKey,
        /// Where the client keeps it.
        place: u32,
        /// At most [`HOPS_MAX`](remuda_protocol::HOPS_MAX).
        hops: u8,
        name: Name,
    },
    /// Another thread of the program that the pool is part of.
    Remote {
        /// By which it is cancelled.
        number: u64,
        /// Where the result goes.
        reply: ReplyTo,
    },
}

/// What tells a reply from the client's others.
#[derive(Debug)]
pub(crate) enum Name {
    /// The id that the client gave.
    Id(IdBuf),
    /// It gave none: the turn of the reply.
    Turn(u64),
}

impl Name {
    pub(crate) fn id(&self) -> Option<Id<'_>> {
        match self {
            Self::Id(id) => Some(id.as_id()),
            Self::Turn(_) => None,
        }
    }

    pub(crate) fn turn(&self) -> Option<u64> {
        match self {
            Self::Id(_) => None,
            Self::Turn(turn) => Some(*turn),
        }
    }
}

/// The bytes of a body.
#[derive(Debug)]
pub(crate) enum Body {
    /// A part of what was read.
    Shared(Bytes),
    /// A copy, in memory that is used again.
    Own(Vec<u8>),
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// How many buffers are kept for the next bodies at most, and how many bytes they may take together:
/// as many as a pool with many workers has in flight, where bodies are short.
const SPARE_BUFFERS: usize = 16 << 10;
const SPARE_BYTES: usize = 16 << 20;
/// A buffer that has grown larger is given back to the system.
const SPARE_CAPACITY: usize = 64 << 10;

/// The memory of the buffer that so many bodies will be copied before is fetched.
const SPARE_AHEAD: usize = 4;

/// Buffers of bodies that have ended, for those that come.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    spare: Vec<Vec<u8>>,
    /// What they could hold together.
    bytes: usize,
}

impl Bodies {
    /// A copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        if let Some(soon) = self.spare.len().checked_sub(SPARE_AHEAD) {
            self.spare[soon].spare_capacity_mut().first().map(remuda_net::prefetch);
        }
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// The body is not needed any more.
    pub(crate) fn take_back(&mut self, body: Body) {
        if let Body::Own(mut buffer) = body
            && self.spare.len() < SPARE_BUFFERS
            && buffer.capacity() <= SPARE_CAPACITY
            && self.bytes + buffer.capacity() <= SPARE_BYTES
        {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }
}

/// Keys the fingerprints of bodies: a client can't choose bodies that collide.
static FINGERPRINT: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Payload for Job {
    fn size(&self) -> usize {
        self.body.len()
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = FINGERPRINT.build_hasher();
        hasher.write(&self.body);
        hasher.finish()
    }

    #[inline]
    fn fetch<T>(at: &T) {
        remuda_net::prefetch(at);
    }

    #[inline]
    fn fetch_parts(&self) {
        self.body.first().map(remuda_net::prefetch);
    }
}

/// A part of the bytes that are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part` stands in `whole`. Lines are limited far below 4 GiB.
    pub(crate) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        debug_assert!(start + part.len() <= whole.len(), "the part is of the whole");
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes themselves.
    pub(crate) fn bytes(self, whole: &[u8]) -> &[u8] {
        whole.get(self.range()).unwrap_or_default()
    }
}

/// Where an answer stands in the bytes that are being read. An action that carries one is carried
/// out before those bytes are gone, so nothing is copied that nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The result, or the message of a failure.
    pub(crate) body: Span,
    /// What the body is.
    pub(crate) form: Form,
    /// A failure's traceback, a JSON string.
    pub(crate) traceback: Option<Span>,
}

/// How a result or a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON value.
    Json,
    /// Plain bytes, as a filter gives them.
    Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_up_to_so_many_bytes_and_used_again() {
        let mut bodies = Bodies::default();
        let body = vec![1; SPARE_CAPACITY];
        let most = SPARE_BYTES / SPARE_CAPACITY;
        let bodies_out: Vec<_> = (0..most + 2).map(|_| bodies.copy(&body)).collect();
        bodies_out.into_iter().for_each(|body| bodies.take_back(Body::Own(body)));
        assert_eq!((bodies.spare.len(), bodies.bytes), (most, SPARE_BYTES));
        let used_again = bodies.copy(b"short");
        assert_eq!((&used_again[..], used_again.capacity()), (&b"short"[..], SPARE_CAPACITY));
        bodies.take_back(Body::Own(used_again));
        assert_eq!((bodies.spare.len(), bodies.bytes), (most, SPARE_BYTES));
    }

    #[test]
    fn a_buffer_that_has_grown_large_is_not_kept() {
        let mut bodies = Bodies::default();
        let body = bodies.copy(&vec![1; SPARE_CAPACITY + 1]);
        bodies.take_back(Body::Own(body));
        assert_eq!((bodies.spare.len(), bodies.bytes), (0, 0));
    }
}
