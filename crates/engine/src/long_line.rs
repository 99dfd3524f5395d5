//! Long lines, put together once as they arrive, in memory that is then kept for the body in them.
//!
//! A large body would otherwise be copied from the buffer of its connection to that of its job, to
//! the line for the worker, and to what waits for room there. Here the line's memory goes to the
//! job, and is used again for the next line when nobody needs it.

use std::cell::RefCell;

use bytes::Bytes;
use memchr::memchr;

use crate::core::Core;

/// So much of a line that has no end yet is taken out of the buffer of its connection. What is
/// shorter costs less to copy again with what follows.
const BEGIN_BYTES: usize = 1 << 10;
/// A body of at least so many bytes keeps the memory of its line. A shorter one is copied, which
/// takes no allocation.
const SHARED_BYTES: usize = 8 << 10;
/// What is kept of the memory of earlier lines: 8 MiB.
const SPARE_BYTES: usize = 8 << 20;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { buffers: Vec::new(), bytes: 0 }) };
}

/// Memory for the next lines.
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spare {
    fn take() -> Vec<u8> {
        let taken = SPARE.try_with(|spare| {
            let spare = &mut *spare.borrow_mut();
            let buffer = spare.buffers.pop()?;
            spare.bytes -= buffer.capacity();
            Some(buffer)
        });
        taken.ok().flatten().unwrap_or_default()
    }

    fn give(mut buffer: Vec<u8>) {
        // There is none while the thread ends.
        let _ = SPARE.try_with(|spare| {
            let spare = &mut *spare.borrow_mut();
            if spare.bytes + buffer.capacity() <= SPARE_BYTES {
                buffer.clear();
                spare.bytes += buffer.capacity();
                spare.buffers.push(buffer);
            }
        });
    }
}

/// A line that is shared, until the last who needs it is done.
struct Shared(Vec<u8>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        Spare::give(std::mem::take(&mut self.0));
    }
}

/// The beginning of a line, or nothing.
#[derive(Default)]
pub(crate) struct LongLine {
    bytes: Vec<u8>,
}

/// What came of a piece.
pub(crate) enum Taken {
    /// All of it, and the line has no end yet.
    All,
    /// So many bytes, and the line is whole.
    Whole(usize, WholeLine),
    /// Nothing: the line is longer than it may be. This is how it begins.
    TooLong(Vec<u8>),
}

impl LongLine {
    /// Begins with `bytes`, which have no line end, if they are enough for it to pay.
    pub(crate) fn begin(&mut self, bytes: &[u8]) -> bool {
        let begins = bytes.len() >= BEGIN_BYTES;
        if begins {
            self.bytes = Spare::take();
            self.append(bytes);
        }
        begins
    }

    /// Whether a line was begun.
    pub(crate) fn is_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// How much is there of it.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Goes on with what came next.
    pub(crate) fn take(&mut self, bytes: &[u8], max_line: usize) -> Taken {
        let end = memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        if self.bytes.len() + piece.len() > max_line {
            return Taken::TooLong(std::mem::take(&mut self.bytes));
        }
        self.append(piece);
        match end {
            Some(end) => Taken::Whole(end + 1, WholeLine(std::mem::take(&mut self.bytes))),
            None => Taken::All,
        }
    }

    fn append(&mut self, piece: &[u8]) {
        let (len, room) = (self.bytes.len(), self.bytes.capacity());
        if room - len < piece.len() {
            // By half, so that a body may keep what was reserved for it.
            self.bytes.reserve_exact(piece.len().max(room / 2));
        }
        self.bytes.extend_from_slice(piece);
    }
}

/// A line, from its first byte to its last.
pub(crate) struct WholeLine(Vec<u8>);

impl WholeLine {
    /// Has `read` read it. Where it pays, `core` knows it as shared memory meanwhile, of which parts
    /// may be kept.
    ///
    /// What is shared is at most twice as large as the line: what a client may have in the queue is
    /// counted by the bodies alone.
    pub(crate) fn read(self, core: &mut Core, read: impl FnOnce(&mut Core, &[u8])) {
        let Self(bytes) = self;
        let is_tight = bytes.len() >= bytes.capacity() / 2;
        if bytes.len() >= SHARED_BYTES && is_tight {
            let line = Bytes::from_owner(Shared(bytes));
            core.line = Some(line.clone());
            read(core, &line);
            core.line = None;
            return;
        }
        read(core, &bytes);
        // Memory that is far too large for the lines that come now isn't kept.
        if is_tight || bytes.capacity() <= 4 * SHARED_BYTES {
            Spare::give(bytes);
        }
    }
}

/// The part of `line` that `body` is, if the line is shared, and if the body is most of it.
pub(crate) fn shared_body(line: Option<&Bytes>, body: &[u8]) -> Option<Bytes> {
    let line = line?;
    let is_most = body.len() >= SHARED_BYTES && body.len() >= line.len() / 8 * 7;
    is_most.then(|| line.slice_ref(body))
}

#[cfg(test)]
mod tests {
    use super::{LongLine, SPARE, SPARE_BYTES, Shared, Taken, shared_body};
    use bytes::Bytes;

    fn spare_bytes() -> usize {
        SPARE.with_borrow(|spare| {
            let bytes = spare.buffers.iter().map(Vec::capacity).sum();
            assert_eq!(spare.bytes, bytes);
            bytes
        })
    }

    #[test]
    fn a_line_is_whole_at_its_end_and_what_follows_is_left() {
        let mut long = LongLine::default();
        assert!(!long.begin(b"too short to pay"));
        assert!(!long.is_begun());
        assert!(long.begin(&[b'a'; 2_000]));
        assert!(matches!(long.take(&[b'b'; 3_000], 5_001), Taken::All));
        assert_eq!(long.len(), 5_000);
        let Taken::Whole(count, line) = long.take(b"c\nnext", 5_001) else { panic!("no line") };
        assert_eq!(count, 2);
        assert_eq!(line.0, [&[b'a'; 2_000][..], &[b'b'; 3_000], b"c"].concat());
        assert!(!long.is_begun());
    }

    #[test]
    fn a_line_of_one_byte_more_than_the_limit_is_too_long_with_or_without_its_end() {
        for piece in [&b"bb"[..], b"bb\n"] {
            let mut long = LongLine::default();
            assert!(long.begin(&[b'a'; 2_000]));
            let Taken::TooLong(beginning) = long.take(piece, 2_001) else { panic!("taken") };
            assert_eq!(beginning, [b'a'; 2_000]);
            assert!(!long.is_begun());
        }
    }

    #[test]
    fn memory_is_used_again_and_not_kept_beyond_its_limit() {
        let lines: Vec<Bytes> =
            (0..20).map(|_| Bytes::from_owner(Shared(Vec::with_capacity(1 << 20)))).collect();
        assert_eq!(spare_bytes(), 0);
        drop(lines);
        assert_eq!(spare_bytes(), SPARE_BYTES);
        let mut long = LongLine::default();
        assert!(long.begin(&[b'a'; 2_000]));
        assert_eq!(spare_bytes(), SPARE_BYTES - (1 << 20));
    }

    #[test]
    fn a_body_that_is_not_most_of_its_line_keeps_nothing_of_it() {
        let line = Bytes::from(vec![b'x'; 20_000]);
        assert!(shared_body(None, &line[..19_000]).is_none());
        assert!(shared_body(Some(&line), &line[..10_000]).is_none());
        assert_eq!(shared_body(Some(&line), &line[100..19_000]).unwrap(), line[100..19_000]);
    }
}
