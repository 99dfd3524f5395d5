//! The job log: the nine columns of GNU parallel, then `Code` and a hash of the input.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The first line of a job log.
pub(crate) const HEADER: &str =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tCode\tHash\n";

/// How many bytes of an input stand in `Command`; the hash covers all of it.
pub(crate) const COMMAND_LIMIT: usize = 1024;

/// The first 64 bits of an input's SHA-256.
pub(crate) fn hash(input: &[u8]) -> u64 {
    let digest = Sha256::digest(input);
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// A row to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    /// Number of the job; the first is 1.
    pub(crate) seq: u64,
    /// When it started, in milliseconds since 1970.
    pub(crate) start_ms: u64,
    /// How long it ran, in milliseconds.
    pub(crate) run_ms: u64,
    /// The job.
    pub(crate) input: &'a [u8],
    /// How many bytes were written to the output for it.
    pub(crate) receive: u64,
    /// The signal that ended its worker, or 0.
    pub(crate) signal: i32,
    /// `ok`, or the code of its failure.
    pub(crate) code: &'a str,
}

/// The code of a job that succeeded.
pub(crate) const OK: &str = "ok";

impl Row<'_> {
    /// Appends the row to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let exit = i32::from(self.code != OK);
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "{}\t:\t{}.{:03}\t{}.{:03}\t{}\t{}\t{exit}\t{}\t",
            self.seq,
            self.start_ms / 1000,
            self.start_ms % 1000,
            self.run_ms / 1000,
            self.run_ms % 1000,
            self.input.len(),
            self.receive,
            self.signal,
        );
        escape(self.input, out);
        let _ = writeln!(out, "\t{}\t{:016x}", self.code, hash(self.input));
    }
}

/// Appends `input` so that it holds no tab, line break or broken UTF-8, cut at [`COMMAND_LIMIT`].
fn escape(input: &[u8], out: &mut Vec<u8>) {
    let shown = &input[..input.len().min(COMMAND_LIMIT)];
    for byte in String::from_utf8_lossy(shown).bytes() {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0 => out.extend_from_slice(b"\\0"),
            byte => out.push(byte),
        }
    }
    if shown.len() < input.len() {
        out.extend_from_slice(b"...");
    }
}

/// What an earlier run left of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    /// Hash of the input it had.
    pub(crate) hash: u64,
    /// Whether it succeeded.
    pub(crate) succeeded: bool,
    /// Where its result begins in the output of that run, and how long it is.
    pub(crate) output: (u64, u64),
    /// Where its row begins in the log, and how long it is.
    pub(crate) row: (u64, u64),
}

/// What an earlier run left, by job number.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The jobs that ended; of a job that stands there twice, the last time.
    pub(crate) jobs: BTreeMap<u64, Past>,
    /// Length of the part of the log that is whole.
    pub(crate) log_bytes: u64,
    /// Length of the output that the rows account for.
    pub(crate) output_bytes: u64,
}

impl History {
    /// Reads a job log up to its first torn row. `output_len`, where there is an output file, is
    /// its length: rows whose result is not in it don't count.
    ///
    /// # Errors
    /// When the file can't be read, or its first line is not that of a job log of this program.
    pub(crate) fn read(path: &Path, output_len: Option<u64>) -> io::Result<Self> {
        let mut history = Self::default();
        let mut reader = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(history),
            Err(error) => return Err(error),
        };
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") && HEADER.as_bytes().starts_with(&line) {
            return Ok(history);
        }
        if line != HEADER.as_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its first line is not the header of a job log written by `remuda map --joblog`",
            ));
        }
        history.log_bytes = line.len() as u64;
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            let Some((seq, receive, past)) = parse(&line) else { return Ok(history) };
            let end = history.output_bytes + receive;
            if output_len.is_some_and(|len| end > len) {
                return Ok(history);
            }
            let output = (history.output_bytes, receive);
            let row = (history.log_bytes, line.len() as u64);
            history.jobs.insert(seq, Past { output, row, ..past });
            history.output_bytes = end;
            history.log_bytes += line.len() as u64;
        }
    }
}

/// Reads a whole row, or nothing.
fn parse(line: &[u8]) -> Option<(u64, u64, Past)> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let fields: Vec<&str> = text.split('\t').collect();
    let [seq, _, _, _, _, receive, _, _, _, code, hash] = fields[..] else { return None };
    if hash.len() != 16 {
        return None;
    }
    let hash = u64::from_str_radix(hash, 16).ok()?;
    let past = Past { hash, succeeded: code == OK, output: (0, 0), row: (0, 0) };
    Some((seq.parse().ok()?, receive.parse().ok()?, past))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(seq: u64, input: &'a [u8], code: &'a str) -> Row<'a> {
        Row { seq, start_ms: 1_700_000_000_123, run_ms: 1_002, input, receive: 3, signal: 0, code }
    }

    #[test]
    fn a_row_is_read_back_whatever_the_input_holds() {
        let mut log = HEADER.as_bytes().to_vec();
        let inputs: [&[u8]; 4] = [b"plain", b"tab\tand\nbreak\\", b"\xff\x00", &[b'x'; 5000]];
        for (n, input) in inputs.iter().enumerate() {
            row(n as u64 + 1, input, if n == 1 { "timeout" } else { OK }).write(&mut log);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &log).unwrap();
        let history = History::read(file.path(), None).unwrap();
        assert_eq!(history.log_bytes, log.len() as u64);
        assert_eq!(history.output_bytes, 12);
        for (n, input) in inputs.iter().enumerate() {
            let past = history.jobs[&(n as u64 + 1)];
            assert_eq!((past.hash, past.succeeded), (hash(input), n != 1));
        }
    }

    #[test]
    fn a_torn_tail_and_rows_without_their_result_do_not_count() {
        let mut log = HEADER.as_bytes().to_vec();
        row(1, b"a", OK).write(&mut log);
        let whole = log.len();
        row(2, b"b", OK).write(&mut log);
        let file = tempfile::NamedTempFile::new().unwrap();
        for cut in whole..log.len() {
            std::fs::write(file.path(), &log[..cut]).unwrap();
            let history = History::read(file.path(), None).unwrap();
            assert_eq!((history.jobs.len(), history.log_bytes), (1, whole as u64));
        }
        std::fs::write(file.path(), &log).unwrap();
        assert_eq!(History::read(file.path(), Some(5)).unwrap().jobs.len(), 1);
        assert_eq!(History::read(file.path(), Some(6)).unwrap().jobs.len(), 2);
        std::fs::write(file.path(), "something else\n").unwrap();
        assert!(History::read(file.path(), None).is_err());
    }
}
