//! Turns jobs that have ended into what is written: results, rows of the job log, errors.

use bytes::Bytes;
use remuda_engine::{Code, Failed, Form};
use remuda_protocol::json_string;

use super::OnError;
use super::failures::Failures;
use super::joblog::{OK, Row};
use super::output::Portion;
use super::progress::Progress;

/// A job that has ended, on its way out.
pub(crate) struct Ended<'a> {
    /// Its number; the first is 1.
    pub(crate) number: u64,
    pub(crate) input: &'a [u8],
    pub(crate) result: Result<(&'a [u8], Form), &'a Failed>,
    /// When it started, in milliseconds since 1970.
    pub(crate) start_ms: u64,
    pub(crate) run_ms: u64,
    /// Nothing comes after it, and the input's last line had no end.
    pub(crate) unterminated: bool,
}

/// The same, kept until its turn comes.
pub(crate) enum Held {
    Ended {
        input: Bytes,
        result: Result<(Bytes, Form), Box<Failed>>,
        start_ms: u64,
        run_ms: u64,
    },
    /// An earlier run ended it.
    Past,
}

impl Held {
    /// How much memory it holds, roughly.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Ended { input, result: Ok((result, _)), .. } => input.len() + result.len(),
            Self::Ended { input, .. } => input.len(),
            Self::Past => 0,
        }
    }
}

/// Writes jobs that have ended into a portion, and counts them.
pub(crate) struct Emitter {
    pub(crate) json: bool,
    pub(crate) tag: bool,
    pub(crate) on_error: OnError,
    pub(crate) joblog: bool,
    pub(crate) errors: bool,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Failures,
}

/// The message for a result that would be several lines of output.
const HOLDS_LINE_BREAK: &str = "the result holds a line break: use --json, or return one line";

impl Emitter {
    /// Writes one.
    pub(crate) fn emit(&mut self, ended: &Ended<'_>, portion: &mut Portion, progress: &Progress) {
        let before = portion.results.len();
        let broken;
        let failed = match ended.result {
            Ok((result, form)) => match self.result(ended, result, form, &mut portion.results) {
                Ok(()) => None,
                Err(message) => {
                    portion.results.truncate(before);
                    broken = failure(Code::HandlerError, message);
                    Some(&broken)
                }
            },
            Err(failed) => Some(failed),
        };
        let code = match failed {
            None => {
                self.succeeded += 1;
                OK
            }
            Some(failed) => {
                self.fail(ended, failed, portion, progress);
                failed.code.as_str()
            }
        };
        if self.joblog {
            let row = Row {
                seq: ended.number,
                start_ms: ended.start_ms,
                run_ms: ended.run_ms,
                input: ended.input,
                receive: (portion.results.len() - before) as u64,
                signal: failed.and_then(|failed| failed.signal).unwrap_or(0),
                code,
            };
            row.write(&mut portion.rows);
        }
    }

    /// Writes a result as a line; the error says why it can't be one.
    fn result(
        &self,
        ended: &Ended<'_>,
        result: &[u8],
        form: Form,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        self.begin(ended, out);
        let start = out.len();
        match (form, result.first()) {
            (Form::Json, Some(b'"')) if !self.json => {
                let json = std::str::from_utf8(result).map_err(|_| "the result is not UTF-8")?;
                remuda_protocol::unescape_into(out, json)
                    .map_err(|_| "the result is a string with half of a surrogate pair")?;
                if memchr::memchr(b'\n', &out[start..]).is_some() {
                    return Err(HOLDS_LINE_BREAK);
                }
            }
            (Form::Json, _) => remuda_protocol::encode::push_body(out, result),
            (Form::Text, _) => out.extend_from_slice(result),
        }
        self.end(ended, out);
        Ok(())
    }

    fn begin(&self, ended: &Ended<'_>, out: &mut Vec<u8>) {
        if self.tag {
            out.extend_from_slice(ended.input);
            out.push(b'\t');
        }
    }

    fn end(&self, ended: &Ended<'_>, out: &mut Vec<u8>) {
        if !ended.unterminated {
            out.push(b'\n');
        }
    }

    fn fail(
        &mut self,
        ended: &Ended<'_>,
        failed: &Failed,
        portion: &mut Portion,
        progress: &Progress,
    ) {
        self.failed += 1;
        let code = failed.code.as_str();
        if let Some(line) = self.failures.record(ended.number, code, &failed.message) {
            progress.say(&line);
        }
        if self.on_error == OnError::Null {
            self.begin(ended, &mut portion.results);
            portion.results.extend_from_slice(b"null");
            self.end(ended, &mut portion.results);
        }
        if self.errors {
            write_error(ended, failed, &mut portion.errors);
        }
    }
}

/// A failure that the run itself finds.
pub(crate) fn failure(code: Code, message: impl Into<String>) -> Failed {
    Failed {
        code,
        message: message.into(),
        traceback: None,
        signal: None,
        may_have_run: false,
        stopped: false,
    }
}

/// The number of the job that such a line tells of; nothing if it is torn.
pub(crate) fn number_of_error(line: &[u8]) -> Option<u64> {
    let rest = line.strip_suffix(b"}")?.strip_prefix(ERROR_START.as_bytes())?;
    let end = memchr::memchr(b',', rest)?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// How a line of the file of errors begins.
const ERROR_START: &str = "{\"number\":";

/// Appends a failed job as a line of JSON.
fn write_error(ended: &Ended<'_>, failed: &Failed, out: &mut Vec<u8>) {
    let string = |out: &mut Vec<u8>, text: &[u8]| {
        if json_string(out, text).is_err() {
            let text = String::from_utf8_lossy(text);
            // What is valid UTF-8 can be written.
            let _ = json_string(out, text.as_bytes());
        }
    };
    out.extend_from_slice(format!("{ERROR_START}{},\"input\":", ended.number).as_bytes());
    string(out, ended.input);
    out.extend_from_slice(b",\"code\":");
    string(out, failed.code.as_str().as_bytes());
    out.extend_from_slice(b",\"message\":");
    string(out, failed.message.as_bytes());
    if let Some(traceback) = &failed.traceback {
        out.extend_from_slice(b",\"traceback\":");
        string(out, traceback.as_bytes());
    }
    out.extend_from_slice(b"}\n");
}
