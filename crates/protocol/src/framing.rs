//! Finding lines in a stream of bytes, with a limit and without looking twice.

use memchr::memchr;

/// A line is longer than the limit.
///
/// Answer with code `body_too_large` and close, or go on behind its end by [`LineScan::discard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a line is longer than {max_line} bytes: send less in one message, or raise max_body_bytes"
)]
pub struct TooLong {
    /// The limit, in bytes, the line's end not counted.
    pub max_line: usize,
}

/// Searches for line ends, and remembers how far it has looked.
///
/// It holds no bytes: each call gets all that arrived and was not consumed yet.
///
/// ```
/// use remuda_protocol::LineScan;
///
/// let mut scan = LineScan::new(1024);
/// assert_eq!(scan.next(b"{\"op\":"), Ok(None));
/// let buf = b"{\"op\":1}\n{";
/// assert_eq!(scan.next(buf), Ok(Some(8)));
/// assert_eq!(scan.next(&buf[9..]), Ok(None));
/// ```
#[derive(Debug, Clone)]
pub struct LineScan {
    max_line: usize,
    looked: usize,
}

impl LineScan {
    /// A scan that accepts lines of up to `max_line` bytes, the `\n` not counted.
    #[must_use]
    pub const fn new(max_line: usize) -> LineScan {
        LineScan { max_line, looked: 0 }
    }

    /// The limit, in bytes.
    #[must_use]
    pub const fn max_line(&self) -> usize {
        self.max_line
    }

    /// Changes the limit: a first line is held to a smaller one than those that follow.
    pub const fn set_max_line(&mut self, max_line: usize) {
        self.max_line = max_line;
    }

    /// Looks for the end of the first line in `buf`, which must begin where the last line ended.
    ///
    /// `Some(n)`: the line is `buf[..n]`, its `\n` is at `n`, and the next call gets what begins at
    /// `n + 1`. `None`: the line is not complete; call again with the same bytes and more.
    ///
    /// # Errors
    ///
    /// [`TooLong`] as soon as more than `max_line` bytes are there without a line end.
    #[inline]
    pub fn next(&mut self, buf: &[u8]) -> Result<Option<usize>, TooLong> {
        if buf.is_empty() {
            return Ok(None);
        }
        let from = self.looked.min(buf.len());
        match memchr(b'\n', &buf[from..]) {
            Some(at) if from + at <= self.max_line => {
                self.looked = 0;
                Ok(Some(from + at))
            }
            None if buf.len() <= self.max_line => {
                self.looked = buf.len();
                Ok(None)
            }
            _ => Err(TooLong { max_line: self.max_line }),
        }
    }

    /// After [`TooLong`]: how many bytes of `buf` to throw away, and whether the line ended there.
    ///
    /// Until it answers `true`, consume that many bytes and call it again with what comes next.
    pub fn discard(&mut self, buf: &[u8]) -> (usize, bool) {
        self.looked = 0;
        match memchr(b'\n', buf) {
            Some(at) => (at + 1, true),
            None => (buf.len(), false),
        }
    }

    /// Forgets how far it looked, for a stream that starts anew.
    pub const fn reset(&mut self) {
        self.looked = 0;
    }
}

/// How much room [`Framer::spare`] offers at least.
const MIN_SPARE: usize = 16 * 1024;

/// What an emptied buffer may keep of its memory: room for lines of 1 MiB, one behind the other.
const KEEP_BYTES: usize = 2 * 1024 * 1024;

/// A buffer for a blocking reader: bytes go in, lines come out.
///
/// ```
/// use remuda_protocol::Framer;
/// use std::io::Read;
///
/// let mut input: &[u8] = b"one\ntwo\nrest";
/// let mut framer = Framer::new(1024);
/// let n = input.read(framer.spare())?;
/// framer.filled(n);
/// assert_eq!(framer.next_line()?, Some(&b"one"[..]));
/// assert_eq!(framer.next_line()?, Some(&b"two"[..]));
/// assert_eq!(framer.next_line()?, None);
/// assert_eq!(framer.rest(), b"rest");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Framer {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    scan: LineScan,
    /// The length of the first line, once its end was found.
    found: Option<usize>,
}

impl Framer {
    /// An empty buffer that accepts lines of up to `max_line` bytes, the `\n` not counted.
    #[must_use]
    pub const fn new(max_line: usize) -> Framer {
        Framer { buf: Vec::new(), start: 0, end: 0, scan: LineScan::new(max_line), found: None }
    }

    /// Room to read into, 16 KiB at least. Say by [`Framer::filled`] how much of it was used.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buf.len() > KEEP_BYTES {
                self.buf = Vec::new();
            }
        }
        if self.buf.len() - self.end < MIN_SPARE {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buf.len() - self.end < MIN_SPARE {
            // Doubling, so that a long line is copied a bounded number of times.
            self.buf.resize((self.buf.len() * 2).max(self.end + MIN_SPARE), 0);
        }
        &mut self.buf[self.end..]
    }

    /// Says that the first `n` bytes of [`Framer::spare`] hold data.
    ///
    /// # Panics
    ///
    /// If `n` is more than `spare` offered.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.buf.len() - self.end, "filled with more than the spare room");
        self.end += n;
    }

    /// The next complete line without its `\n`, or `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if it is longer than the limit; so does every later call.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        if !self.has_line()? {
            return Ok(None);
        }
        let start = self.start;
        let end = start + self.found.take().unwrap_or(0);
        self.start = end + 1;
        Ok(Some(&self.buf[start..end]))
    }

    /// Whether a complete line is waiting, so that an answer can be held back to go with the next.
    ///
    /// # Errors
    ///
    /// As [`Framer::next_line`]; [`Framer::rest`] then begins with the line that is too long.
    pub fn has_line(&mut self) -> Result<bool, TooLong> {
        if self.found.is_none() {
            self.found = self.scan.next(&self.buf[self.start..self.end])?;
        }
        Ok(self.found.is_some())
    }

    /// What arrived and was not taken as a line.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Changes the limit for the lines that follow.
    pub const fn set_max_line(&mut self, max_line: usize) {
        self.scan.set_max_line(max_line);
    }
}

#[cfg(test)]
mod tests {
    use super::{Framer, LineScan, TooLong};

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_more_does_not() {
        let mut scan = LineScan::new(4);
        assert_eq!(scan.next(b"1234"), Ok(None));
        assert_eq!(scan.next(b"1234\n"), Ok(Some(4)));
        assert_eq!(scan.next(b"12345"), Err(TooLong { max_line: 4 }));
        scan.reset();
        assert_eq!(scan.next(b"12345\n"), Err(TooLong { max_line: 4 }));
    }

    #[test]
    fn an_empty_line_is_a_line() {
        assert_eq!(LineScan::new(4).next(b"\n"), Ok(Some(0)));
    }

    #[test]
    fn the_first_line_end_counts_wherever_it_is() {
        for length in 0..80 {
            for at in 0..=length {
                let mut buf = vec![b'x'; length];
                buf.push(b'\n');
                buf[at] = b'\n';
                assert_eq!(LineScan::new(80).next(&buf), Ok(Some(at)));
                let refused = LineScan::new(at.saturating_sub(1)).next(&buf);
                assert_eq!(refused.is_err(), at > 0);
            }
        }
    }

    #[test]
    fn discarding_ends_behind_the_long_line() {
        let mut scan = LineScan::new(2);
        assert!(scan.next(b"abc").is_err());
        assert_eq!(scan.discard(b"abc"), (3, false));
        assert_eq!(scan.discard(b"de\nok\n"), (3, true));
        assert_eq!(scan.next(b"ok\n"), Ok(Some(2)));
    }

    #[test]
    fn a_framer_gives_its_memory_back_after_a_large_line() {
        let mut framer = Framer::new(10_000_000);
        let line = vec![b'x'; 5_000_000];
        for chunk in line.chunks(10_000).chain([&b"\n"[..]]) {
            framer.spare()[..chunk.len()].copy_from_slice(chunk);
            framer.filled(chunk.len());
        }
        assert_eq!(framer.next_line().unwrap().map(<[u8]>::len), Some(5_000_000));
        framer.spare();
        assert!(framer.buf.capacity() <= super::KEEP_BYTES);
    }
}
