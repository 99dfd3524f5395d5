//! Reads jobs from a file or from stdin on a thread of its own, in pieces of whole lines.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

/// How much is asked of the source at once, in bytes.
pub(crate) const READ_SIZE: usize = 128 << 10;

/// What the reader hands over.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Lines, each with its delimiter; only the very last of the input may lack one.
    Lines(Bytes),
    /// A line of this many bytes, over the limit: its bytes were skipped.
    TooLong(u64),
    /// The source has ended.
    End,
    /// The source failed.
    Failed(io::Error),
}

/// Reads `source` to its end and hands its lines to `give`, until that returns false.
///
/// A read is handed on at once, so that a person who types sees each line answered. A line longer
/// than `max_line` bytes is not kept in memory.
pub(crate) fn read_pieces(
    mut source: impl Read,
    delimiter: u8,
    max_line: usize,
    mut give: impl FnMut(Piece) -> bool,
) {
    let mut pending = BytesMut::new();
    // How many bytes of a line over the limit were dropped so far.
    let mut skipped: u64 = 0;
    loop {
        let start = pending.len();
        pending.resize(start + READ_SIZE, 0);
        let read = match read_some(&mut source, &mut pending[start..]) {
            Ok(read) => read,
            Err(error) => {
                give(Piece::Failed(error));
                return;
            }
        };
        pending.truncate(start + read);
        if read == 0 {
            if last_piece(pending, skipped).is_none_or(&mut give) {
                give(Piece::End);
            }
            return;
        }
        if skipped > 0 {
            let Some(end) = memchr::memchr(delimiter, &pending) else {
                skipped += pending.len() as u64;
                pending.clear();
                continue;
            };
            let _ = pending.split_to(end + 1);
            if !give(Piece::TooLong(skipped + end as u64)) {
                return;
            }
            skipped = 0;
        }
        match memchr::memrchr(delimiter, &pending[start.min(pending.len())..]) {
            Some(end) => {
                let whole = pending.split_to(start.min(pending.len()) + end + 1).freeze();
                if !give(Piece::Lines(whole)) {
                    return;
                }
            }
            None if pending.len() > max_line => {
                skipped = pending.len() as u64;
                pending.clear();
            }
            None => {}
        }
    }
}

/// Reads what there is; nothing is there at the end alone.
fn read_some(source: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What stands behind the last delimiter: the rest of a line over the limit, or a line that has
/// none.
fn last_piece(pending: BytesMut, skipped: u64) -> Option<Piece> {
    if skipped > 0 {
        Some(Piece::TooLong(skipped + pending.len() as u64))
    } else if pending.is_empty() {
        None
    } else {
        Some(Piece::Lines(pending.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives its bytes in pieces of a set size.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn lines(input: &[u8], step: usize, max_line: usize) -> Vec<Result<Vec<u8>, u64>> {
        let mut out = Vec::new();
        let mut ended = false;
        read_pieces(Slowly(input, step), b'\n', max_line, |piece| {
            match piece {
                Piece::Lines(bytes) => {
                    for line in bytes.split_inclusive(|b| *b == b'\n') {
                        out.push(Ok(line.to_vec()));
                    }
                }
                Piece::TooLong(n) => out.push(Err(n)),
                Piece::End => ended = true,
                Piece::Failed(error) => panic!("{error}"),
            }
            true
        });
        assert!(ended);
        out
    }

    #[test]
    fn any_cut_gives_the_same_lines() {
        let input = b"a\nbb\n\nccc\nlast";
        for step in 1..=input.len() {
            let got: Vec<Vec<u8>> =
                lines(input, step, 100).into_iter().map(|line| line.unwrap()).collect();
            assert_eq!(got, [&b"a\n"[..], b"bb\n", b"\n", b"ccc\n", b"last"]);
        }
    }

    #[test]
    fn a_line_over_the_limit_is_counted_and_skipped() {
        for step in 1..12 {
            let got = lines(b"a\n0123456789\nb\n", step, 2);
            assert_eq!(got[0], Ok(b"a\n".to_vec()), "step {step}");
            assert_eq!(got.last().unwrap(), &Ok(b"b\n".to_vec()), "step {step}");
            // One that is whole in two reads is handed over: whoever takes it looks at its length.
            let whole = Ok(b"0123456789\n".to_vec());
            assert!(got[1] == Err(10) || got[1] == whole, "step {step}: {:?}", got[1]);
            assert!(step > 3 || got[1] == Err(10), "step {step}");
        }
        assert_eq!(lines(b"0123456789", 3, 2), [Err(10)]);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert!(lines(b"", 1, 10).is_empty());
    }
}
